/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Opens what the command has protected, by its keyring or by a copy of the key records alone, and seals for it. Arguments: configuration,
 * policy, copy, sealed text of the row p-17. Prints the value, and a sealed text of the row p-18. */
#include "check.h"

static kf_error error;

static kf_field *field_of(kf_keyring *ring)
{
    kf_field *field;
    NEED(kf_field_new(ring, KF_STR("patient.ssn"), NULL, 0, NULL, &field, &error));
    return field;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    const char *config = argv[1], *policy = argv[2], *text = argv[4];
    static uint8_t copy[1 << 20], sealed[4096], opened[4096], again[4096];
    char again_text[4096];
    size_t sealed_len, again_len, text_len;
    kf_opened what, of_copy;
    FILE *file = fopen(argv[3], "rb");
    if (file == NULL)
        return 2;
    size_t copy_len = fread(copy, 1, sizeof copy, file);
    fclose(file);

    kf_options *options, *of_records;
    kf_keyring *ring, *offline;
    NEED(kf_options_new(&options, &error));
    NEED(kf_options_add_policy(options, policy, strlen(policy), &error));
    NEED(kf_keyring_open(config, strlen(config), options, &ring, &error));
    kf_field *ssn = field_of(ring);
    NEED(kf_from_text(text, strlen(text), sealed, sizeof sealed, &sealed_len, &error));
    NEED(kf_decrypt(ssn, sealed, sealed_len, KF_STR("p-17"), opened, sizeof opened, &what, &error));
    printf("%.*s\n", (int)what.len, (const char *)opened);
    NEED(kf_encrypt(ssn, KF_TYPE_TEXT, KF_STR("sealed in C"), KF_STR("p-18"), again, sizeof again, &again_len, &error));
    NEED(kf_to_text(again, again_len, again_text, sizeof again_text, &text_len, &error));
    printf("%.*s\n", (int)text_len, again_text);

    NEED(kf_options_new(&of_records, &error));
    NEED(kf_options_add_policy(of_records, policy, strlen(policy), &error));
    NEED(kf_options_set_records(of_records, copy, copy_len, &error));
    NEED(kf_keyring_open(config, strlen(config), of_records, &offline, &error));
    kf_field *from_copy = field_of(offline);
    uint8_t same[4096];
    EXPECT(KF_OK, kf_decrypt(from_copy, sealed, sealed_len, KF_STR("p-17"), same, sizeof same, &of_copy, &error));
    CHECK(of_copy.len == what.len && memcmp(same, opened, what.len) == 0);
    /* In a copy no key can be made. */
    EXPECT(KF_ERR_STORE, kf_keyring_rotate(offline, NULL, 0, NULL, &error));
    memset(copy, 0, 64);
    NEED(kf_options_set_records(of_records, copy, copy_len, &error));
    EXPECT(KF_ERR_MALFORMED, kf_keyring_open(config, strlen(config), of_records, &offline, &error));
    return report();
}
