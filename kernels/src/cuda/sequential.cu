// EWMA, CUSUM and Page-Hinkley of many series: one thread a series. See cpu/sequential.rs for the formulas.

#include "common.cuh"

// values: [ticks, series]; state: six arrays of [series]; alarms: one counter, zeroed by the caller.
KERNEL __launch_bounds__(256) sequential(const float *values, u64 series, u32 ticks, float weight, float slack,
                                         float tolerance, float threshold, float variance_floor, float *means,
                                         float *variances, float *aboves, float *belows, float *drifts,
                                         float *drifts_least, u32 *alarms) {
    u64 at = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= series) return;
    float mean = means[at], variance = variances[at];
    float above = aboves[at], below = belows[at];
    float drift = drifts[at], least = drifts_least[at];
    for (u32 tick = 0; tick < ticks; tick++) {
        float x = values[tick * series + at];
        if (x == x) {
            float difference = x - mean;
            float z = difference * reciprocal_root(variance + variance_floor);
            above = larger(above + (z - slack), 0.0f);
            below = larger(below - (z + slack), 0.0f);
            drift = drift + (z - tolerance);
            float step = weight * difference;
            variance = (1.0f - weight) * fmaf(step, difference, variance);
            mean = mean + step;
        }
        least = smaller(drift, least);
    }
    means[at] = mean;
    variances[at] = variance;
    aboves[at] = above;
    belows[at] = below;
    drifts[at] = drift;
    drifts_least[at] = least;
    float most = larger(larger(above, below), drift - least);
    if (threshold < most) atomicAdd(alarms, 1u);
}
