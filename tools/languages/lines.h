/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Lines of hexadecimal: ROW <tab> BYTES come in, BYTES go out. */
#ifndef LINES_H
#define LINES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 1 << 21, LINE = 2 * ROOM + 2 };

static size_t from_hex(const char *text, size_t len, uint8_t *out)
{
    for (size_t i = 0; i < len / 2; i++) {
        unsigned byte;
        sscanf(text + 2 * i, "%2x", &byte);
        out[i] = (uint8_t)byte;
    }
    return len / 2;
}

/* Reads a line into `row` and `bytes`, each with room for ROOM bytes; 0 at the end. */
static int next_line(uint8_t *row, size_t *row_len, uint8_t *bytes, size_t *len)
{
    static char line[2 * LINE];
    if (fgets(line, sizeof line, stdin) == NULL)
        return 0;
    char *tab = strchr(line, '\t');
    if (tab == NULL)
        exit(2);
    *row_len = from_hex(line, (size_t)(tab - line), row);
    *len = from_hex(tab + 1, strcspn(tab + 1, "\n"), bytes);
    return 1;
}

static void print_line(const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        printf("%02x", ((const uint8_t *)bytes)[i]);
    putchar('\n');
}

#endif
