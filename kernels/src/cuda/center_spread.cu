// Median and MAD of rows, exact: one thread block a row. Selection is by counting in ever narrower ranges of ordered
// keys, so that the order of threads changes nothing. See cpu/center_spread.rs for what is counted.

#include "common.cuh"

#define THREADS 256u
#define BINS 2048u
#define BIN_BITS 11u
#define CANDIDATES 1024u
#define CACHED 8192u        // columns of a row that are held in shared memory
#define NO_KEY 0xffffffffu  // above every number's key

struct Shared {
    u32 bins[BINS];
    u32 candidates[CANDIDATES];
    u32 sums[THREADS / 32];
    u32 chosen, before, inside, gathered, least;
};

// Order of the keys is that of the numbers, zeros by sign.
__device__ inline u32 key_of(float value) {
    u32 bits = bits_of(value);
    return value == value ? (bits >> 31 ? ~bits : bits | 0x80000000u) : NO_KEY;
}
__device__ inline float value_of(u32 key) { return float_of(key >> 31 ? key & 0x7fffffffu : ~key); }

// The row's keys: from shared memory, or from its place where it does not fit.
struct Row {
    const float *values;
    const u8 *present; // null where all are
    const u32 *cache;  // null where the row does not fit
    __device__ u32 read(u32 at) const { return present && !present[at] ? NO_KEY : key_of(values[at]); }
    __device__ u32 operator()(u32 at) const { return cache ? cache[at] : read(at); }
};

// Keys of distances from a finite center.
struct Distances {
    Row row;
    float center;
    __device__ u32 operator()(u32 at) const {
        u32 key = row(at);
        return key == NO_KEY ? NO_KEY : bits_of(fabsf(value_of(key) - center));
    }
};

struct List {
    const u32 *keys;
    __device__ u32 operator()(u32 at) const { return keys[at]; }
};

__device__ inline u32 sum_before(u32 value, u32 *sums, u32 &all) {
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, sum = value;
    for (u32 away = 1; away < 32; away *= 2) {
        u32 other = __shfl_up_sync(ALL_LANES, sum, away);
        if (lane >= away) sum += other;
    }
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    u32 before = 0;
    all = 0;
    for (u32 at = 0; at < THREADS / 32; at++) {
        before += at < warp ? sums[at] : 0;
        all += sums[at];
    }
    __syncthreads();
    return before + sum - value;
}

// Narrows [low, high] to the bin that holds `rank`, which becomes the rank inside it; returns how many keys it holds.
template <class Keys>
__device__ u32 narrow(const Keys &keys, u32 count, Shared &shared, u32 &low, u32 &high, u32 &rank) {
    u32 width = 32 - __clz(high - low);
    u32 shift = width > BIN_BITS ? width - BIN_BITS : 0;
    for (u32 bin = threadIdx.x; bin < BINS; bin += THREADS) shared.bins[bin] = 0;
    __syncthreads();
    for (u32 at = threadIdx.x; at < count; at += THREADS) {
        u32 key = keys(at);
        if (key >= low && key <= high) atomicAdd(&shared.bins[(key - low) >> shift], 1u);
    }
    __syncthreads();
    u32 first = threadIdx.x * (BINS / THREADS), own = 0, all;
    for (u32 at = 0; at < BINS / THREADS; at++) own += shared.bins[first + at];
    u32 before = sum_before(own, shared.sums, all);
    if (rank >= before && rank < before + own) {
        u32 bin = first;
        while (rank - before >= shared.bins[bin]) before += shared.bins[bin++];
        shared.chosen = bin;
        shared.before = before;
        shared.inside = shared.bins[bin];
    }
    __syncthreads();
    low += shared.chosen << shift;
    u32 end = low + ((1u << shift) - 1);
    high = end < high ? end : high;
    rank -= shared.before;
    u32 inside = shared.inside;
    __syncthreads();
    return inside;
}

// The least key above `bound`.
template <class Keys> __device__ u32 least_above(const Keys &keys, u32 count, Shared &shared, u32 bound) {
    if (threadIdx.x == 0) shared.least = NO_KEY;
    __syncthreads();
    u32 least = NO_KEY;
    for (u32 at = threadIdx.x; at < count; at += THREADS) {
        u32 key = keys(at);
        if (key > bound && key < least) least = key;
    }
    if (least != NO_KEY) atomicMin(&shared.least, least);
    __syncthreads();
    least = shared.least;
    __syncthreads();
    return least;
}

struct Pair {
    u32 lower, upper;
};

// The keys of `rank` and, if `is_even`, of the next one, among those from `low` to `high`, which hold both.
template <class Keys>
__device__ Pair select(const Keys &keys, u32 count, Shared &shared, u32 low, u32 high, u32 rank, bool is_even) {
    u32 inside = count, above = NO_KEY;
    bool is_listed = false;
    while (low != high) {
        if (is_listed) {
            inside = narrow(List{shared.candidates}, shared.gathered, shared, low, high, rank);
            continue;
        }
        inside = narrow(keys, count, shared, low, high, rank);
        if (inside > CANDIDATES || low == high) continue;
        // Few are left: they are gathered, and the least key above them is kept.
        if (threadIdx.x == 0) {
            shared.gathered = 0;
            shared.least = NO_KEY;
        }
        __syncthreads();
        u32 least = NO_KEY;
        for (u32 at = threadIdx.x; at < count; at += THREADS) {
            u32 key = keys(at);
            if (key >= low && key <= high) shared.candidates[atomicAdd(&shared.gathered, 1u)] = key;
            if (key > high && key < least) least = key;
        }
        if (is_even && least != NO_KEY) atomicMin(&shared.least, least);
        __syncthreads();
        above = shared.least;
        is_listed = true;
        __syncthreads();
    }
    Pair pair = {low, low};
    if (is_even && rank + 1 >= inside) {
        if (is_listed) {
            u32 next = least_above(List{shared.candidates}, shared.gathered, shared, low);
            pair.upper = next != NO_KEY ? next : above;
        } else {
            pair.upper = least_above(keys, count, shared, low);
        }
    }
    return pair;
}

__device__ inline float middle(float lower, float upper) { return lower == upper ? lower : 0.5f * lower + 0.5f * upper; }

// values, present: [rows, columns], `present` null where all cells are; medians, mads, counts: [rows]. Grid: (rows).
KERNEL __launch_bounds__(256) center_spread(const float *values, const u8 *present, u32 columns, float *medians, float *mads,
                                            u32 *counts) {
    __shared__ Shared shared;
    __shared__ u32 cache[CACHED];
    __shared__ u32 low, high, number;
    u64 first = (u64)blockIdx.x * columns;
    Row row = {values + first, present ? present + first : 0, 0};
    if (threadIdx.x == 0) {
        low = NO_KEY;
        high = 0;
        number = 0;
    }
    __syncthreads();
    u32 least = NO_KEY, most = 0, own = 0;
    for (u32 at = threadIdx.x; at < columns; at += THREADS) {
        u32 key = row.read(at);
        if (columns <= CACHED) cache[at] = key;
        if (key != NO_KEY) {
            own++;
            least = key < least ? key : least;
            most = key > most ? key : most;
        }
    }
    if (own > 0) {
        atomicMin(&low, least);
        atomicMax(&high, most);
        atomicAdd(&number, own);
    }
    __syncthreads();
    if (columns <= CACHED) row.cache = cache;
    u32 count = number, rank = (count - 1) / 2;
    bool is_even = count % 2 == 0;
    float median = float_of(0x7fc00000u), mad = median;
    if (count > 0) {
        Pair pair = select(row, columns, shared, low, high, rank, is_even);
        median = middle(value_of(pair.lower), value_of(pair.upper));
        if (fabsf(median) < float_of(0x7f800000u)) {
            // The farthest cell is the least or the largest.
            float down = fabsf(value_of(low) - median), up = fabsf(value_of(high) - median);
            Distances distances = {row, median};
            pair = select(distances, columns, shared, 0, bits_of(larger(down, up)), rank, is_even);
            mad = middle(float_of(pair.lower), float_of(pair.upper));
        } else {
            // Cells equal to an infinite median lie at distance zero, all others at infinity.
            if (threadIdx.x == 0) shared.gathered = 0;
            __syncthreads();
            u32 equal = 0;
            for (u32 at = threadIdx.x; at < columns; at += THREADS) {
                u32 key = row(at);
                equal += key != NO_KEY && value_of(key) == median;
            }
            atomicAdd(&shared.gathered, equal);
            __syncthreads();
            float infinity = float_of(0x7f800000u);
            float lower = rank < shared.gathered ? 0.0f : infinity, upper = count / 2 < shared.gathered ? 0.0f : infinity;
            mad = middle(lower, upper);
        }
    }
    if (threadIdx.x == 0) {
        medians[blockIdx.x] = median;
        mads[blockIdx.x] = mad;
        counts[blockIdx.x] = count;
    }
}
