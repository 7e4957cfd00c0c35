// Runs a kernel of this folder on the CPU, for tests where there is no device: the same source, compiled as C++, each
// thread of a block a fiber of its own. Blocks run one after another, warps in lockstep at their votes and shuffles alone.
// It shows that the arithmetic is that of the CPU backend; it shows nothing about races or speed.

#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)

struct Dim {
    unsigned x, y, z;
};
struct uint4 {
    unsigned x, y, z, w;
};
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static Dim threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

const size_t STACK_BYTES = 64 << 10;
enum Wait { NOTHING, WARP, BLOCK, END };

struct Fiber {
    void *stack_pointer;
    unsigned thread;
    Wait wait;
    uint64_t word; // what the thread shows to its warp
};

static Fiber fibers[1024];
static Fiber *running;
static void *scheduler;
static char *stacks;
static void (*body)(void *);
static void *body_of;

// Saves the registers that a call keeps, changes stacks, and restores them. Signature: (where to save, what to load).
asm(".text\n.p2align 4\nemulation_switch:\n"
    "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
    "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
    "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n");
extern "C" void emulation_switch(void **save, void *load);

static void yield(Wait wait) {
    Fiber *self = running;
    self->wait = wait;
    emulation_switch(&self->stack_pointer, scheduler);
}

static void enter() {
    body(body_of);
    yield(END);
    abort();
}

static void begin(unsigned thread) {
    Fiber &fiber = fibers[thread];
    fiber.thread = thread;
    fiber.wait = NOTHING;
    // The stack as `emulation_switch` leaves it: six registers, and where to return to; aligned as after a call.
    void **top = (void **)(stacks + (thread + 1) * STACK_BYTES);
    top -= 2;
    *top = (void *)enter;
    top -= 6;
    memset(top, 0, 6 * sizeof(void *));
    fiber.stack_pointer = top;
}

static void run_block(unsigned threads) {
    if (!stacks) stacks = (char *)malloc(1024 * STACK_BYTES + 64);
    for (unsigned thread = 0; thread < threads; thread++) begin(thread);
    for (;;) {
        bool is_moving = false;
        for (unsigned warp = 0; warp < threads; warp += 32) {
            unsigned end = warp + 32 < threads ? warp + 32 : threads;
            for (;;) {
                for (unsigned thread = warp; thread < end; thread++) {
                    if (fibers[thread].wait != NOTHING) continue;
                    running = &fibers[thread];
                    threadIdx = {thread, 0, 0};
                    emulation_switch(&scheduler, running->stack_pointer);
                    is_moving = true;
                }
                // A warp goes on when all of it that has not ended waits for the warp.
                bool is_met = false, is_apart = false;
                for (unsigned thread = warp; thread < end; thread++) {
                    is_met |= fibers[thread].wait == WARP;
                    is_apart |= fibers[thread].wait == BLOCK;
                }
                if (!is_met) break;
                if (is_apart) {
                    fprintf(stderr, "a warp is split between a vote and a barrier\n");
                    abort();
                }
                for (unsigned thread = warp; thread < end; thread++)
                    if (fibers[thread].wait == WARP) fibers[thread].wait = NOTHING;
            }
        }
        bool is_waiting = false;
        for (unsigned thread = 0; thread < threads; thread++) is_waiting |= fibers[thread].wait == BLOCK;
        if (!is_waiting) return;
        for (unsigned thread = 0; thread < threads; thread++)
            if (fibers[thread].wait == BLOCK) fibers[thread].wait = NOTHING;
        if (!is_moving) abort();
    }
}

template <class T> static T exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= 8, "a shuffle moves one word");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(T));
    Fiber *self = running;
    self->word = word;
    yield(WARP);
    if (from < 32) word = fibers[self->thread / 32 * 32 + from].word;
    yield(WARP);
    memcpy(&value, &word, sizeof(T));
    return value;
}

static unsigned vote(bool is_set) {
    Fiber *self = running;
    self->word = is_set;
    yield(WARP);
    unsigned bits = 0, first = self->thread / 32 * 32;
    for (unsigned lane = 0; lane < 32 && first + lane < blockDim.x; lane++)
        if (fibers[first + lane].wait != END && fibers[first + lane].word) bits |= 1u << lane;
    yield(WARP);
    return bits;
}

template <class... A> struct Call {
    void (*kernel)(A...);
    void **arguments;
    template <size_t... I> void all(std::index_sequence<I...>) { kernel(*(A *)arguments[I]...); }
    static void run(void *self) { ((Call *)self)->all(std::index_sequence_for<A...>()); }
};

template <class... A> static void launch(void (*kernel)(A...), const unsigned *shape, void **arguments) {
    Call<A...> call = {kernel, arguments};
    body = Call<A...>::run;
    body_of = &call;
    gridDim = {shape[0], shape[1], 1};
    blockDim = {shape[2], 1, 1};
    for (unsigned y = 0; y < shape[1]; y++)
        for (unsigned x = 0; x < shape[0]; x++) {
            blockIdx = {x, y, 0};
            run_block(shape[2]);
        }
}

} // namespace emulation

#define EMULATED(name)                                                                                                     \
    extern "C" void emulated_##name(const unsigned *shape, void **arguments) { emulation::launch(name, shape, arguments); }

static inline void __syncthreads() { emulation::yield(emulation::BLOCK); }
static inline void __syncwarp() { emulation::yield(emulation::WARP); }
static inline unsigned __ballot_sync(unsigned, bool is_set) { return emulation::vote(is_set); }
static inline bool __any_sync(unsigned, bool is_set) { return emulation::vote(is_set) != 0; }
template <class T> T __shfl_xor_sync(unsigned, T value, unsigned away) {
    return emulation::exchange(value, emulation::running->thread % 32 ^ away);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned away) {
    return emulation::exchange(value, emulation::running->thread % 32 + away);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned away) {
    return emulation::exchange(value, emulation::running->thread % 32 - away);
}
template <class T> T atomicAdd(T *place, T value) {
    T old = *place;
    *place = old + value;
    return old;
}
template <class T> T atomicMin(T *place, T value) {
    T old = *place;
    *place = value < old ? value : old;
    return old;
}
template <class T> T atomicMax(T *place, T value) {
    T old = *place;
    *place = value > old ? value : old;
    return old;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, 4);
    return bits;
}
static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static inline float __fsqrt_rn(float value) { return sqrtf(value); }
static inline float __fdiv_rn(float one, float other) { return one / other; }
static inline int __clz(unsigned word) { return word ? __builtin_clz(word) : 32; }
