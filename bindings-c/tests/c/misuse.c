/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the library does when it is used as it should not be: the documented result, and nothing else changes. Arguments: the configuration
 * of a keyring, a policy. */
#include "misuse.h"
#include <pthread.h>

static void results(void)
{
    CHECK(kf_result_name(-1) == NULL && kf_result_name(INT32_MIN) == NULL && kf_result_name(INT32_MAX) == NULL);
    CHECK(!kf_result_is_retryable(-1) && !kf_result_is_retryable(1));
    CHECK(kf_version() == KF_VERSION);
    /* An error that nobody wants. */
    CHECK(kf_options_new(NULL, NULL) == KF_ERR_NULL_POINTER);
    /* Success leaves the error alone. */
    memset(&error, 'x', sizeof error);
    kf_options *made;
    CHECK(kf_options_new(&made, &error) == KF_OK && all_are(&error, sizeof error, 'x'));
    kf_options_free(made);
}

static int32_t no_wrap(void *user, const uint8_t *payload, const kf_kms_context *told, kf_wrapped *wrapped)
{
    (void)user, (void)payload, (void)told, (void)wrapped;
    return KF_ERR_KMS_REJECTED;
}

static int32_t no_unwrap(void *user, const kf_wrapped *wrapped, const kf_kms_context *told, uint8_t *payload)
{
    (void)user, (void)payload, (void)told, (void)wrapped;
    return KF_ERR_KMS_REJECTED;
}

static int32_t no_passphrase(void *user, const char *alias, size_t alias_len, uint8_t *passphrase, size_t *passphrase_len)
{
    (void)user, (void)alias, (void)alias_len, (void)passphrase, (void)passphrase_len;
    return KF_ERR_INTERNAL;
}

static int32_t no_audit(void *user, const char *event, size_t event_len)
{
    (void)user, (void)event, (void)event_len;
    return KF_OK;
}

static int32_t no_records(void *user, const void *records, size_t records_len)
{
    (void)user, (void)records, (void)records_len;
    return -1;
}

static void no_log(void *user, uint8_t level, const char *text, size_t text_len)
{
    (void)user, (void)level, (void)text, (void)text_len;
}

static int released;

static void count_release(void *user)
{
    (void)user;
    released++;
}

/* Failure F15 */
static void the_options(void)
{
    kf_options *mine;
    kf_kek kek = { no_wrap, no_unwrap, count_release, NULL }, without = { NULL, no_unwrap, count_release, NULL };
    NEED(kf_options_new(&mine, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_add_policy(mine, NULL, 1, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_options_add_policy(mine, NULL, 0, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_options_add_policy(mine, "a\0b", 3, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_add_policy(NULL, KF_STR("x"), &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_options_set_recovery(mine, NULL, 0, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_options_set_recovery(mine, KF_STR("two\nlines"), &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_options_set_recovery(mine, KF_STR("\xff"), &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_recovery(NULL, KF_STR("x"), &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_records(mine, NULL, 1, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_records(NULL, "x", 1, &error));
    EACH_HUGE(len) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_options_add_policy(mine, "x", len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_options_set_recovery(mine, "x", len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_options_set_records(mine, "x", len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_options_add_kek(mine, "x", len, &kek, &error));
    }
    EXPECT(KF_ERR_NULL_POINTER, kf_options_add_kek(mine, KF_STR("x"), NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_add_kek(mine, KF_STR("x"), &without, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_add_kek(NULL, KF_STR("x"), &kek, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_passphrase(mine, NULL, count_release, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_passphrase(NULL, no_passphrase, count_release, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_audit(mine, NULL, count_release, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_options_set_audit(NULL, no_audit, count_release, NULL, &error));
    CHECK(released == 0); /* nothing was taken */
    EXPECT(KF_OK, kf_options_add_kek(mine, KF_STR("x"), &kek, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_options_add_kek(mine, KF_STR("x"), &kek, &error));
    EXPECT(KF_OK, kf_options_set_passphrase(mine, no_passphrase, count_release, NULL, &error));
    EXPECT(KF_OK, kf_options_set_audit(mine, no_audit, count_release, NULL, &error));
    CHECK(released == 0);
    EXPECT(KF_OK, kf_options_set_audit(mine, no_audit, NULL, NULL, &error));
    CHECK(released == 1);
    kf_keyring *opened;
    /* The configuration names no such KEK. */
    EXPECT(KF_ERR_CONFIGURATION, kf_keyring_open(config, strlen(config), mine, &opened, &error));
    CHECK(kf_options_free(mine) == KF_OK && released == 3);
    CHECK(kf_options_free(mine) == KF_ERR_INVALID_HANDLE && kf_options_free(NULL) == KF_OK);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_options_add_policy(mine, KF_STR("x"), &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_open(config, strlen(config), mine, &opened, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_init(KF_STR("/nowhere"), KF_STR("x"), KF_STR("x"), NULL, 0, mine, &error));
}

/* Failure F3 */
static void keyrings(void)
{
    kf_keyring *opened = NULL;
    EXPECT(KF_ERR_NULL_POINTER, kf_init(NULL, 1, KF_STR("x"), KF_STR("x"), NULL, 0, NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_init("", 0, KF_STR("x"), KF_STR("x"), NULL, 0, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_init(KF_STR("/nowhere"), NULL, 1, KF_STR("x"), NULL, 0, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_init(KF_STR("/nowhere"), KF_STR("x"), KF_STR("x"), NULL, 1, NULL, &error));
    EXPECT(KF_ERR_CONFIGURATION, kf_init(KF_STR("/tmp"), KF_STR("x"), KF_STR("x"), KF_STR("what:ever"), NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_open(config, strlen(config), NULL, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_open(NULL, 1, NULL, &opened, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_open(NULL, 0, NULL, &opened, &error));
    EXPECT(KF_ERR_IO, kf_keyring_open(KF_STR("/nowhere/keyfold.toml"), NULL, &opened, &error));
    EACH_HUGE(len) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_open("x", len, NULL, &opened, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_init("x", len, KF_STR("x"), KF_STR("x"), NULL, 0, NULL, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_reload(ring, "x", len, NULL, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_rotate(ring, "x", len, NULL, &error));
    }
    CHECK(opened == NULL);
    /* Of another kind. */
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_open(config, strlen(config), (kf_options *)ring, &opened, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_reload((kf_keyring *)any, config, strlen(config), NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_rotate((kf_keyring *)options, NULL, 0, NULL, &error));
    CHECK(kf_keyring_before_fork((kf_keyring *)any) == KF_ERR_INVALID_HANDLE);
    CHECK(kf_keyring_before_fork(NULL) == KF_ERR_NULL_POINTER);
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_refresh(NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_refresh((kf_keyring *)any, &error));
    CHECK(kf_keyring_close((kf_keyring *)any) == KF_ERR_INVALID_HANDLE && kf_keyring_close(NULL) == KF_OK);
    /* Never one. */
    int local = 0;
    uintptr_t odd[] = { 1, 3, 16, 0x33, UINTPTR_MAX, UINTPTR_MAX / 2, (uintptr_t)&local, (uintptr_t)&error };
    for (size_t at = 0; at < sizeof odd / sizeof *odd; at++)
        EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_rotate((kf_keyring *)odd[at], NULL, 0, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_reload(NULL, config, strlen(config), NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_reload(ring, NULL, 3, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_rotate(ring, NULL, 3, NULL, &error));

    kf_key_info keys[2];
    size_t count = 77;
    memset(keys, 'x', sizeof keys);
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_list(NULL, NULL, keys, 2, &count, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_list(ring, NULL, NULL, 2, &count, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_list(ring, NULL, keys, 2, NULL, &error));
    EXPECT(KF_ERR_OVERLAP, kf_keyring_list(ring, NULL, keys, 2, (size_t *)&keys[1].created_at, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_list(ring, NULL, (kf_key_info *)((char *)keys + 1), 1, &count, &error));
    EACH_HUGE(len) EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_list(ring, NULL, keys, len, &count, &error));
    CHECK(count == 77 && all_are(keys, sizeof keys, 'x'));
    EXPECT(KF_OK, kf_keyring_list(ring, NULL, NULL, 0, &count, &error));
    CHECK(count == 0);

    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_records(NULL, no_records, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_keyring_records(ring, NULL, NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_records((kf_keyring *)any, no_records, NULL, &error));
    EXPECT(KF_ERR_IO, kf_keyring_records(ring, no_records, NULL, &error));
    /* Nobody to release for, and nobody at all. */
    CHECK(kf_set_log(no_log, NULL, NULL) == KF_OK && kf_set_log(no_log, NULL, NULL) == KF_OK);
    CHECK(kf_set_log(NULL, NULL, NULL) == KF_OK && kf_set_log(NULL, NULL, NULL) == KF_OK);

    /* Twice, and afterwards. */
    kf_field *field;
    NEED(kf_keyring_open(config, strlen(config), options, &opened, &error));
    NEED(kf_field_new(opened, KF_STR("any"), NULL, 0, NULL, &field, &error));
    CHECK(kf_keyring_close(opened) == KF_OK && kf_keyring_close(opened) == KF_ERR_INVALID_HANDLE);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_rotate(opened, NULL, 0, NULL, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_keyring_records(opened, no_records, NULL, &error));
    kf_field *late;
    EXPECT(KF_ERR_INVALID_HANDLE, kf_field_new(opened, KF_STR("any"), NULL, 0, NULL, &late, &error));
    uint8_t out[100];
    size_t len;
    EXPECT(KF_ERR_CLOSED, kf_encrypt(field, KF_TYPE_BYTES, "x", 1, NULL, 0, out, sizeof out, &len, &error));
    CHECK(kf_field_free(field) == KF_OK && kf_field_free(field) == KF_ERR_INVALID_HANDLE && kf_field_free(NULL) == KF_OK);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_encrypt(field, KF_TYPE_BYTES, "x", 1, NULL, 0, out, sizeof out, &len, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_sealed_len(field, 1, &len, &error));
}

static void contexts_and_fields(void)
{
    kf_context *mine;
    kf_field *field = NULL;
    EXPECT(KF_ERR_NULL_POINTER, kf_context_new(NULL, &error));
    NEED(kf_context_new(&mine, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_context_add(NULL, KF_STR("a"), KF_STR("b"), &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_context_add(mine, NULL, 1, KF_STR("b"), &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_context_add(mine, KF_STR("a"), NULL, 1, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_context_add(mine, NULL, 0, KF_STR("b"), &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_context_add(mine, KF_STR("kf:env"), KF_STR("b"), &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_context_add(mine, KF_STR("\xff"), KF_STR("b"), &error));
    static char long_value[4096];
    EXPECT(KF_ERR_LIMIT_EXCEEDED, kf_context_add(mine, KF_STR("a"), long_value, sizeof long_value, &error));
    EACH_HUGE(len) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_context_add(mine, "a", len, KF_STR("b"), &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_context_add(mine, KF_STR("a"), "b", len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_field_new(ring, "any", len, NULL, 0, NULL, &field, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_field_new(ring, KF_STR("any"), "x", len, NULL, &field, &error));
    }
    EXPECT(KF_OK, kf_context_add(mine, KF_STR("a"), NULL, 0, &error)); /* nothing of it failed half way */
    CHECK(kf_context_free(mine) == KF_OK && kf_context_free(mine) == KF_ERR_INVALID_HANDLE && kf_context_free(NULL) == KF_OK);
    EXPECT(KF_ERR_INVALID_HANDLE, kf_context_add(mine, KF_STR("a"), KF_STR("b"), &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_field_new(ring, KF_STR("any"), NULL, 0, mine, &field, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_field_new(ring, KF_STR("any"), NULL, 0, (kf_context *)ring, &field, &error));
    CHECK(kf_context_free((kf_context *)any) == KF_ERR_INVALID_HANDLE && kf_field_free((kf_field *)context) == KF_ERR_INVALID_HANDLE);
    EXPECT(KF_ERR_NULL_POINTER, kf_field_new(NULL, KF_STR("any"), NULL, 0, NULL, &field, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_field_new(ring, NULL, 3, NULL, 0, NULL, &field, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_field_new(ring, KF_STR("any"), NULL, 1, NULL, &field, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_field_new(ring, KF_STR("any"), NULL, 0, NULL, NULL, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_field_new(ring, NULL, 0, NULL, 0, NULL, &field, &error));
    CHECK(field == NULL);
}

/* Failure F2 */
static void encrypting(void)
{
    size_t needed, len = 77;
    EXPECT(KF_ERR_NULL_POINTER, kf_sealed_len(any, 3, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_sealed_len(NULL, 3, &needed, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_sealed_len((kf_field *)ring, 3, &needed, &error));
    EXPECT(KF_ERR_LIMIT_EXCEEDED, kf_sealed_len(any, KF_MAX_VALUE_LEN + 1, &needed, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_LIMIT_EXCEEDED, kf_sealed_len(any, huge, &needed, &error));
    NEED(kf_sealed_len(any, 3, &needed, &error));
    uint8_t *out = guarded(needed, 'x'), *value = guarded(3, 'a'), *room = guarded(400, 'x');
    /* Everything ends where it may. */
    EXPECT(KF_OK, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, out, needed, &len, &error));
    CHECK(len == needed);
    memset(out, 'x', needed);
    len = 77;
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, out + 1, needed - 1, &len, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, out, 0, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt(NULL, KF_TYPE_BYTES, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_encrypt((kf_field *)context, KF_TYPE_BYTES, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt(any, KF_TYPE_BYTES, NULL, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 3, out, needed, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, NULL, needed, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, NULL, 0, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, out, needed, NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_BYTES, value, 3, "", 0, out, needed, &len, &error)); /* a row */
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(bound, KF_TYPE_BYTES, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, 0, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, 11, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, 255, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_TEXT, "\xff\xff\xff", 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_INTEGER, "\0\0\1", 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_NULL, value, 3, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_DECIMAL, "1.x", 3, NULL, 0, out, needed, &len, &error));
    static uint8_t too_long[KF_MAX_VALUE_LEN + 1];
    EXPECT(KF_ERR_LIMIT_EXCEEDED, kf_encrypt(any, KF_TYPE_BYTES, too_long, sizeof too_long, NULL, 0, out, needed, &len, &error));
    EXPECT(KF_ERR_LIMIT_EXCEEDED, kf_encrypt(bound, KF_TYPE_BYTES, value, 3, too_long, sizeof too_long, out, needed, &len, &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_BYTES, value, huge, NULL, 0, out, needed, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(bound, KF_TYPE_BYTES, value, 3, value, huge, out, needed, &len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, out, huge, &len, &error));
    }
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, out, needed, (size_t *)(void *)(room + 1), &error));
    CHECK(len == 77 && all_are(out, needed, 'x') && all_are(room, 400, 'x'));
    /* Overlap: the first and the last byte of each. */
    EXPECT(KF_ERR_OVERLAP, kf_encrypt(any, KF_TYPE_BYTES, room, 3, NULL, 0, room, 399, &len, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt(any, KF_TYPE_BYTES, room + needed - 1, 3, NULL, 0, room, 300, &len, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt(bound, KF_TYPE_BYTES, value, 3, room, 1, room, 300, &len, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt(any, KF_TYPE_BYTES, value, 3, NULL, 0, room, 300, (size_t *)(void *)room, &error));
    EXPECT(KF_ERR_OVERLAP, kf_encrypt(any, KF_TYPE_BYTES, room, 3, NULL, 0, out, needed, (size_t *)(void *)room, &error));
    CHECK(all_are(room, 400, 'x'));
    EXPECT(KF_OK, kf_encrypt(any, KF_TYPE_BYTES, room + needed, 3, NULL, 0, room, 300, &len, &error));
}

/* Failures C19, F2 */
static void decrypting(void)
{
    uint8_t sealed_room[128], *room = guarded(400, 'x');
    size_t len;
    NEED(kf_encrypt(bound, KF_TYPE_TEXT, KF_STR("secret"), KF_STR("p"), sealed_room, sizeof sealed_room, &len, &error));
    uint8_t *sealed = guarded(len, 0);
    memcpy(sealed, sealed_room, len);
    size_t needed = kf_opened_len_max(len);
    CHECK(kf_opened_len_max(0) == 0 && kf_opened_len_max(43) == 0 && kf_opened_len_max(44) == 1);
    CHECK(kf_opened_len_max(SIZE_MAX) == SIZE_MAX - 43);
    uint8_t *out = guarded(needed, 'x');
    kf_opened what;
    memset(&what, 'x', sizeof what);
    EXPECT(KF_OK, kf_decrypt(bound, sealed, len, "p", 1, out, needed, &what, &error));
    CHECK(what.len == 6 && memcmp(out, "secret", 6) == 0);
    memset(&what, 'x', sizeof what);
    /* Pointers and lengths that are refused leave the room alone. */
    memset(out, 'x', needed);
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt(NULL, sealed, len, "p", 1, out, needed, &what, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_decrypt((kf_field *)options, sealed, len, "p", 1, out, needed, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt(bound, NULL, len, "p", 1, out, needed, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt(bound, sealed, len, NULL, 1, out, needed, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt(bound, sealed, len, "p", 1, NULL, needed, &what, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_decrypt(bound, sealed, len, "p", 1, out, needed, NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt(bound, sealed, len, "p", 1, out, needed, (kf_opened *)(void *)(room + 1), &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt(bound, sealed, huge, "p", 1, out, needed, &what, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt(bound, sealed, len, "p", huge, out, needed, &what, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt(bound, sealed, len, "p", 1, out, huge, &what, &error));
    }
    CHECK(all_are(out, needed, 'x'));
    memcpy(room, sealed, len);
    EXPECT(KF_ERR_OVERLAP, kf_decrypt(bound, room, len, "p", 1, room, 400, &what, &error));
    EXPECT(KF_ERR_OVERLAP, kf_decrypt(bound, room, len, "p", 1, room + len - 1, 200, &what, &error));
    EXPECT(KF_ERR_OVERLAP, kf_decrypt(bound, sealed, len, room, 1, room, 200, &what, &error));
    EXPECT(KF_ERR_OVERLAP, kf_decrypt(bound, sealed, len, "p", 1, &what, 200, &what, &error));
    CHECK(memcmp(room, sealed, len) == 0 && all_are(room + len, 400 - len, 'x'));
    /* Every other failure erases it. */
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_decrypt(bound, sealed, len, "p", 1, out + 1, needed - 1, &what, &error));
    CHECK(out[0] == 'x' && all_are(out + 1, needed - 1, 0));
    memset(out, 'x', needed);
    EXPECT(KF_ERR_DECRYPTION_FAILED, kf_decrypt(bound, sealed, len, "q", 1, out, needed, &what, &error));
    CHECK(all_are(out, needed, 0) && strstr(error.text, "secret") == NULL);
    memset(out, 'x', needed);
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt(bound, sealed, len, NULL, 0, out, needed, &what, &error));
    CHECK(all_are(out, needed, 0));
    EXPECT(KF_ERR_MALFORMED, kf_decrypt(bound, NULL, 0, "p", 1, NULL, 0, &what, &error));
    /* No byte of it can be changed, and none be missing. */
    for (size_t at = 0; at < len; at++) {
        memcpy(room, sealed, len);
        room[at] ^= 1;
        memset(out, 'x', needed);
        kf_result result = kf_decrypt(bound, room, len, "p", 1, out, needed, &what, &error);
        CHECK(result != KF_OK && result != KF_ERR_INTERNAL && all_are(out, needed, 0));
        uint8_t *shorter = guarded(at, 0);
        memcpy(shorter, sealed, at);
        CHECK(kf_decrypt(bound, shorter, at, "p", 1, room, 200, &what, &error) != KF_OK);
    }
    CHECK(all_are(&what, sizeof what, 'x'));
    bool is_current = true;
    EXPECT(KF_ERR_NULL_POINTER, kf_is_current(bound, NULL, 3, &is_current, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_is_current(bound, sealed, len, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_is_current(NULL, sealed, len, &is_current, &error));
    EXPECT(KF_ERR_INVALID_HANDLE, kf_is_current((kf_field *)ring, sealed, len, &is_current, &error));
    EXPECT(KF_ERR_MALFORMED, kf_is_current(bound, sealed, 5, &is_current, &error));
    EXPECT(KF_ERR_OVERLAP, kf_is_current(bound, room, len, (bool *)room, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_is_current(bound, sealed, huge, &is_current, &error));
    CHECK(is_current);
}

static void inspecting(void)
{
    uint8_t sealed[100], *room = guarded(300, 'x');
    size_t len, text_len = 77;
    kf_inspection seen;
    memset(&seen, 'x', sizeof seen);
    NEED(kf_encrypt(any, KF_TYPE_BYTES, "x", 1, NULL, 0, sealed, sizeof sealed, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_inspect(NULL, 3, &seen, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_inspect(sealed, len, NULL, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_fips_status(NULL, &error));
    EXPECT(KF_ERR_MALFORMED, kf_inspect(NULL, 0, &seen, &error));
    EXPECT(KF_ERR_MALFORMED, kf_inspect(sealed, 30, &seen, &error));
    memcpy(room, sealed, len);
    EXPECT(KF_ERR_OVERLAP, kf_inspect(room, len, (kf_inspection *)(void *)(room + (8 - (uintptr_t)room % 8)), &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_inspect(sealed, huge, &seen, &error));
    CHECK(all_are(&seen, sizeof seen, 'x'));

    CHECK(kf_text_len(SIZE_MAX) == SIZE_MAX && kf_text_sealed_len_max(SIZE_MAX) == SIZE_MAX);
    size_t needed = kf_text_len(len), back;
    char *text = (char *)guarded(needed, 'x');
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_to_text(sealed, len, text, needed - 1, &text_len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_to_text(NULL, 3, text, needed, &text_len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_to_text(sealed, len, NULL, needed, &text_len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_to_text(sealed, len, text, needed, NULL, &error));
    EXPECT(KF_ERR_OVERLAP, kf_to_text(room, len, (char *)room, 300, &text_len, &error));
    EXPECT(KF_ERR_MALFORMED, kf_to_text(sealed, 3, text, needed, &text_len, &error));
    EACH_HUGE(huge) {
        EXPECT(KF_ERR_INVALID_INPUT, kf_to_text(sealed, huge, text, needed, &text_len, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_to_text(sealed, len, text, huge, &text_len, &error));
    }
    CHECK(text_len == 77 && all_are(text, needed, 'x'));
    EXPECT(KF_OK, kf_to_text(sealed, len, text, needed, &text_len, &error));
    CHECK(text_len == needed);
    EXPECT(KF_ERR_NULL_POINTER, kf_from_text(NULL, 3, room, 300, &back, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_from_text(text, text_len, NULL, 300, &back, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_from_text(text, text_len, room, 300, NULL, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_from_text(text, text_len, room, text_len - 1, &back, &error));
    /* One character less can be a value that is a byte shorter; two cannot. */
    EXPECT(KF_ERR_MALFORMED, kf_from_text(text, text_len - 2, room, 300, &back, &error));
    EXPECT(KF_ERR_OVERLAP, kf_from_text((char *)room, 50, room, 300, &back, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_from_text(text, huge, room, 300, &back, &error));

    kf_number number = { 1, 0, 0, 0 };
    uint8_t bytes[KF_MAX_NUMBER_LEN];
    memset(bytes, 'x', sizeof bytes);
    EXPECT(KF_ERR_NULL_POINTER, kf_number_encode(KF_TYPE_INTEGER, NULL, bytes, sizeof bytes, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_number_encode(KF_TYPE_INTEGER, &number, NULL, sizeof bytes, &len, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_number_encode(KF_TYPE_INTEGER, &number, bytes, sizeof bytes, NULL, &error));
    EXPECT(KF_ERR_BUFFER_TOO_SMALL, kf_number_encode(KF_TYPE_INTEGER, &number, bytes, sizeof bytes - 1, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_encode(KF_TYPE_TEXT, &number, bytes, sizeof bytes, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_encode(0, &number, bytes, sizeof bytes, &len, &error));
    number.nanoseconds = 1000000000;
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_encode(KF_TYPE_TIMESTAMP, &number, bytes, sizeof bytes, &len, &error));
    number.integer = (int64_t)INT32_MAX + 1;
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_encode(KF_TYPE_DATE, &number, bytes, sizeof bytes, &len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_encode(KF_TYPE_BOOLEAN, &number, bytes, sizeof bytes, &len, &error));
    EXPECT(KF_ERR_OVERLAP, kf_number_encode(KF_TYPE_INTEGER, &number, (uint8_t *)&number, sizeof number, &len, &error));
    CHECK(all_are(bytes, sizeof bytes, 'x'));
    EXPECT(KF_ERR_NULL_POINTER, kf_number_decode(KF_TYPE_INTEGER, NULL, 1, &number, &error));
    EXPECT(KF_ERR_NULL_POINTER, kf_number_decode(KF_TYPE_INTEGER, bytes, 1, NULL, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_decode(KF_TYPE_INTEGER, NULL, 0, &number, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_decode(KF_TYPE_TEXT, bytes, 1, &number, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_number_decode(KF_TYPE_DATE, bytes, 3, &number, &error));
    EXPECT(KF_ERR_OVERLAP, kf_number_decode(KF_TYPE_INTEGER, (uint8_t *)&number, 1, &number, &error));
    EACH_HUGE(huge) EXPECT(KF_ERR_INVALID_INPUT, kf_number_decode(KF_TYPE_INTEGER, bytes, huge, &number, &error));
}

/* One field, many threads, and one that releases it in between. */
static kf_field *shared;
static atomic_int done, refused, odd;

static void *work(void *unused)
{
    (void)unused;
    for (int turn = 0; turn < 20000; turn++) {
        uint8_t sealed[100], opened[100];
        size_t len;
        kf_opened what;
        kf_result result = kf_encrypt(shared, KF_TYPE_TEXT, "value", 5, NULL, 0, sealed, sizeof sealed, &len, NULL);
        if (result == KF_OK)
            result = kf_decrypt(shared, sealed, len, NULL, 0, opened, sizeof opened, &what, NULL);
        if (result == KF_OK && what.len == 5 && memcmp(opened, "value", 5) == 0)
            done++;
        else if (result == KF_ERR_INVALID_HANDLE)
            refused++;
        else
            odd++;
        if (refused > 0)
            break;
    }
    return NULL;
}

/* Failure F5 */
static void threads(void)
{
    for (int round = 0; round < 20; round++) {
        pthread_t running[8];
        done = refused = 0;
        NEED(kf_field_new(ring, KF_STR("any"), NULL, 0, NULL, &shared, &error));
        for (int at = 0; at < 8; at++)
            CHECK(pthread_create(&running[at], NULL, work, NULL) == 0);
        while (done < 100 && odd == 0)
            usleep(100);
        CHECK(kf_field_free(shared) == KF_OK);
        for (int at = 0; at < 8; at++)
            pthread_join(running[at], NULL);
        CHECK(done >= 100 && refused > 0 && odd == 0);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    begin(argv[1], argv[2]);
    results();
    the_options();
    keyrings();
    contexts_and_fields();
    encrypting();
    decrypting();
    inspecting();
    threads();
    return end();
}
