/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the tests in C have in common: checks that count, and memory whose end is guarded. */
#ifndef CHECK_H
#define CHECK_H

#include <keyfold.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_int passed, failed;

static inline void check(bool holds, const char *what, int line)
{
    if (holds) {
        passed++;
        return;
    }
    failed++;
    printf("line %d: %s\n", line, what);
}

#define CHECK(expression) check((expression), #expression, __LINE__)

static inline void expect(kf_result expected, kf_result result, const kf_error *error, const char *what, int line)
{
    if (result == expected) {
        passed++;
        return;
    }
    failed++;
    printf("line %d: %s: %d instead of %d (%s)\n", line, what, (int)result, (int)expected,
           error != NULL && result != KF_OK ? error->text : "");
}

/* `call` ends with the argument &error, whose code must be the result. */
#define EXPECT(expected, call)                                                                                           \
    do {                                                                                                                 \
        kf_result result_ = (call);                                                                                      \
        expect((expected), result_, &error, #call, __LINE__);                                                            \
        CHECK(result_ == KF_OK || error.code == (int32_t)result_);                                                       \
    } while (0)

/* What a test cannot go on without. */
#define NEED(call)                                                                                                       \
    do {                                                                                                                 \
        if ((call) != KF_OK) {                                                                                           \
            printf("line %d: %s: %d %s\n", __LINE__, #call, (int)error.code, error.text);                               \
            exit(2);                                                                                                     \
        }                                                                                                                \
    } while (0)

static inline int report(void)
{
    printf("%d passed, %d failed\n", (int)passed, (int)failed);
    return failed != 0;
}

/* `len` bytes, filled with `fill`, behind which a page begins that nobody may touch. Never freed. */
static inline uint8_t *guarded(size_t len, int fill)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (len + page) / page * page;
    uint8_t *start = (uint8_t *)mmap(NULL, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED || mprotect(start + whole, page, PROT_NONE) != 0) {
        perror("mmap");
        exit(2);
    }
    memset(start, fill, whole);
    return start + whole - len;
}

static inline bool all_are(const void *bytes, size_t len, int fill)
{
    for (size_t at = 0; at < len; at++)
        if (((const uint8_t *)bytes)[at] != (uint8_t)fill)
            return false;
    return true;
}

#endif
