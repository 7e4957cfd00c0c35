// Posteriors of run lengths: one thread a series, longest length first. See cpu/bocpd.rs.

#include "common.cuh"

#define LANES 16u

struct OfLength {
    float norm, spread, gain, power;
};

struct Grown {
    float weight, mean, rate;
};

__device__ inline Grown grow(OfLength of, float weight, float mean, float rate, float x, float scale) {
    float difference = x - mean;
    float square = difference * difference * of.spread;
    float root = reciprocal_root(rate);
    float power = of.power * log_one_plus(square * (root * root));
    float likelihood = of.norm * root * power_of_two(power);
    Grown grown;
    grown.weight = weight * scale * likelihood;
    grown.mean = fmaf(difference, of.gain, mean);
    grown.rate = rate + square;
    return grown;
}

// values: [ticks, series]; weights, means, rates: [blocks, lengths, 16]; totals: [blocks, 16]; table: [lengths].
KERNEL __launch_bounds__(128) bocpd(const float *values, u32 series, u32 ticks, u32 lengths, float hazard, float prior_mean,
                                    float prior_rate, float forget, const OfLength *table, float *weights, float *means,
                                    float *rates, float *totals) {
    u32 id = blockIdx.x * blockDim.x + threadIdx.x;
    if (id >= series) return;
    u64 first = (u64)(id / LANES) * lengths * LANES + id % LANES;
    float *weight = weights + first, *mean = means + first, *rate = rates + first;
    float total = totals[id], stay = 1.0f - hazard;
    u32 last = lengths - 1;
    for (u32 tick = 0; tick < ticks; tick++) {
        float x = values[(u64)tick * series + id];
        if (x != x) continue;
        float scale = __fdiv_rn(1.0f, total);
        u64 top = (u64)last * LANES, below = (u64)(last - 1) * LANES;
        Grown oldest = grow(table[last], weight[top], mean[top], rate[top], x, scale);
        Grown grown = grow(table[last - 1], weight[below], mean[below], rate[below], x, scale);
        float mass = oldest.weight + grown.weight;
        bool is_lighter = oldest.weight < grown.weight;
        weight[top] = stay * (oldest.weight + grown.weight);
        mean[top] = is_lighter ? grown.mean : oldest.mean;
        rate[top] = is_lighter ? grown.rate : oldest.rate * forget;
        for (u32 step = 1; step < last; step++) {
            u64 length = last - 1 - step, here = length * LANES, next = here + LANES;
            grown = grow(table[length], weight[here], mean[here], rate[here], x, scale);
            mass = mass + grown.weight;
            weight[next] = stay * grown.weight;
            mean[next] = grown.mean;
            rate[next] = grown.rate;
        }
        weight[0] = hazard * mass;
        total = mass;
        mean[0] = prior_mean;
        rate[0] = prior_rate;
        if (!(total > 1.17549435e-38f)) {
            // A value that no length can explain begins anew.
            for (u64 length = 0; length < lengths; length++) {
                weight[length * LANES] = 0.0f;
                mean[length * LANES] = prior_mean;
                rate[length * LANES] = prior_rate;
            }
            weight[0] = 1.0f;
            total = 1.0f;
        }
    }
    totals[id] = total;
}
