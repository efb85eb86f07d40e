/* Runs an emitted digits model on a bare Cortex-M4 under qemu, and tells by semihosting what it gives.
 *
 * With `-icount shift=3` one instruction takes 8 ns of the machine's time, and its SysTick counts at 25 MHz: five instructions a tick. */
#include <stdint.h>
#include <string.h>

#include "digits.h"
#include "images.h" /* IMAGES, and the bits of each image */

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define PAINT 0x5eed5eedu
#define MARGIN 64 /* bytes below the stack's end that stay as they are while it is painted */

extern uint32_t stack_limit[], stack_top[];

static int host(int operation, const void *argument) {
    register int number __asm__("r0") = operation;
    register const void *given __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(number) : "r"(given) : "memory");
    return number;
}

static void tell(const char *text) { host(4, text); }

static void tell_number(uint32_t x) {
    char digits[10] = " ";
    for (int i = 0; i < 8; i++) digits[1 + i] = "0123456789abcdef"[x >> (28 - 4 * i) & 15];
    digits[9] = 0;
    tell(digits);
}

static void start_ticks(void) {
    REGISTER(0xe000e014) = 0xffffff;
    REGISTER(0xe000e018) = 0;
    REGISTER(0xe000e010) = 5; /* on, at the processor's clock */
}

static uint32_t ticks(void) { return 0xffffff - REGISTER(0xe000e018); }

/* Two instructions, `times` times: what the ticks are worth. */
static void loop(uint32_t times) { __asm__ volatile("1: subs %0, #1\n bne 1b" : "+r"(times) : : "cc"); }

static void paint_stack(void) {
    volatile uint32_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    for (volatile uint32_t *at = stack_limit; at < here - MARGIN / 4; at++) *at = PAINT;
}

static uint32_t stack_used(void) {
    const volatile uint32_t *at = stack_limit;
    while (*at == PAINT) at++;
    return (uint32_t)((const volatile char *)stack_top - (const volatile char *)at);
}

static void serve(void) {
    start_ticks();
    loop(100000);
    tell("loop");
    tell_number(ticks());
    tell("\n");
    for (int image = 0; image < IMAGES; image++) {
        float pixels[64], scores[DIGITS_OUTPUT_ELEMENTS];
        memcpy(pixels, images[image], sizeof pixels);
        start_ticks();
        const int status = digits_run(pixels, scores);
        const uint32_t spent = ticks();
        tell("image");
        tell_number((uint32_t)status);
        tell_number(spent);
        for (int i = 0; i < DIGITS_OUTPUT_ELEMENTS; i++) {
            uint32_t bits;
            memcpy(&bits, &scores[i], sizeof bits);
            tell_number(bits);
        }
        tell("\n");
    }
}

void reset(void) {
    REGISTER(0xe000ed88) |= 0xf << 20; /* the floating-point unit; memory is zero when qemu starts, and no variable starts otherwise */
    __asm__ volatile("dsb\n isb");
    paint_stack();
    serve();
    tell("stack");
    tell_number(stack_used());
    tell("\n");
    host(0x18, (const void *)0x20026); /* the end, without a fault */
    for (;;) {
    }
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {stack_top, (const void *)reset};
