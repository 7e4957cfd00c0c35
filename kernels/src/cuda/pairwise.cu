// Sums of the distances of each point to all others. See cpu/pairwise.rs, whose order of summation this follows: by
// tiles of 64 points, of a tile before the own one row after row, of the others in 16 lanes.

#include "common.cuh"

#define TILE 64u
#define LANES 16u
#define STAGED 16u // dimensions of a tile that are held in shared memory at a time

// points: [dimensions, padded], zero beyond `count`; partial: [tiles of this launch, padded].
// Grid: (tiles, tiles of this launch), one thread a point of the own tile.
KERNEL __launch_bounds__(64) pairwise_tiles(const float *points, u32 dimensions, u32 count, u32 padded, u32 first_tile,
                                            float *partial) {
    __shared__ float others[STAGED * TILE];
    u32 own_tile = blockIdx.x, other_tile = first_tile + blockIdx.y;
    u32 own = own_tile * TILE + threadIdx.x, other = other_tile * TILE;
    float squares[TILE];
    for (u32 at = 0; at < TILE; at++) squares[at] = 0.0f;
    for (u32 first = 0; first < dimensions; first += STAGED) {
        u32 staged = dimensions - first < STAGED ? dimensions - first : STAGED;
        __syncthreads();
        for (u32 at = 0; at < staged; at++)
            others[at * TILE + threadIdx.x] = points[(u64)(first + at) * padded + other + threadIdx.x];
        __syncthreads();
        for (u32 dimension = 0; dimension < staged; dimension++) {
            float own_value = points[(u64)(first + dimension) * padded + own];
            #pragma unroll
            for (u32 at = 0; at < TILE; at++) {
                float difference = others[dimension * TILE + at] - own_value;
                squares[at] = fmaf(difference, difference, squares[at]);
            }
        }
    }
    float sum = 0.0f;
    if (other_tile < own_tile) {
        // The other tile is full, since one follows it.
        #pragma unroll
        for (u32 at = 0; at < TILE; at++) sum += __fsqrt_rn(squares[at]);
    } else {
        float lanes[LANES];
        #pragma unroll
        for (u32 lane = 0; lane < LANES; lane++) lanes[lane] = 0.0f;
        #pragma unroll
        for (u32 at = 0; at < TILE; at++) {
            if (other + at / LANES * LANES < count) {
                float counts = other + at < count ? 1.0f : 0.0f;
                lanes[at % LANES] += __fsqrt_rn(squares[at]) * counts;
            }
        }
        #pragma unroll
        for (u32 half = LANES / 2; half > 0; half /= 2) {
            #pragma unroll
            for (u32 lane = 0; lane < half; lane++) lanes[lane] += lanes[lane + half];
        }
        sum = lanes[0];
    }
    partial[(u64)blockIdx.y * padded + own] = sum;
}

// One thread a point: double precision, in the order of the tiles.
KERNEL __launch_bounds__(256) pairwise_total(const float *partial, u32 tiles, u32 count, u32 padded, double *sums) {
    u32 point = blockIdx.x * blockDim.x + threadIdx.x;
    if (point >= count) return;
    double sum = sums[point];
    for (u32 tile = 0; tile < tiles; tile++) sum += (double)partial[(u64)tile * padded + point];
    sums[point] = sum;
}
