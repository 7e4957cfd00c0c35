// What all kernels share. Arithmetic is that of `cpu/math.rs`, operation for operation: compiled without contraction,
// both give the same bits.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void
#define ALL_LANES 0xffffffffu

__device__ inline u32 bits_of(float value) { return __float_as_uint(value); }
__device__ inline float float_of(u32 bits) { return __uint_as_float(bits); }

__device__ inline float larger(float one, float other) { return other < one ? one : other; }
__device__ inline float smaller(float one, float other) { return one < other ? one : other; }

// 1 / sqrt(x): see `rsqrt` in cpu/math.rs.
__device__ inline float reciprocal_root(float x) {
    float y = float_of(0x5f375a86u - (bits_of(x) >> 1));
    for (int round = 0; round < 2; round++) {
        float h = fmaf(x * y, 0.0f - y, 1.0f);
        float step = fmaf(h, 0.375f, 0.5f);
        y = fmaf(y * h, step, y);
    }
    return y;
}

// ln(1 + q), q at least zero: see `log1p` in cpu/math.rs.
__device__ inline float log_one_plus(float q) {
    const float coefficients[9] = {7.0376836e-2f,  -1.151461e-1f, 1.1676999e-1f,  -1.2420141e-1f, 1.4249323e-1f,
                                   -1.6668058e-1f, 2.0000714e-1f, -2.4999994e-1f, 3.333333e-1f};
    u32 t = bits_of(q + 1.0f);
    int exponent = (int)(t - 0x3f3504f3u) >> 23;
    float mantissa = float_of(t - ((u32)exponent << 23));
    float f = exponent == 0 ? q : mantissa - 1.0f;
    float polynomial = coefficients[0];
    for (int at = 1; at < 9; at++) polynomial = fmaf(polynomial, f, coefficients[at]);
    float square = f * f;
    float correction = fmaf(f * square, polynomial, -0.5f * square);
    return fmaf((float)exponent, 0.693147182f, f + correction);
}

// 2^v, v at most zero: see `exp2_negative` in cpu/math.rs.
__device__ inline float power_of_two(float v) {
    const float coefficients[6] = {1.5353362e-4f, 1.3398874e-3f, 9.618437e-3f, 5.5503324e-2f, 2.4022648e-1f, 6.931472e-1f};
    const float round = 12582912.0f;
    bool is_usual = -125.0f < v;
    v = is_usual ? v : -125.0f;
    float shifted = v + round;
    float f = v - (shifted - round);
    float polynomial = coefficients[0];
    for (int at = 1; at < 6; at++) polynomial = fmaf(polynomial, f, coefficients[at]);
    float fraction = fmaf(polynomial, f, 1.0f);
    return is_usual ? float_of(bits_of(fraction) + (bits_of(shifted) << 23)) : 0.0f;
}
