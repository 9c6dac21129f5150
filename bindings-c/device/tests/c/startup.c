/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* Start of a bare Cortex-M under an emulator with semihosting, and what is measured there. */
#include "platform.h"

int main(void);

extern uint32_t _data_from[], _data[], _data_end[], _bss[], _bss_end[], _stack[];

static const uint32_t PAINT = 0xA5A5A5A5;

static int32_t semihosting(uint32_t operation, const void *argument)
{
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

void say(const char *text)
{
    semihosting(0x04, text);
}

void say_number(uint32_t number)
{
    char digits[11];
    size_t at = sizeof digits - 1;
    digits[at] = 0;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    say(digits + at);
}

static _Noreturn void leave(int code)
{
    const uint32_t argument[] = { 0x20026, (uint32_t)code };
    semihosting(0x20, argument);
    for (;;)
        ;
}

_Noreturn void fault(void);
void reset(void);

_Noreturn void fault(void)
{
    say("fault\n");
    leave(99);
}

_Noreturn void kfd_panicked(const char *file, size_t file_len, uint32_t line);

_Noreturn void kfd_panicked(const char *file, size_t file_len, uint32_t line)
{
    (void)file, (void)file_len;
    say("panic in line ");
    say_number(line);
    say("\n");
    leave(98);
}

void reset(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFU << 20; /* the floating point unit */
    __asm__ volatile("dsb\n\tisb");
    const uint32_t *from = _data_from;
    for (uint32_t *to = _data; to < _data_end;)
        *to++ = *from++;
    for (uint32_t *to = _bss; to < _bss_end;)
        *to++ = 0;
    leave(main());
}

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*exceptions[15])(void);
} VECTOR_TABLE = { _stack, { reset, fault, fault, fault, fault, fault } };

/* All of the free memory below this function's own frame is painted, so what `work` has touched shows. */
__attribute__((noinline)) uint32_t stack_of(void (*work)(void), uint32_t *left)
{
    uint32_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    for (uint32_t *at = _bss_end; at < here; at++)
        *(volatile uint32_t *)at = PAINT;
    work();
    const volatile uint32_t *touched = _bss_end;
    while (touched < here && *touched == PAINT)
        touched++;
    *left = 0;
    for (const volatile uint32_t *at = touched; at < here; at++)
        *left += *at != PAINT && *at != 0 ? 4 : 0;
    return (uint32_t)(here - touched) * 4;
}

/* SysTick counts time, and under `-icount shift=0` an instruction takes a nanosecond of it. */
uint32_t instructions_of(void (*work)(void))
{
    volatile uint32_t *const systick = (volatile uint32_t *)0xE000E010;
    systick[1] = 0xFFFFFF;
    systick[2] = 0;
    systick[0] = 5;
    uint32_t before = systick[2];
    work();
    uint32_t ticks = (before - systick[2]) & 0xFFFFFF;
    systick[0] = 0;
    return ticks * NANOSECONDS_PER_TICK;
}
