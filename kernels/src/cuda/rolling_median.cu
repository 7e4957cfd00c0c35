// Medians of the last values of many series: one thread a series, in the layout of cpu/rolling_median.rs (16 series a
// block, so that the threads of half a warp lie side by side).

#include "common.cuh"

#define LANES 16u

// values, medians: [ticks, series]; rings, sorted: [blocks, window, 16]; counts: [blocks, 16]; missing: [blocks, window].
KERNEL __launch_bounds__(128) rolling_median(const float *values, float *medians, u32 series, u32 ticks, u32 window, u32 at,
                                             u32 blocks, float *rings, float *sorted, u32 *counts, u16 *missing) {
    const float infinity = float_of(0x7f800000u);
    u32 id = blockIdx.x * blockDim.x + threadIdx.x;
    u32 block = id / LANES, lane = id % LANES;
    // Threads beyond the last block stay for the votes of their warp.
    bool is_in = block < blocks;
    u64 first = (u64)(is_in ? block : 0) * window;
    u32 count = is_in ? counts[id] : 0;
    for (u32 tick = 0; tick < ticks; tick++) {
        u64 cell = (u64)tick * series + id;
        float x = id < series ? values[cell] : float_of(0x7fc00000u);
        bool is_missing = x != x;
        u32 vote = __ballot_sync(ALL_LANES, is_missing) >> (threadIdx.x & 16u) & 0xffffu;
        if (is_in) {
            count += missing[first + at] >> lane & 1u;
            count -= is_missing ? 1u : 0u;
            // Adding zero makes the zeros one.
            float comes = is_missing ? infinity : x + 0.0f;
            float leaves = rings[(first + at) * LANES + lane];
            float *window_of = sorted + first * LANES + lane;
            float lower = float_of(0xff800000u), here = window_of[0];
            for (u32 place = 0; place < window; place++) {
                float above = place + 1 < window ? window_of[(u64)(place + 1) * LANES] : infinity;
                float rest = here < leaves ? here : above;
                float small = rest < comes ? rest : comes;
                window_of[(u64)place * LANES] = lower > small ? lower : small;
                lower = rest;
                here = above;
            }
            rings[(first + at) * LANES + lane] = comes;
        }
        // All lanes have read the old bits before one of them writes the new.
        __syncwarp();
        if (is_in && lane == 0) missing[first + at] = (u16)vote;
        __syncwarp();
        if (id < series) {
            const float *window_of = sorted + first * LANES + lane;
            float median = float_of(0x7fc00000u);
            if (count > 0) {
                float low = window_of[(u64)((count - 1) / 2) * LANES], high = window_of[(u64)(count / 2) * LANES];
                median = low == high ? low : 0.5f * low + 0.5f * high;
            }
            medians[cell] = median;
        }
        at = at + 1 == window ? 0 : at + 1;
    }
    if (is_in) counts[id] = count;
}
