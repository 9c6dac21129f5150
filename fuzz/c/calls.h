/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the fuzzer's bytes become: choices, numbers at edges, buffers. */
#ifndef CALLS_H
#define CALLS_H

#include <keyfold.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define ALWAYS(expression)                                                             \
    do {                                                                               \
        if (!(expression)) {                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #expression);   \
            abort();                                                                   \
        }                                                                              \
    } while (0)

/* Bytes by which the driver lies about its buffers: set by who wants to see that this is found. */
#ifndef SHORT
#define SHORT 0
#endif

/* Whatever happens, it has a name, and is no bug. */
static inline void did(kf_result result)
{
    ALWAYS(kf_result_name((int32_t)result) != NULL && result != KF_ERR_INTERNAL);
}

static const uint8_t *input;
static size_t input_len;

static inline void start(const uint8_t *data, size_t len)
{
    input = data, input_len = len;
}

static inline bool more(void)
{
    return input_len > 0;
}

/* Below `n`; 0 when there are no more bytes. */
static inline size_t pick(size_t n)
{
    if (input_len == 0)
        return 0;
    input_len--;
    return *input++ % n;
}

/* Mostly small, or at an edge. */
static inline uint64_t number(void)
{
    static const uint64_t EDGES[] = { 0, 1, 23, 24, 42, 43, 44, 66, 67, 68, 1 << 16, 1048575, 1048576, 1048577, INT32_MAX, UINT32_MAX,
                                      INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 67, UINT64_MAX - 43, UINT64_MAX };
    size_t choice = pick(64);
    if (choice < sizeof EDGES / sizeof *EDGES)
        return EDGES[choice] + pick(3) - 1;
    return pick(256) | (uint64_t)pick(256) << (8 * pick(8));
}

/* Bytes of an allocation of their own, which goes after the call; NULL if there are none. */
struct bytes {
    uint8_t *at;
    size_t len;
};

enum { MOST_BUFFERS = 64, FILL = 'x' };
static void *buffers[MOST_BUFFERS];
static size_t buffers_len;

static inline struct bytes exactly(size_t len)
{
    struct bytes made = { NULL, len };
    if (len > 0) {
        ALWAYS(buffers_len < MOST_BUFFERS);
        made.at = (uint8_t *)malloc(len);
        ALWAYS(made.at != NULL);
        memset(made.at, FILL, len);
        buffers[buffers_len++] = made.at;
    }
    return made;
}

static inline void give_back(void)
{
    while (buffers_len > 0)
        free(buffers[--buffers_len]);
}

/* A text without its NUL. */
static inline struct bytes text(const char *given)
{
    struct bytes made = exactly(strlen(given));
    if (made.len > 0)
        memcpy(made.at, given, made.len);
    return made;
}

/* What the library is told of `given`: now and then nonsense that it can tell to be some. */
static inline struct bytes told(struct bytes given)
{
    switch (pick(24)) {
    case 0: return (struct bytes){ given.at, SIZE_MAX - pick(100) };
    case 1: return (struct bytes){ NULL, given.len };
    case 2: return (struct bytes){ given.at, (size_t)PTRDIFF_MAX + 1 + pick(100) };
    default: return given;
    }
}

/* An allocation that is shorter by some bytes, in front of which it does not reach. */
static inline struct bytes cut(struct bytes given)
{
    size_t len = given.len == 0 ? 0 : pick(given.len < 256 ? given.len : 256);
    struct bytes made = exactly(len);
    if (len > 0)
        memcpy(made.at, given.at, len);
    return made;
}

/* Up to `most` bytes of the fuzzer's. */
static inline struct bytes some(size_t most)
{
    struct bytes made = exactly(pick(4) ? pick(most < 16 ? most : 16) : pick(most));
    for (size_t at = 0; at < made.len && input_len > 0; at++)
        made.at[at] = (uint8_t)pick(256);
    return told(made);
}

/* Room for `needed` bytes, mostly. */
static inline struct bytes room(size_t needed)
{
    if (needed > 1 << 16) /* where a length is nonsense */
        needed = 0;
    switch (pick(12)) {
    case 0: return told(exactly(needed));
    case 1: return exactly(needed > 0 ? needed - 1 : 0);
    case 2: return exactly(needed + 1 + pick(64));
    default: {
        struct bytes made = exactly(needed > SHORT ? needed - SHORT : 0);
        made.len = made.at ? needed : 0;
        return made;
    }
    }
}

static inline bool all_are(const void *bytes, size_t len, int fill)
{
    for (size_t at = 0; at < len && SHORT == 0; at++)
        if (((const uint8_t *)bytes)[at] != (uint8_t)fill)
            return false;
    return true;
}

/* Whether nothing was written there. */
static inline bool untouched(struct bytes given)
{
    return given.at == NULL || given.len > PTRDIFF_MAX || all_are(given.at, given.len, FILL);
}

/* Whether the first `len` bytes are erased, if there are so many, and no others. */
static inline bool erased(struct bytes given, size_t len)
{
    if (len > given.len)
        len = given.len;
    return all_are(given.at, len, 0) && all_are(given.at + len, given.len - len, FILL);
}

#endif
