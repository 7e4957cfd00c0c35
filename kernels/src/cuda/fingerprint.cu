// Fingerprints of weights: one warp takes a block of 16 KiB, one thread block a tile of 1 MiB. See cpu/fingerprint.rs for
// what is summed, and for the order in which squares are.

#include "common.cuh"

#define BLOCK_BYTES 16384u
#define BLOCKS 64u  // of a tile
#define ROWS 32u    // of a block
#define WORDS 128u  // of a row
#define WARPS 8u

struct Tile {
    u64 sum;
    double sum_of_squares;
    float max;
    u32 nans, infinities, zeros;
};

struct Mixing {
    u64 words[4];
};

// A number of fewer exponent bits: see `widen` in cpu/fingerprint.rs.
__device__ inline float widen(u32 moved, u32 bias) {
    float normal = float_of(moved + (bias << 23));
    float small = float_of(moved | (bias + 1) << 23) - float_of((bias + 1) << 23);
    return moved < 1u << 23 ? small : normal;
}

// Formats: numbers of a word, their width, the least size that is not finite, whether that is infinity.
struct F32 {
    static const u32 PARTS = 1, BITS = 32, INFINITE = 0x7f800000u;
    static const bool HAS_INFINITY = true;
    static __device__ float value(u32 size) { return float_of(size); }
};
struct F16 {
    static const u32 PARTS = 2, BITS = 16, INFINITE = 0x7c00u;
    static const bool HAS_INFINITY = true;
    static __device__ float value(u32 size) { return widen(size << 13, 112); }
};
struct Bf16 {
    static const u32 PARTS = 2, BITS = 16, INFINITE = 0x7f80u;
    static const bool HAS_INFINITY = true;
    static __device__ float value(u32 size) { return float_of(size << 16); }
};
struct E4m3 {
    static const u32 PARTS = 4, BITS = 8, INFINITE = 0x7fu;
    static const bool HAS_INFINITY = false;
    static __device__ float value(u32 size) { return widen(size << 20, 120); }
};
struct E5m2 {
    static const u32 PARTS = 4, BITS = 8, INFINITE = 0x7cu;
    static const bool HAS_INFINITY = true;
    static __device__ float value(u32 size) { return widen(size << 21, 112); }
};

template <class Format> __device__ inline u32 size_of(u32 word, u32 part) {
    return word >> (Format::BITS * part % 32) & (0x7fffffffu >> (32 - Format::BITS));
}

__device__ inline u64 mixed(u64 word, u64 place, u64 add, u64 turn) {
    u64 mix = (word + place * 0x9e3779b97f4a7c15ull + add) ^ turn;
    mix = (mix ^ (mix >> 30)) * 0xbf58476d1ce4e5b9ull;
    mix = (mix ^ (mix >> 27)) * 0x94d049bb133111ebull;
    return mix ^ (mix >> 31);
}

// Sixteen bytes, those beyond the end as zeros.
__device__ inline uint4 load(const u8 *bytes, u64 at, u64 length) {
    if (at + 16 <= length) return *(const uint4 *)(bytes + at);
    u32 words[4] = {0, 0, 0, 0};
    for (u32 byte = 0; byte < 16; byte++) {
        if (at + byte < length) words[byte / 4] |= (u32)bytes[at + byte] << (byte % 4 * 8);
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ inline u64 sum_over_warp(u64 value) {
    for (u32 away = 16; away > 0; away /= 2) value += __shfl_xor_sync(ALL_LANES, value, away);
    return value;
}

// What one thread has of a block: word `4 lane + n` of each row.
template <class Format> struct Share {
    u64 products, words;
    float squares[Format::PARTS][4];
    u32 most, least;

    __device__ void clear() {
        products = words = 0;
        most = 0;
        least = 0xffffffffu;
        #pragma unroll
        for (u32 part = 0; part < Format::PARTS; part++) {
            #pragma unroll
            for (u32 at = 0; at < 4; at++) squares[part][at] = 0.0f;
        }
    }

    __device__ void take(uint4 data, uint4 key) {
        products += (u64)(data.x + key.x) * (u64)(data.y + key.y);
        products += (u64)(data.z + key.z) * (u64)(data.w + key.w);
        words += ((u64)data.y << 32 | data.x) + ((u64)data.w << 32 | data.z);
        u32 all[4] = {data.x, data.y, data.z, data.w};
        #pragma unroll
        for (u32 at = 0; at < 4; at++) {
            #pragma unroll
            for (u32 part = 0; part < Format::PARTS; part++) {
                u32 size = size_of<Format>(all[at], part);
                float number = Format::value(size);
                squares[part][at] = squares[part][at] + number * number;
                most = size > most ? size : most;
                least = size < least ? size : least;
            }
        }
    }

    // As `take`, for a block that holds zeros or numbers that are not finite: squares of the finite ones alone.
    __device__ void count(uint4 data, u32 &nans, u32 &infinities, u32 &zeros) {
        u32 all[4] = {data.x, data.y, data.z, data.w};
        #pragma unroll
        for (u32 at = 0; at < 4; at++) {
            #pragma unroll
            for (u32 part = 0; part < Format::PARTS; part++) {
                u32 size = size_of<Format>(all[at], part);
                bool is_finite = size < Format::INFINITE;
                bool is_infinite = Format::HAS_INFINITY && size == Format::INFINITE;
                zeros += size == 0;
                infinities += is_infinite;
                nans += !is_finite && !is_infinite;
                float number = is_finite ? Format::value(size) : 0.0f;
                squares[part][at] = squares[part][at] + number * number;
                most = is_finite && size > most ? size : most;
            }
        }
    }

    // The sum of squares of the block, in lane 0: by lanes of 16 words over the columns of a row, then halves onto halves.
    __device__ double total(float *scratch, u32 lane) {
        #pragma unroll
        for (u32 part = 0; part < Format::PARTS; part++) {
            #pragma unroll
            for (u32 at = 0; at < 4; at++) scratch[part * WORDS + 4 * lane + at] = squares[part][at];
        }
        __syncwarp();
        double sum = 0.0;
        for (u32 column = 0; column < WORDS / 16; column++) {
            for (u32 part = 0; part < Format::PARTS; part++) sum += (double)scratch[part * WORDS + column * 16 + lane % 16];
        }
        for (u32 half = 8; half > 0; half /= 2) sum += __shfl_down_sync(ALL_LANES, sum, half);
        __syncwarp();
        return sum;
    }
};

template <class Format>
__device__ void fingerprint(const u8 *bytes, u64 length, const u32 *key, Mixing mixing, u64 first_tile, Tile *tiles) {
    __shared__ uint4 keys[BLOCK_BYTES / 16];
    __shared__ float scratch[WARPS][4 * WORDS];
    __shared__ double squares[BLOCKS];
    __shared__ u64 sums[WARPS];
    __shared__ u32 mosts[WARPS], counts[3];
    for (u32 at = threadIdx.x; at < BLOCK_BYTES / 16; at += blockDim.x) keys[at] = ((const uint4 *)key)[at];
    if (threadIdx.x < 3) counts[threadIdx.x] = 0;
    __syncthreads();
    u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    u64 sum = 0, begin = (u64)blockIdx.x * BLOCKS * BLOCK_BYTES;
    u32 most = 0;
    for (u32 block = warp; block < BLOCKS && begin + (u64)block * BLOCK_BYTES < length; block += WARPS) {
        u64 at = begin + (u64)block * BLOCK_BYTES + 16 * lane;
        bool is_whole = begin + (u64)(block + 1) * BLOCK_BYTES <= length;
        Share<Format> share;
        share.clear();
        if (is_whole) {
            #pragma unroll 8
            for (u32 row = 0; row < ROWS; row++)
                share.take(*(const uint4 *)(bytes + at + row * 512), keys[row * 32 + lane]);
        } else {
            for (u32 row = 0; row < ROWS; row++) share.take(load(bytes, at + row * 512, length), keys[row * 32 + lane]);
        }
        u64 products = sum_over_warp(share.products), words = sum_over_warp(share.words);
        u64 place = (first_tile + blockIdx.x) * BLOCKS + block;
        sum += mixed(products, place, mixing.words[0], mixing.words[1]);
        sum += mixed(words, place, mixing.words[2], mixing.words[3]);
        double of_block = share.total(scratch[warp], lane);
        bool is_odd = share.least == 0 || share.most >= Format::INFINITE;
        if (__any_sync(ALL_LANES, is_odd)) {
            u32 nans = 0, infinities = 0, zeros = 0;
            share.clear();
            for (u32 row = 0; row < ROWS; row++)
                share.count(load(bytes, at + row * 512, length), nans, infinities, zeros);
            // Where all are finite this is the same sum again.
            of_block = share.total(scratch[warp], lane);
            atomicAdd(&counts[0], nans);
            atomicAdd(&counts[1], infinities);
            atomicAdd(&counts[2], zeros);
            u64 padding = (begin + (u64)(block + 1) * BLOCK_BYTES - length) / (Format::BITS / 8);
            if (!is_whole && lane == 0) atomicAdd(&counts[2], 0u - (u32)padding);
        }
        most = share.most > most ? share.most : most;
        if (lane == 0) squares[block] = of_block;
    }
    for (u32 away = 16; away > 0; away /= 2) {
        u32 other = __shfl_xor_sync(ALL_LANES, most, away);
        most = other > most ? other : most;
    }
    if (lane == 0) {
        sums[warp] = sum;
        mosts[warp] = most;
    }
    __syncthreads();
    if (threadIdx.x > 0) return;
    Tile tile;
    tile.sum = 0;
    tile.sum_of_squares = 0.0;
    most = 0;
    for (u32 one = 0; one < WARPS; one++) {
        tile.sum += sums[one];
        most = mosts[one] > most ? mosts[one] : most;
    }
    for (u32 block = 0; block < BLOCKS && begin + (u64)block * BLOCK_BYTES < length; block++)
        tile.sum_of_squares += squares[block];
    tile.max = Format::value(most);
    tile.nans = counts[0];
    tile.infinities = counts[1];
    tile.zeros = counts[2];
    tiles[blockIdx.x] = tile;
}

// bytes: numbers of the format, the first at a multiple of 16; tiles: one for each MiB begun. Grid: (tiles), 256 threads.
#define OF_FORMAT(name, Format)                                                                                            \
    KERNEL __launch_bounds__(256) name(const u8 *bytes, u64 length, const u32 *key, Mixing mixing, u64 first_tile,         \
                                       Tile *tiles) {                                                                      \
        fingerprint<Format>(bytes, length, key, mixing, first_tile, tiles);                                                \
    }
OF_FORMAT(fingerprint_f32, F32)
OF_FORMAT(fingerprint_f16, F16)
OF_FORMAT(fingerprint_bf16, Bf16)
OF_FORMAT(fingerprint_e4m3, E4m3)
OF_FORMAT(fingerprint_e5m2, E5m2)
