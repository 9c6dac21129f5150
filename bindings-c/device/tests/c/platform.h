/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What the tests need of where they run: Linux, or a bare Cortex-M (startup.c). */
#ifndef PLATFORM_H
#define PLATFORM_H

#include <stddef.h>
#include <stdint.h>

/* Writes a text that ends with NUL. */
void say(const char *text);
/* Writes a number. */
void say_number(uint32_t number);
/* Bytes of stack that `work` takes; `*left` are those of them that it has written and not erased. */
uint32_t stack_of(void (*work)(void), uint32_t *left);
/* Instructions that `work` takes; 0 where nobody counts them. */
uint32_t instructions_of(void (*work)(void));

#endif
