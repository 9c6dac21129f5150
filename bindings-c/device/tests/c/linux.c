/* SPDX-License-Identifier: Apache-2.0 OR MIT */
#define _GNU_SOURCE
#include "platform.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void say(const char *text)
{
    fputs(text, stdout);
}

void say_number(uint32_t number)
{
    printf("%lu", (unsigned long)number);
}

enum { STACK = 1 << 20, PAINT = 0xA5 };

static void *run(void *work)
{
    (*(void (**)(void))work)();
    return NULL;
}

/* What a thread takes whose stack was painted, less what one takes that does nothing. */
static uint32_t taken(void (*work)(void), uint32_t *left)
{
    pthread_attr_t attributes;
    pthread_t thread;
    uint8_t *stack = aligned_alloc(65536, STACK);
    memset(stack, PAINT, STACK);
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstack(&attributes, stack, STACK) != 0 ||
        pthread_create(&thread, &attributes, run, &work) != 0 || pthread_join(thread, NULL) != 0)
        abort();
    uint32_t at = 0;
    while (at < STACK && stack[at] == PAINT)
        at++;
    *left = 0;
    for (uint32_t byte = at; byte < STACK; byte++)
        *left += stack[byte] != PAINT && stack[byte] != 0;
    pthread_attr_destroy(&attributes);
    free(stack);
    return STACK - at;
}

static void nothing(void)
{
}

uint32_t stack_of(void (*work)(void), uint32_t *left)
{
    uint32_t before_left, before = taken(nothing, &before_left), with = taken(work, left);
    *left -= *left < before_left ? *left : before_left;
    return with - before;
}

uint32_t instructions_of(void (*work)(void))
{
    work();
    return 0;
}
