/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Every computation of a length at the edges of size_t, against the same in wider numbers. What can only be reached where size_t has 32
 * bits is tried there. Arguments: the configuration of a keyring, a policy. */
#include "misuse.h"

#if SIZE_MAX > UINT32_MAX
__extension__ typedef unsigned __int128 wide;
#else
typedef uint64_t wide;
#endif

static size_t cut(wide number)
{
    return number > SIZE_MAX ? SIZE_MAX : (size_t)number;
}

static size_t less(wide from, wide by)
{
    return from > by ? (size_t)(from - by) : 0;
}

enum { AROUND = 140, MOST_EDGES = 16 * AROUND };
static size_t edges[MOST_EDGES], edges_len;

/* Numbers around places where something begins to be different. */
static void find_edges(void)
{
    const size_t places[] = { AROUND / 2, 65536, KF_MAX_VALUE_LEN, SIZE_MAX / 512, SIZE_MAX / 67, SIZE_MAX / 43, SIZE_MAX / 8, SIZE_MAX / 4,
                              SIZE_MAX / 3, (size_t)PTRDIFF_MAX, SIZE_MAX / 4 * 3, SIZE_MAX - AROUND / 2 };
    for (size_t place = 0; place < sizeof places / sizeof *places; place++)
        for (size_t at = 0; at <= AROUND; at++)
            edges[edges_len++] = places[place] - AROUND / 2 + at;
}

static void pure_functions(void)
{
    for (size_t one = 0; one < edges_len; one++) {
        size_t len = edges[one];
        bool is_right = kf_opened_len_max(len) == less(len, KF_DETERMINISTIC_OVERHEAD);
        /* "kf1.", suite, generation and a point take the place of 6 bytes; three bytes are four characters. */
        wide rest = less(len, 6);
        is_right &= kf_text_len(len) == cut(15 + (rest * 4 + 2) / 3);
        is_right &= kf_text_sealed_len_max(len) == len;
        for (size_t other = 0; other < edges_len; other += 7) {
            size_t rows = edges[other];
            is_right &= kf_opened_column_len_max(len, rows) == less(len, (wide)rows * KF_DETERMINISTIC_OVERHEAD);
        }
        size_t sealed = 77;
        kf_result result = kf_sealed_len(any, len, &sealed, &error);
        is_right &= len > KF_MAX_VALUE_LEN ? result == KF_ERR_LIMIT_EXCEEDED && sealed == 77 : result == KF_OK && sealed == len + KF_SEALED_OVERHEAD;
        CHECK(is_right);
        if (!is_right)
            printf("at %zu\n", len);
    }
}

/* Lengths of buffers that no object can have, of elements of every size. */
static void lengths(void)
{
    static uint8_t bytes[64];
    int64_t offsets[2] = { 0, 0 };
    size_t len, count;
    kf_inspection seen;
    for (size_t at = 0; at < edges_len; at++) {
        if (edges[at] <= PTRDIFF_MAX)
            continue;
        EXPECT(KF_ERR_INVALID_INPUT, kf_inspect(bytes, edges[at], &seen, &error));
        EXPECT(KF_ERR_INVALID_INPUT, kf_encrypt(any, KF_TYPE_BYTES, bytes, 1, NULL, 0, bytes + 32, edges[at], &len, &error));
    }
    const size_t too_many[] = { SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / sizeof(int64_t), (size_t)PTRDIFF_MAX / sizeof(int64_t) + 1 };
    for (size_t at = 0; at < sizeof too_many / sizeof *too_many; at++) {
        kf_column values = { bytes, 0, offsets, too_many[at] };
        EXPECT(KF_ERR_INVALID_INPUT, kf_sealed_column_len(any, &values, &len, &error));
        kf_key_info info;
        EXPECT(KF_ERR_INVALID_INPUT, kf_keyring_list(ring, NULL, &info, too_many[at], &count, &error));
    }
    /* Offsets beyond what size_t holds. */
    const int64_t ends[][2] = { { 0, INT64_MAX }, { 0, (int64_t)UINT32_MAX + 1 }, { (int64_t)UINT32_MAX + 1, (int64_t)UINT32_MAX + 1 }, { 0, 65 } };
    for (size_t at = 0; at < sizeof ends / sizeof *ends; at++) {
        kf_column values = { bytes, 64, ends[at], 1 };
        EXPECT(KF_ERR_INVALID_INPUT, kf_sealed_column_len(any, &values, &len, &error));
    }
}

/* So many empty rows that their sealed values are longer than any object: zeros that take no memory. */
static void long_columns(void)
{
    if (sizeof(size_t) > 4)
        return;
    const size_t most = (size_t)PTRDIFF_MAX / KF_SEALED_OVERHEAD;
    const size_t bytes = (most + 2) * sizeof(int64_t);
    int64_t *offsets = (int64_t *)mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(offsets != MAP_FAILED);
    kf_column values = { NULL, 0, offsets, most };
    size_t len = 77;
    EXPECT(KF_OK, kf_sealed_column_len(any, &values, &len, &error));
    CHECK(len == most * KF_SEALED_OVERHEAD);
    len = 77;
    values.rows++;
    EXPECT(KF_ERR_LIMIT_EXCEEDED, kf_sealed_column_len(any, &values, &len, &error));
    CHECK(len == 77);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    begin(argv[1], argv[2]);
    find_edges();
    pure_functions();
    lengths();
    long_columns();
    return end();
}
