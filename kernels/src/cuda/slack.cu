// Who came last to each collective, and how long the others waited. See cpu/slack.rs.

#include "common.cuh"

#define NOBODY 0xffffffffu
#define BLOCK 64u

// One group of `lanes` threads (a power of two, at most 32) a collective.
KERNEL __launch_bounds__(256) slack_last(const float *arrivals, u32 collectives, u32 ranks, u32 lanes, float *last_arrival,
                                         u32 *last_rank, u32 *blamed) {
    u32 lane = threadIdx.x % lanes;
    u64 row = (u64)blockIdx.x * (blockDim.x / lanes) + threadIdx.x / lanes;
    float last = float_of(0xff800000u);
    u32 who = NOBODY;
    if (row < collectives) {
        const float *cells = arrivals + row * ranks;
        for (u32 rank = lane; rank < ranks; rank += lanes) {
            float arrival = cells[rank];
            if (arrival > last || (arrival == last && who == NOBODY)) {
                last = arrival;
                who = rank;
            }
        }
    }
    for (u32 away = lanes / 2; away > 0; away /= 2) {
        float other = __shfl_xor_sync(ALL_LANES, last, away);
        u32 other_who = __shfl_xor_sync(ALL_LANES, who, away);
        bool is_later = who == NOBODY || other > last || (other == last && other_who < who);
        if (other_who != NOBODY && is_later) {
            last = other;
            who = other_who;
        }
    }
    if (lane == 0 && row < collectives) {
        // Adding zero makes the zeros one.
        last_arrival[row] = who == NOBODY ? float_of(0x7fc00000u) : last + 0.0f;
        last_rank[row] = who;
        if (who != NOBODY) atomicAdd(&blamed[who], 1u);
    }
}

// partial: [blocks of 64 collectives, ranks], one thread each: single precision, in the order of the collectives.
KERNEL __launch_bounds__(256) slack_waits(const float *arrivals, const float *last_arrival, u32 collectives, u32 ranks,
                                          float *partial) {
    u64 id = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    u64 first = id / ranks * BLOCK;
    u32 rank = (u32)(id % ranks);
    if (first >= collectives) return;
    u64 end = first + BLOCK < collectives ? first + BLOCK : collectives;
    float sum = 0.0f;
    for (u64 row = first; row < end; row++) {
        float wait = last_arrival[row] - arrivals[row * ranks + rank];
        sum += wait >= 0.0f ? wait : 0.0f;
    }
    partial[id] = sum;
}

// One thread a rank: double precision, in the order of the blocks.
KERNEL __launch_bounds__(64) slack_total(const float *partial, u32 blocks, u32 ranks, double *waited) {
    u32 rank = blockIdx.x * blockDim.x + threadIdx.x;
    if (rank >= ranks) return;
    double total = waited[rank];
    for (u64 block = 0; block < blocks; block++) total += (double)partial[block * ranks + rank];
    waited[rank] = total;
}
