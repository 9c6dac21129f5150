/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the tests of misuse have in common: handles that are in order. */
#ifndef MISUSE_H
#define MISUSE_H

#include "check.h"

static kf_error error;
static kf_options *options;
static kf_keyring *ring;
static kf_field *any, *bound, *mrn;
static kf_context *context;
static const char *config, *policy;

static const size_t HUGE_LENS[] = { SIZE_MAX, SIZE_MAX - 4096, (size_t)PTRDIFF_MAX + 1 };
#define EACH_HUGE(len) for (size_t huge_ = 0, len; huge_ < 3 && (len = HUGE_LENS[huge_], true); huge_++)

static inline void begin(const char *given_config, const char *given_policy)
{
    config = given_config, policy = given_policy;
    NEED(kf_options_new(&options, &error));
    NEED(kf_options_add_policy(options, policy, strlen(policy), &error));
    NEED(kf_keyring_open(config, strlen(config), options, &ring, &error));
    NEED(kf_context_new(&context, &error));
    NEED(kf_field_new(ring, KF_STR("any"), NULL, 0, context, &any, &error));
    NEED(kf_field_new(ring, KF_STR("bound"), NULL, 0, NULL, &bound, &error));
    NEED(kf_field_new(ring, KF_STR("mrn"), NULL, 0, NULL, &mrn, &error));
}

static inline int end(void)
{
    CHECK(kf_field_free(any) == KF_OK && kf_field_free(bound) == KF_OK && kf_field_free(mrn) == KF_OK && kf_context_free(context) == KF_OK);
    CHECK(kf_keyring_close(ring) == KF_OK && kf_options_free(options) == KF_OK);
    return report();
}

#endif
