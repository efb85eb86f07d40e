/* Entry points: choose an instruction set, run a program over the images of a batch, in threads. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "tdc.h"
#include "tdcompress.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
extern const tdc_isa tdc_isa_scalar, tdc_isa_avx2, tdc_isa_avx512;
#elif defined(__aarch64__)
extern const tdc_isa tdc_isa_neon;
#elif defined(__wasm_simd128__)
extern const tdc_isa tdc_isa_simd128;
#else
extern const tdc_isa tdc_isa_scalar;
#endif

#define MAX_THREADS 256

#if defined(__x86_64__)
/* Bits of the vectors that processor and operating system have: 512 (AVX-512 F, DQ, BW and VL), 256 (AVX2 and FMA) or 0 for less. Not by
   __builtin_cpu_supports: zig 0.17 links one that finds nothing. */
static int ask_vectors(void) {
    unsigned a, b, c, d, state;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c >> 27 & 1)) return 0; /* OSXSAVE: the system tells which registers it keeps */
    const int fma = c >> 12 & 1;
    __asm__ volatile("xgetbv" : "=a"(state) : "c"(0) : "edx");
    if (!fma || (state & 0x06) != 0x06 || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b >> 5 & 1)) return 0;
    const unsigned all = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return (state & 0xe6) == 0xe6 && (b & all) == all ? 512 : 256;
}

/* The same, asked once: a virtual machine traps each CPUID, and four of them took half of a small network's run. Threads that ask at the
 * same time find the same. */
static int vectors_here(void) {
    static atomic_int known = -1;
    int vectors = atomic_load_explicit(&known, memory_order_relaxed);
    if (vectors < 0) atomic_store_explicit(&known, vectors = ask_vectors(), memory_order_relaxed);
    return vectors;
}
#endif

/* Instruction set number `index` if this machine has it; best first; NULL where there is none. */
TDC_API const tdc_isa *tdc_isa_at(int64_t index) {
#if defined(__x86_64__)
    if (index == 0) return vectors_here() == 512 ? &tdc_isa_avx512 : NULL;
    if (index == 1) return vectors_here() >= 256 ? &tdc_isa_avx2 : NULL;
    return index == 2 ? &tdc_isa_scalar : NULL;
#elif defined(__aarch64__)
    return index == 0 ? &tdc_isa_neon : NULL;
#elif defined(__wasm_simd128__)
    return index == 0 ? &tdc_isa_simd128 : NULL;
#else
    return index == 0 ? &tdc_isa_scalar : NULL;
#endif
}

/* Sizes of the structures, so that the Python mirror can be checked when the library is loaded. */
TDC_API int64_t tdc_sizeof(int64_t kind) {
    static const int64_t sizes[] = {
        [OP_CONV_SPARSE] = sizeof(tdc_conv), [OP_CONV_DENSE] = sizeof(tdc_conv), [OP_LINEAR] = sizeof(tdc_linear), [OP_COPY] = sizeof(tdc_copy),
        [OP_SPLIT] = sizeof(tdc_split), [OP_MAP] = sizeof(tdc_map), [OP_BINARY] = sizeof(tdc_binary), [OP_BINARY_ROWS] = sizeof(tdc_binary_rows),
        [OP_POOL] = sizeof(tdc_pool), [OP_REDUCE_PLANES] = sizeof(tdc_reduce_planes), [OP_REDUCE] = sizeof(tdc_reduce), [OP_SOFTMAX] = sizeof(tdc_softmax),
        [OP_PERMUTE] = sizeof(tdc_permute), [OP_FILL] = sizeof(tdc_fill), [OP_MATMUL] = sizeof(tdc_matmul),
        [OP_RESAMPLE] = sizeof(tdc_resample), [OP_LOOKUP] = sizeof(tdc_lookup),
    };
    return kind >= 0 && kind < OP_COUNT ? sizes[kind] : 0;
}

typedef struct {
    const tdc_job *job;
    const tdc_isa *isa;
    atomic_llong *next;
    void *arena, *first_input;
    int64_t fault;
} worker;

/* Subnormal numbers make x86 arithmetic ten times slower and change nothing at the precision of float32: flush them. Round to nearest and
 * trap nothing, whatever the caller does: his rounding would give other bits, and 1 / 0 would end his process. */
#if defined(__x86_64__)
static unsigned set_mode(void) {
    const unsigned before = _mm_getcsr();
    _mm_setcsr(0x9fc0); /* flush results and operands (0x8040), mask all six exceptions (0x1f80), round to nearest (0) */
    return before;
}
static void restore_mode(unsigned mode) { _mm_setcsr(mode); }
#else
static unsigned set_mode(void) { return 0; }
static void restore_mode(unsigned mode) { (void)mode; }
#endif

/* A call after another program's finds its memory outside the caches. Lines that are asked for together arrive several times as fast as
 * lines that are met one by one, so the arena is fetched first, as much of it as a second-level cache holds: by loads, since the processor
 * drops prefetches when it waits for many lines. */
enum { LINE_BYTES = 64, MOST_FETCHED = 1 << 20 };

static void fetch(const char *start, int64_t bytes) {
    for (int64_t i = 0; i < bytes && i < MOST_FETCHED; i += LINE_BYTES) (void)*(const volatile char *)(start + i);
}

static void *work(void *argument) {
    worker *w = argument;
    const tdc_job *job = w->job;
    void *spaces[MAX_SPACES];
    for (int64_t i = 0; i < job->space_count; i++) spaces[i] = job->spaces[i];
    spaces[0] = w->arena;
    spaces[1] = w->first_input;
    const unsigned mode = set_mode();
    fetch(w->arena, job->arena_bytes);
    for (;;) {
        const int64_t image = atomic_fetch_add(w->next, 1);
        if (image >= job->batch) break;
        const tdc_context context = {.spaces = spaces, .image = image, .fault = &w->fault};
        for (int64_t i = 0; i < job->op_count; i++) w->isa->kernels[job->ops[i].kind](job->ops[i].descriptor, &context);
    }
    restore_mode(mode);
    return NULL;
}

/* Run all images of a batch. `first_input` is an argument of its own: the caller saves a store into `spaces`, which costs Python more than
 * it seems. Threads live for one call: nothing to leak into a fork or to shut down. A thread that cannot be started is
 * no error, the others take its images. Returns 0; -1 if an argument is out of range; 1 if a number that was computed named a row that is
 * not there. */
TDC_API int64_t tdc_execute(const tdc_job *job, void *first_input) {
    const tdc_isa *isa = tdc_isa_at(job->isa);
    if (isa == NULL || job->space_count < 2 || job->space_count > MAX_SPACES || job->threads < 1 || job->threads > MAX_THREADS) return -1;
    atomic_llong next = 0;
    worker workers[MAX_THREADS];
    pthread_t handles[MAX_THREADS];
    const int64_t threads = job->threads < job->batch ? job->threads : job->batch;
    int64_t started = 0;
    workers[0] = (worker){.job = job, .isa = isa, .next = &next, .arena = job->arenas[0], .first_input = first_input};
    for (int64_t t = 1; t < threads; t++) {
        workers[t] = (worker){.job = job, .isa = isa, .next = &next, .arena = job->arenas[t], .first_input = first_input};
        if (pthread_create(&handles[started], NULL, work, &workers[t]) != 0) break;
        started++;
    }
    work(&workers[0]);
    int64_t fault = workers[0].fault;
    for (int64_t t = 0; t < started; t++) {
        pthread_join(handles[t], NULL);
        fault |= workers[t + 1].fault;
    }
    return fault != 0;
}
