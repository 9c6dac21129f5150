/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* The firmware whose size is stated: it opens a bundle, seals a field and opens it again. */
#include "platform.h"
#include "tables.h"

static kfd_key key;
static const kfd_binding SERIAL = { "device.serial", 13, "row-17", 6, NULL, 0 };
static const uint8_t VALUE[16] = "SN-1234567890-A";
static uint8_t sealed[16 + KFD_SEALED_OVERHEAD], opened[16 + KFD_OPEN_EXTRA];
static size_t sealed_len;
static kfd_opened what;
static kf_result result;

/* Of a generator that is there for this test alone. */
static int32_t draw(void *user, uint8_t *out, size_t len)
{
    (void)user;
    for (size_t at = 0; at < len; at++)
        out[at] = (uint8_t)at;
    return KF_OK;
}

static void open_key(void)
{
    result = kfd_key_open(BUNDLES[DEFAULT_KEY], KFD_BUNDLE_LEN, TRANSPORT_KEY, sizeof TRANSPORT_KEY, 0, &key);
}

static void seal(void)
{
    result = kfd_seal(&key, &SERIAL, KFD_TYPE_BYTES, VALUE, sizeof VALUE, draw, NULL, sealed, sizeof sealed, &sealed_len);
}

static void open_value(void)
{
    result = kfd_open(&key, &SERIAL, sealed, sealed_len, opened, sizeof opened, &what);
}

static int measure(const char *name, void (*work)(void))
{
    uint32_t left, stack = stack_of(work, &left), instructions = instructions_of(work);
    say(name);
    say(" stack ");
    say_number(stack);
    say(" left ");
    say_number(left);
    say(" instructions ");
    say_number(instructions);
    say("\n");
    return result != KF_OK;
}

int main(void)
{
    int failed = measure("open_key", open_key) | measure("seal", seal) | measure("open", open_value);
    for (size_t at = 0; at < sizeof VALUE; at++)
        failed |= opened[at] != VALUE[at];
    return failed | (what.len != sizeof VALUE) | (sealed_len != sizeof sealed);
}
