/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the library does when it is used as it should be. Arguments: a folder that it may fill, a policy. */
#include "check.h"
#include <sys/wait.h>

static kf_error error;
static kf_options *options;
static kf_keyring *ring;
static char config[4096];

static kf_field *field(const char *name, const char *scope, const kf_context *context)
{
    kf_field *made;
    NEED(kf_field_new(ring, name, strlen(name), scope, scope ? strlen(scope) : 0, context, &made, &error));
    return made;
}

/* Seals a value, and opens it. */
static void there_and_back(const kf_field *any, uint8_t type, const void *value, size_t len)
{
    size_t sealed_len, written;
    NEED(kf_sealed_len(any, len, &sealed_len, &error));
    uint8_t *sealed = guarded(sealed_len, 0), *opened = guarded(kf_opened_len_max(sealed_len), 0);
    EXPECT(KF_OK, kf_encrypt(any, type, value, len, NULL, 0, sealed, sealed_len, &written, &error));
    CHECK(written == sealed_len && sealed_len == len + KF_SEALED_OVERHEAD);
    kf_opened what;
    EXPECT(KF_OK, kf_decrypt(any, sealed, sealed_len, NULL, 0, opened, kf_opened_len_max(sealed_len), &what, &error));
    CHECK(what.len == len && what.type == type && what.is_current && !what.is_compromised);
    CHECK(len == 0 || memcmp(opened, value, len) == 0);
}

static void number(const kf_field *any, uint8_t type, int64_t integer, double real, uint32_t nanoseconds, size_t expected_len)
{
    kf_number given = { integer, real, nanoseconds, 0 }, back;
    uint8_t bytes[KF_MAX_NUMBER_LEN];
    size_t len;
    EXPECT(KF_OK, kf_number_encode(type, &given, bytes, sizeof bytes, &len, &error));
    CHECK(len == expected_len);
    EXPECT(KF_OK, kf_number_decode(type, bytes, len, &back, &error));
    CHECK(memcmp(&given, &back, sizeof given) == 0);
    there_and_back(any, type, bytes, len);
}

static void types(void)
{
    kf_field *any = field("any", NULL, NULL);
    there_and_back(any, KF_TYPE_BYTES, "\0\xff", 2);
    there_and_back(any, KF_TYPE_BYTES, NULL, 0);
    there_and_back(any, KF_TYPE_TEXT, KF_STR("J\xc3\xb6rg"));
    there_and_back(any, KF_TYPE_DECIMAL, KF_STR("1.50"));
    there_and_back(any, KF_TYPE_JSON, KF_STR("{\"a\": 1}"));
    there_and_back(any, KF_TYPE_NULL, NULL, 0);
    number(any, KF_TYPE_INTEGER, 0, 0, 0, 1);
    number(any, KF_TYPE_INTEGER, -129, 0, 0, 2);
    number(any, KF_TYPE_INTEGER, INT64_MIN, 0, 0, 8);
    number(any, KF_TYPE_FLOAT, 0, -0.1, 0, 8);
    number(any, KF_TYPE_BOOLEAN, 1, 0, 0, 1);
    number(any, KF_TYPE_DATE, -719162, 0, 0, 4);
    number(any, KF_TYPE_TIMESTAMP, -1, 0, 999999999, 12);
    static uint8_t longest[KF_MAX_VALUE_LEN];
    there_and_back(any, KF_TYPE_BYTES, longest, sizeof longest);
    kf_number read;
    uint8_t wide[9] = { 1 };
    EXPECT(KF_ERR_UNSUPPORTED, kf_number_decode(KF_TYPE_INTEGER, wide, sizeof wide, &read, &error));
    kf_field_free(any);
}

static void rows_and_scopes(void)
{
    kf_field *ssn = field("patient.ssn", NULL, NULL), *there = field("patient.ssn", "clinic-17", NULL);
    uint8_t sealed[128], opened[128];
    size_t len;
    kf_opened what;
    NEED(kf_encrypt(ssn, KF_TYPE_TEXT, KF_STR("999-81-5679"), KF_STR("p-17"), sealed, sizeof sealed, &len, &error));
    EXPECT(KF_OK, kf_decrypt(ssn, sealed, len, KF_STR("p-17"), opened, sizeof opened, &what, &error));
    memset(opened, 'x', sizeof opened);
    memset(&what, 'x', sizeof what);
    EXPECT(KF_ERR_DECRYPTION_FAILED, kf_decrypt(ssn, sealed, len, KF_STR("p-18"), opened, sizeof opened, &what, &error));
    CHECK(all_are(opened, kf_opened_len_max(len), 0) && all_are(&what, sizeof what, 'x'));
    CHECK(opened[kf_opened_len_max(len)] == 'x');
    CHECK(strstr(error.text, "999-81") == NULL && error.row == KF_NO_ROW && !error.is_retryable);
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt(ssn, sealed, len, NULL, 0, opened, sizeof opened, &what, &error));
    /* The other scope is made by sealing in it. */
    EXPECT(KF_ERR_NO_MATCHING_KEY, kf_decrypt(there, sealed, len, KF_STR("p-17"), opened, sizeof opened, &what, &error));
    uint8_t other[128];
    NEED(kf_encrypt(there, KF_TYPE_TEXT, KF_STR("x"), KF_STR("p-17"), other, sizeof other, &len, &error));
    EXPECT(KF_ERR_WRONG_SCOPE, kf_decrypt(ssn, other, len, KF_STR("p-17"), opened, sizeof opened, &what, &error));
    sealed[1] = 0xee;
    EXPECT(KF_ERR_UNSUPPORTED, kf_decrypt(ssn, sealed, len, KF_STR("p-17"), opened, sizeof opened, &what, &error));
    sealed[0] = 0;
    EXPECT(KF_ERR_MALFORMED, kf_decrypt(ssn, sealed, len, KF_STR("p-17"), opened, sizeof opened, &what, &error));
    kf_field_free(ssn);
    kf_field_free(there);
}

static void contexts(void)
{
    kf_context *acme, *other;
    NEED(kf_context_new(&acme, &error));
    NEED(kf_context_add(acme, KF_STR("tenant"), KF_STR("acme"), &error));
    NEED(kf_context_new(&other, &error));
    NEED(kf_context_add(other, KF_STR("tenant"), KF_STR("other"), &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_context_add(acme, KF_STR("tenant"), KF_STR("again"), &error));
    kf_field *with = field("tenant", NULL, acme), *with_other = field("tenant", NULL, other), *without = field("tenant", NULL, NULL);
    kf_context_free(acme);
    kf_context_free(other);
    uint8_t sealed[128], opened[128];
    size_t len;
    kf_opened what;
    EXPECT(KF_OK, kf_encrypt(with, KF_TYPE_BYTES, "x", 1, NULL, 0, sealed, sizeof sealed, &len, &error));
    EXPECT(KF_OK, kf_decrypt(with, sealed, len, NULL, 0, opened, sizeof opened, &what, &error));
    EXPECT(KF_ERR_DECRYPTION_FAILED, kf_decrypt(with_other, sealed, len, NULL, 0, opened, sizeof opened, &what, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_encrypt(without, KF_TYPE_BYTES, "x", 1, NULL, 0, sealed, sizeof sealed, &len, &error));
    kf_field_free(with);
    kf_field_free(with_other);
    kf_field_free(without);
}

enum { ROWS = 1000 };

static void columns(void)
{
    kf_field *ssn = field("patient.ssn", NULL, NULL);
    static uint8_t types[ROWS], data[ROWS * 16], names[ROWS * 8];
    static int64_t offsets[ROWS + 1], name_offsets[ROWS + 1];
    for (int row = 0; row < ROWS; row++) {
        types[row] = row % 7 == 0 ? KF_TYPE_NULL : KF_TYPE_TEXT;
        int value = row % 7 == 0 ? 0 : sprintf((char *)data + offsets[row], "value %d", row);
        offsets[row + 1] = offsets[row] + value;
        name_offsets[row + 1] = name_offsets[row] + sprintf((char *)names + name_offsets[row], "p-%d", row);
    }
    kf_column values = { data, (size_t)offsets[ROWS], offsets, ROWS };
    kf_column rows = { names, (size_t)name_offsets[ROWS], name_offsets, ROWS };
    size_t sealed_len;
    EXPECT(KF_OK, kf_sealed_column_len(ssn, &values, &sealed_len, &error));
    CHECK(sealed_len == values.data_len + ROWS * KF_SEALED_OVERHEAD);
    uint8_t *sealed_data = guarded(sealed_len, 0);
    int64_t *sealed_offsets = (int64_t *)guarded((ROWS + 1) * sizeof(int64_t), 0);
    kf_column_out out = { sealed_data, sealed_len, sealed_offsets, ROWS + 1 };
    EXPECT(KF_OK, kf_encrypt_column(ssn, types, &values, &rows, &out, &error));
    CHECK((size_t)sealed_offsets[ROWS] == sealed_len && sealed_offsets[0] == 0);

    kf_column sealed = { sealed_data, sealed_len, sealed_offsets, ROWS };
    size_t opened_len = kf_opened_column_len_max(sealed_len, ROWS);
    uint8_t *opened_data = guarded(opened_len, 'x'), *opened_types = guarded(ROWS, 0);
    int64_t *opened_offsets = (int64_t *)guarded((ROWS + 1) * sizeof(int64_t), 0);
    kf_column_out opened = { opened_data, opened_len, opened_offsets, ROWS + 1 };
    kf_opened_column what;
    EXPECT(KF_OK, kf_decrypt_column(ssn, &sealed, &rows, opened_types, ROWS, &opened, &what, &error));
    CHECK(what.outdated == 0 && what.compromised == 0);
    CHECK(memcmp(opened_types, types, ROWS) == 0 && memcmp(opened_offsets, offsets, sizeof offsets) == 0);
    CHECK(memcmp(opened_data, data, values.data_len) == 0);

    /* A row of a column is a value. */
    uint8_t one[64];
    kf_opened of_one;
    EXPECT(KF_OK, kf_decrypt(ssn, sealed_data + sealed_offsets[9], (size_t)(sealed_offsets[10] - sealed_offsets[9]), KF_STR("p-9"), one,
                             sizeof one, &of_one, &error));
    CHECK(of_one.len == 7 && memcmp(one, "value 9", 7) == 0);

    /* One row that does not open is named, and nothing of the others comes out. */
    sealed_data[sealed_offsets[501] - 1] ^= 1;
    memset(opened_types, 'x', ROWS);
    EXPECT(KF_ERR_DECRYPTION_FAILED, kf_decrypt_column(ssn, &sealed, &rows, opened_types, ROWS, &opened, NULL, &error));
    CHECK(error.row == 500 && all_are(opened_data, opened_len, 0) && all_are(opened_types, ROWS, 'x'));
    types[30] = KF_TYPE_BOOLEAN;
    memset(sealed_data, 'x', sealed_len);
    EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt_column(ssn, types, &values, &rows, &out, &error));
    CHECK(error.row == 30 && all_are(sealed_data, sealed_len, 'x'));

    kf_column none = { NULL, 0, NULL, 0 };
    EXPECT(KF_OK, kf_encrypt_column(ssn, NULL, &none, &none, &out, &error));
    CHECK(sealed_offsets[0] == 0);
    kf_field_free(ssn);
}

static void texts_and_rotation(void)
{
    kf_field *any = field("any", NULL, NULL), *mrn = field("mrn", NULL, NULL);
    uint8_t sealed[128], again[256], opened[128];
    char text[256];
    size_t len, text_len, again_len;
    NEED(kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    EXPECT(KF_OK, kf_to_text(sealed, len, text, sizeof text, &text_len, &error));
    CHECK(text_len == kf_text_len(len) && memcmp(text, "kf1.", 4) == 0);
    EXPECT(KF_OK, kf_from_text(text, text_len, again, sizeof again, &again_len, &error));
    CHECK(again_len == len && memcmp(again, sealed, len) == 0);

    kf_inspection seen;
    EXPECT(KF_OK, kf_inspect(sealed, len, &seen, &error));
    CHECK(seen.generation > 0 && !seen.is_deterministic && !seen.is_framed && seen.encoded_len == 2);
    kf_key_info made;
    EXPECT(KF_OK, kf_keyring_rotate(ring, NULL, 0, &made, &error));
    CHECK(made.generation > seen.generation && made.key_class == KF_CLASS_DATA && made.state == KF_STATE_ACTIVE && made.is_trusted);
    bool is_current = true;
    kf_opened what;
    EXPECT(KF_OK, kf_is_current(any, sealed, len, &is_current, &error));
    EXPECT(KF_OK, kf_decrypt(any, sealed, len, NULL, 0, opened, sizeof opened, &what, &error));
    CHECK(!is_current && !what.is_current);
    EXPECT(KF_OK, kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    EXPECT(KF_OK, kf_inspect(sealed, len, &seen, &error));
    CHECK(seen.generation == made.generation && memcmp(seen.key_id, made.key_id, KF_KEY_ID_LEN) == 0);
    EXPECT(KF_ERR_NO_MATCHING_KEY, kf_keyring_rotate(ring, KF_STR("nowhere"), NULL, &error));

    kf_key_info keys[64], page[2];
    size_t count, page_len, walked = 0;
    EXPECT(KF_OK, kf_keyring_list(ring, NULL, keys, 64, &count, &error));
    CHECK(count > 3 && count < 64);
    const uint8_t *after = NULL;
    uint8_t last[KF_KEY_ID_LEN];
    do {
        NEED(kf_keyring_list(ring, after, page, 2, &page_len, &error));
        CHECK(page_len == 0 || memcmp(&keys[walked], page, page_len * sizeof *page) == 0);
        walked += page_len;
        if (page_len > 0)
            memcpy(last, page[page_len - 1].key_id, sizeof last);
        after = last;
    } while (page_len == 2);
    CHECK(walked == count);

    uint8_t first[128], second[128];
    NEED(kf_encrypt(mrn, KF_TYPE_TEXT, KF_STR("17"), NULL, 0, first, sizeof first, &len, &error));
    NEED(kf_encrypt(mrn, KF_TYPE_TEXT, KF_STR("17"), NULL, 0, second, sizeof second, &len, &error));
    CHECK(len == 2 + KF_DETERMINISTIC_OVERHEAD && memcmp(first, second, len) == 0);
    EXPECT(KF_OK, kf_inspect(first, len, &seen, &error));
    CHECK(seen.is_deterministic);
    kf_field_free(any);
    kf_field_free(mrn);
}

/* A child uses the handles of its parent, and the store. */
static void forks(void)
{
    kf_field *any = field("any", NULL, NULL);
    uint8_t sealed[128], opened[128];
    size_t len;
    kf_opened what;
    NEED(kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    CHECK(kf_keyring_before_fork(ring) == KF_OK);
    pid_t child = fork();
    if (child == 0) {
        kf_result result = kf_decrypt(any, sealed, len, NULL, 0, opened, sizeof opened, &what, &error);
        if (result == KF_OK)
            result = kf_keyring_rotate(ring, NULL, 0, NULL, &error);
        if (result == KF_OK)
            result = kf_encrypt(any, KF_TYPE_TEXT, KF_STR("y"), NULL, 0, sealed, sizeof sealed, &len, &error);
        _exit(result == KF_OK ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    EXPECT(KF_OK, kf_decrypt(any, sealed, len, NULL, 0, opened, sizeof opened, &what, &error));
    kf_field_free(any);
}

/* A key service of the program: not a secure one. */
struct service {
    atomic_int wraps, unwraps, released;
    int answer;
};

static int32_t service_wrap(void *user, const uint8_t *payload, const kf_kms_context *context, kf_wrapped *wrapped)
{
    struct service *service = (struct service *)user;
    service->wraps++;
    for (size_t at = 0; at < KF_PAYLOAD_LEN; at++)
        wrapped->bytes[at] = payload[at] ^ 0x5a;
    memcpy(wrapped->bytes + KF_PAYLOAD_LEN, context->bytes, context->bytes_len);
    wrapped->len = KF_PAYLOAD_LEN + context->bytes_len;
    memcpy(wrapped->version, "v7", 2);
    wrapped->version_len = 2;
    return service->answer;
}

static int32_t service_unwrap(void *user, const kf_wrapped *wrapped, const kf_kms_context *context, uint8_t *payload)
{
    struct service *service = (struct service *)user;
    service->unwraps++;
    if (wrapped->len != KF_PAYLOAD_LEN + context->bytes_len ||
        memcmp(wrapped->bytes + KF_PAYLOAD_LEN, context->bytes, context->bytes_len) != 0 || wrapped->version_len != 2 ||
        memcmp(wrapped->version, "v7", 2) != 0 || strlen(context->key_id) != context->key_id_len ||
        strcmp(context->environment, "test") != 0)
        return KF_ERR_KMS_INVALID_CIPHERTEXT;
    for (size_t at = 0; at < KF_PAYLOAD_LEN; at++)
        payload[at] = wrapped->bytes[at] ^ 0x5a;
    return service->answer;
}

static void service_release(void *user)
{
    ((struct service *)user)->released++;
}

struct trail {
    atomic_int events, odd, released;
    int answer;
};

static int32_t record(void *user, const char *event, size_t event_len)
{
    struct trail *trail = (struct trail *)user;
    trail->events++;
    if (event_len < 12 || memcmp(event, "{\"action\":\"", 11) != 0 || event[event_len - 1] != '}')
        trail->odd++;
    return trail->answer;
}

static void trail_release(void *user)
{
    ((struct trail *)user)->released++;
}

/* Failure F6 */
static void callbacks(const char *folder, const char *policy)
{
    static struct service service;
    static struct trail trail;
    char path[4096];
    snprintf(path, sizeof path, "%s/served", folder);
    kf_kek kek = { service_wrap, service_unwrap, service_release, &service };
    kf_options *mine;
    NEED(kf_options_new(&mine, &error));
    NEED(kf_options_add_kek(mine, KF_STR("ward"), &kek, &error));
    service.answer = KF_ERR_KMS_ACCESS_DENIED;
    EXPECT(KF_ERR_KMS_ACCESS_DENIED,
           kf_init(path, strlen(path), KF_STR("ring"), KF_STR("test"), KF_STR("host:ward"), mine, &error));
    service.answer = KF_OK;
    EXPECT(KF_OK, kf_init(path, strlen(path), KF_STR("ring"), KF_STR("test"), KF_STR("host:ward"), mine, &error));
    CHECK(service.wraps > 0 && service.unwraps > 0);

    NEED(kf_options_add_policy(mine, policy, strlen(policy), &error));
    NEED(kf_options_set_audit(mine, record, trail_release, &trail, &error));
    strcat(path, "/keyfold.toml");
    kf_keyring *served;
    NEED(kf_keyring_open(path, strlen(path), mine, &served, &error));
    EXPECT(KF_OK, kf_keyring_reload(served, path, strlen(path), mine, &error));
    kf_field *any;
    NEED(kf_field_new(served, KF_STR("any"), NULL, 0, NULL, &any, &error));
    uint8_t sealed[128];
    size_t len;
    service.answer = 12345;
    EXPECT(KF_ERR_KMS_REJECTED, kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    service.answer = KF_OK;
    trail.answer = 1;
    usleep(1100000); /* a failure answers for a second */
    EXPECT(KF_ERR_IO, kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    trail.answer = KF_OK;
    usleep(1100000);
    EXPECT(KF_OK, kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    /* Counts are recorded before a fork: a child would have them as well. */
    int counted = trail.events;
    CHECK(kf_keyring_before_fork(served) == KF_OK && trail.events > counted);
    EXPECT(KF_OK, kf_keyring_refresh(served, &error));
    EXPECT(KF_OK, kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    CHECK(trail.events > 2 && trail.odd == 0);
    kf_options_free(mine);
    CHECK(service.released == 0 && trail.released == 0);
    int before = trail.events;
    kf_keyring_close(served);
    CHECK(trail.events > before);
    EXPECT(KF_ERR_CLOSED, kf_encrypt(any, KF_TYPE_TEXT, KF_STR("x"), NULL, 0, sealed, sizeof sealed, &len, &error));
    kf_field_free(any);
    /* The last thread of keyfold's that used them lets them go. */
    for (int waited = 0; waited < 500 && (service.released == 0 || trail.released == 0); waited++)
        usleep(10000);
    CHECK(service.released == 1 && trail.released == 1);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const char *folder = argv[1], *policy = argv[2];
    CHECK(kf_version() == KF_VERSION);
    CHECK(strcmp(kf_result_name(KF_ERR_DECRYPTION_FAILED), "DecryptionFailed") == 0 && kf_result_name(7) == NULL);
    kf_fips fips;
    EXPECT(KF_OK, kf_fips_status(&fips, &error));
    CHECK(fips.has_module == (fips.module[0] != 0) && fips.has_module == (fips.version[0] != 0));
    CHECK(fips.has_module || !fips.is_in_fips_mode);
    CHECK(strstr(fips.services, "\tAES-256-SIV\tRustCrypto\tnot approved\n") != NULL);
    CHECK((strstr(fips.services, "\tapproved\n") != NULL) == fips.has_module);
    CHECK(kf_result_is_retryable(KF_ERR_KMS_THROTTLED) && !kf_result_is_retryable(KF_ERR_DECRYPTION_FAILED));
    snprintf(config, sizeof config, "%s/ring", folder);
    EXPECT(KF_OK, kf_init(config, strlen(config), KF_STR("ring"), KF_STR("test"), NULL, 0, NULL, &error));
    EXPECT(KF_ERR_IO, kf_init(config, strlen(config), KF_STR("ring"), KF_STR("test"), NULL, 0, NULL, &error));
    strcat(config, "/keyfold.toml");
    NEED(kf_options_new(&options, &error));
    NEED(kf_options_add_policy(options, policy, strlen(policy), &error));
    NEED(kf_keyring_open(config, strlen(config), options, &ring, &error));
    kf_options_free(options);
    kf_field *none;
    EXPECT(KF_ERR_POLICY_REFUSED, kf_field_new(ring, KF_STR("nothing"), NULL, 0, NULL, &none, &error));
    types();
    rows_and_scopes();
    contexts();
    columns();
    texts_and_rotation();
    forks();
    callbacks(folder, policy);
    CHECK(kf_keyring_close(ring) == KF_OK);
    return report();
}
