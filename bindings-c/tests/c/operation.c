/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a gateway needs besides sealing: to find values, to go on when a row does not open, to take its keys along, to ask for a
 * passphrase, to be told. Arguments: a folder that it may fill, a policy, a KEK with the passphrase "correct horse battery". */
#include "check.h"
#include <fcntl.h>

static kf_error error;
static kf_keyring *ring;
static char config[4096];

static kf_keyring *opened_with(kf_options *options, const char *policy)
{
    kf_keyring *opened;
    NEED(kf_options_add_policy(options, policy, strlen(policy), &error));
    NEED(kf_keyring_open(config, strlen(config), options, &opened, &error));
    kf_options_free(options);
    return opened;
}

static kf_field *field(const char *name)
{
    kf_field *made;
    NEED(kf_field_new(ring, name, strlen(name), NULL, 0, NULL, &made, &error));
    return made;
}

static void searching(void)
{
    kf_field *mrn = field("mrn"), *any = field("any");
    uint8_t sealed[64], other[64], found[128];
    size_t len, keys, found_len;
    NEED(kf_encrypt(mrn, KF_TYPE_TEXT, KF_STR("M-17"), NULL, 0, sealed, sizeof sealed, &len, &error));
    NEED(kf_encrypt(mrn, KF_TYPE_TEXT, KF_STR("M-18"), NULL, 0, other, sizeof other, &len, &error));
    EXPECT(KF_OK, kf_search_keys(mrn, &keys, &error));
    CHECK(keys == 1);
    EXPECT(KF_OK, kf_search(mrn, KF_TYPE_TEXT, KF_STR("M-17"), found, sizeof found, &found_len, &error));
    CHECK(found_len == len && memcmp(found, sealed, len) == 0 && memcmp(found, other, len) != 0);
    EXPECT(KF_ERR_POLICY_REFUSED, kf_search_keys(any, &keys, &error));
    EXPECT(KF_ERR_POLICY_REFUSED, kf_search(any, KF_TYPE_TEXT, KF_STR("x"), found, sizeof found, &found_len, &error));
    EXPECT(KF_ERR_INVALID_INPUT, kf_search(mrn, KF_TYPE_INTEGER, "\1", 1, found, sizeof found, &found_len, &error));
    kf_field_free(mrn);
    kf_field_free(any);
}

enum { ROWS = 500 };

/* Every seventh row does not open, each seventh for a reason of its own. */
static void rows_that_fail(void)
{
    kf_field *ssn = field("patient.ssn"), *any = field("any");
    static uint8_t types[ROWS], data[ROWS * 16], names[ROWS * 8], sealed[ROWS * 100], opened[ROWS * 100], kinds[ROWS];
    static int64_t offsets[ROWS + 1], name_offsets[ROWS + 1], sealed_offsets[ROWS + 1], opened_offsets[ROWS + 1];
    static int32_t results[ROWS];
    for (int row = 0; row < ROWS; row++) {
        types[row] = KF_TYPE_TEXT;
        offsets[row + 1] = offsets[row] + sprintf((char *)data + offsets[row], "v %d", row);
        name_offsets[row + 1] = name_offsets[row] + sprintf((char *)names + name_offsets[row], "p-%d", row);
    }
    kf_column values = { data, (size_t)offsets[ROWS], offsets, ROWS };
    kf_column rows = { names, (size_t)name_offsets[ROWS], name_offsets, ROWS };
    kf_column_out out = { sealed, sizeof sealed, sealed_offsets, ROWS + 1 };
    NEED(kf_encrypt_column(ssn, types, &values, &rows, &out, &error));
    kf_column column = { sealed, (size_t)sealed_offsets[ROWS], sealed_offsets, ROWS };
    kf_column_out room = { opened, column.data_len, opened_offsets, ROWS + 1 };
    kf_opened_column what;

    /* All open. */
    memset(results, 'x', sizeof results);
    EXPECT(KF_OK, kf_decrypt_column_each(ssn, &column, &rows, kinds, ROWS, &room, results, ROWS, &what, &error));
    CHECK(what.failed == 0 && what.outdated == 0 && all_are(results, sizeof results, 0));
    CHECK(memcmp(opened_offsets, offsets, sizeof offsets) == 0 && memcmp(opened, data, values.data_len) == 0);
    CHECK(memcmp(kinds, types, ROWS) == 0);

    static const int32_t expected[] = { KF_ERR_DECRYPTION_FAILED, KF_ERR_MALFORMED, KF_ERR_UNSUPPORTED, KF_ERR_NO_MATCHING_KEY };
    for (int row = 3; row < ROWS; row += 7) {
        uint8_t *one = sealed + sealed_offsets[row];
        static const int at[] = { 80, 0, 1, 10 };
        one[at[row % 4] < sealed_offsets[row + 1] - sealed_offsets[row] ? at[row % 4] : 60] ^= 0x40;
    }
    EXPECT(KF_OK, kf_decrypt_column_each(ssn, &column, &rows, kinds, ROWS, &room, results, ROWS, &what, &error));
    size_t unopened = 0;
    for (int row = 0; row < ROWS; row++) {
        size_t len = (size_t)(opened_offsets[row + 1] - opened_offsets[row]);
        if (row % 7 == 3) {
            unopened++;
            CHECK(results[row] == expected[row % 4] && len == 0 && kinds[row] == 0);
        } else {
            CHECK(results[row] == KF_OK && kinds[row] == KF_TYPE_TEXT && len == (size_t)(offsets[row + 1] - offsets[row]));
            CHECK(memcmp(opened + opened_offsets[row], data + offsets[row], len) == 0);
        }
    }
    CHECK(what.failed == unopened && what.outdated == 0);
    EXPECT(KF_ERR_NO_MATCHING_KEY, kf_decrypt_column(ssn, &column, &rows, kinds, ROWS, &room, NULL, &error));
    CHECK(error.row == 3);

    /* Rows that are no sealed values leave room for those that are. */
    sealed_offsets[1] = 0;
    memmove(sealed, sealed + sealed_offsets[4], (size_t)(sealed_offsets[5] - sealed_offsets[4]));
    sealed_offsets[2] = sealed_offsets[5] - sealed_offsets[4];
    name_offsets[1] = name_offsets[4], name_offsets[2] = name_offsets[5], name_offsets[0] = name_offsets[4];
    kf_column two = { sealed, (size_t)sealed_offsets[2], sealed_offsets, 2 }, names_of_two = { names, rows.data_len, name_offsets, 2 };
    room.data_cap = two.data_len;
    EXPECT(KF_OK, kf_decrypt_column_each(ssn, &two, &names_of_two, kinds, 2, &room, results, 2, &what, &error));
    /* The first is bound to nothing besides. */
    CHECK(results[0] == KF_ERR_MALFORMED && results[1] == KF_OK && opened_offsets[2] == 3 && memcmp(opened, "v 4", 3) == 0);

    /* What is wrong with the call is no result of a row. */
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column_each(ssn, &two, NULL, kinds, 2, &room, results, 2, &what, &error));
    CHECK(all_are(opened, two.data_len, 0));
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column_each(any, &two, &names_of_two, kinds, 2, &room, results, 2, &what, &error));
    names_of_two.rows = 1;
    EXPECT(KF_ERR_INVALID_INPUT, kf_decrypt_column_each(ssn, &two, &names_of_two, kinds, 2, &room, results, 2, &what, &error));
    kf_column none = { NULL, 0, NULL, 0 };
    EXPECT(KF_OK, kf_decrypt_column_each(ssn, &none, &none, NULL, 0, &room, NULL, 0, &what, &error));
    CHECK(opened_offsets[0] == 0 && what.failed == 0);
    kf_field_free(ssn);
    kf_field_free(any);
}

struct copy {
    uint8_t *bytes;
    size_t len;
    int calls;
    int32_t answer;
};

static int32_t take_records(void *user, const void *records, size_t records_len)
{
    struct copy *copy = (struct copy *)user;
    copy->calls++;
    if (copy->answer == KF_OK) {
        copy->bytes = (uint8_t *)malloc(records_len);
        memcpy(copy->bytes, records, records_len);
        copy->len = records_len;
    }
    return copy->answer;
}

static void records(const char *policy)
{
    kf_field *any = field("any");
    uint8_t sealed[128], opened[128];
    size_t len;
    kf_opened what;
    NEED(kf_encrypt(any, KF_TYPE_TEXT, KF_STR("away"), NULL, 0, sealed, sizeof sealed, &len, &error));
    struct copy copy = { NULL, 0, 0, 7 };
    EXPECT(KF_ERR_IO, kf_keyring_records(ring, take_records, &copy, &error));
    copy.answer = KF_OK;
    EXPECT(KF_OK, kf_keyring_records(ring, take_records, &copy, &error));
    CHECK(copy.calls == 2 && copy.len > 100);
    kf_options *options;
    NEED(kf_options_new(&options, &error));
    NEED(kf_options_set_records(options, copy.bytes, copy.len, &error));
    free(copy.bytes);
    kf_keyring *away = opened_with(options, policy);
    kf_field *there;
    NEED(kf_field_new(away, KF_STR("any"), NULL, 0, NULL, &there, &error));
    EXPECT(KF_OK, kf_decrypt(there, sealed, len, NULL, 0, opened, sizeof opened, &what, &error));
    CHECK(what.len == 4 && memcmp(opened, "away", 4) == 0);
    kf_field_free(there);
    kf_keyring_close(away);
    kf_field_free(any);
}

struct asked {
    atomic_int times, released;
    const char *passphrase;
};

static int32_t ask(void *user, const char *alias, size_t alias_len, uint8_t *passphrase, size_t *passphrase_len)
{
    struct asked *asked = (struct asked *)user;
    asked->times++;
    if (asked->passphrase == NULL || alias_len != 3 || memcmp(alias, "kek", 3) != 0)
        return KF_ERR_CONFIGURATION;
    *passphrase_len = strlen(asked->passphrase);
    memcpy(passphrase, asked->passphrase, *passphrase_len);
    return KF_OK;
}

static void asked_release(void *user)
{
    ((struct asked *)user)->released++;
}

static void passphrases(const char *folder, const char *kek)
{
    static struct asked asked[3] = { { 0, 0, NULL }, { 0, 0, "wrong horse battery" }, { 0, 0, "correct horse battery" } };
    char path[4096], uri[4096];
    snprintf(path, sizeof path, "%s/asked", folder);
    snprintf(uri, sizeof uri, "passphrase:%s", kek);
    for (int at = 0; at < 3; at++) {
        kf_options *options;
        NEED(kf_options_new(&options, &error));
        NEED(kf_options_set_passphrase(options, ask, asked_release, &asked[at], &error));
        kf_result result = kf_init(path, strlen(path), KF_STR("ring"), KF_STR("test"), uri, strlen(uri), options, &error);
        CHECK(at == 2 ? result == KF_OK : result != KF_OK && result != KF_ERR_INTERNAL && strstr(error.text, "horse") == NULL);
        CHECK(asked[at].times > 0);
        kf_options_free(options);
        for (int waited = 0; waited < 500 && asked[at].released == 0; waited++)
            usleep(10000);
        CHECK(asked[at].released == 1);
    }
}

struct told {
    atomic_int lines, warnings, odd, released;
};

static void tell(void *user, uint8_t level, const char *text, size_t text_len)
{
    struct told *told = (struct told *)user;
    told->lines++;
    told->warnings += level == KF_LOG_WARNING;
    told->odd += level < KF_LOG_ERROR || level > KF_LOG_INFO || text_len == 0 || memchr(text, '\n', text_len) != NULL;
}

static void told_release(void *user)
{
    ((struct told *)user)->released++;
}

static void logs(const char *policy)
{
    static struct told first, second;
    CHECK(kf_set_log(tell, told_release, &first) == KF_OK);
    EXPECT(KF_OK, kf_keyring_rotate(ring, NULL, 0, NULL, &error));
    CHECK(first.lines > 0 && first.odd == 0 && first.warnings == 0);
    CHECK(kf_set_log(tell, told_release, &second) == KF_OK && first.released == 1);
    int before = first.lines;
    /* A second KEK that cannot be reached. */
    int file = open(config, O_WRONLY | O_APPEND);
    static const char section[] = "[keks.away]\nuri = \"passphrase:nowhere.kek\"\n";
    CHECK(write(file, section, sizeof section - 1) == (ssize_t)(sizeof section - 1) && close(file) == 0);
    kf_options *options;
    NEED(kf_options_new(&options, &error));
    kf_keyring *warned = opened_with(options, policy);
    kf_keyring_close(warned);
    CHECK(second.lines > 0 && second.warnings + second.odd > 0 && first.lines == before);
    CHECK(kf_set_log(NULL, told_release, &first) == KF_OK && second.released == 1 && first.released == 1);
    before = second.lines;
    EXPECT(KF_OK, kf_keyring_rotate(ring, NULL, 0, NULL, &error));
    CHECK(second.lines == before);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    const char *folder = argv[1], *policy = argv[2];
    snprintf(config, sizeof config, "%s/ring", folder);
    NEED(kf_init(config, strlen(config), KF_STR("ring"), KF_STR("test"), NULL, 0, NULL, &error));
    strcat(config, "/keyfold.toml");
    kf_options *options;
    NEED(kf_options_new(&options, &error));
    ring = opened_with(options, policy);
    searching();
    rows_that_fail();
    records(policy);
    passphrases(folder, argv[3]);
    logs(policy);
    CHECK(kf_keyring_close(ring) == KF_OK);
    return report();
}
