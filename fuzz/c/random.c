/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Gives a target random bytes, where there is no fuzzer. Arguments: how many times, a seed. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    LLVMFuzzerInitialize(&argc, &argv);
    uint64_t state = strtoull(argv[2], NULL, 10) * 2 + 1;
    uint8_t bytes[304];
    for (long left = atol(argv[1]); left > 0; left--) {
        for (size_t at = 0; at < sizeof bytes; at++) {
            /* splitmix64 */
            uint64_t z = state += 0x9e3779b97f4a7c15;
            z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
            z = (z ^ z >> 27) * 0x94d049bb133111eb;
            bytes[at] = (uint8_t)(z ^ z >> 31);
        }
        LLVMFuzzerTestOneInput(bytes, 4 + (bytes[0] | (size_t)bytes[1] << 8) % (sizeof bytes - 4));
    }
    puts("done");
    return 0;
}
