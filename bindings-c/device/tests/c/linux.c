/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#include "platform.h"
#include <stdio.h>
#include <string.h>

void say(const char *text)
{
    fputs(text, stdout);
}

void say_number(uint32_t number)
{
    printf("%lu", (unsigned long)number);
}

enum { PAINTED = 65536, PAINT = 0xA5 };

/* Paints what is below, or says how much of it is not painted any more. */
static __attribute__((noinline)) uint32_t painted(int is_first)
{
    volatile uint8_t below[PAINTED];
    uint32_t at = 0;
    if (is_first)
        for (at = 0; at < PAINTED; at++)
            below[at] = PAINT;
    else
        while (at < PAINTED && below[at] == PAINT)
            at++;
    return PAINTED - at;
}

uint32_t stack_of(void (*work)(void))
{
    painted(1);
    work();
    return painted(0);
}

uint32_t instructions_of(void (*work)(void))
{
    work();
    return 0;
}
