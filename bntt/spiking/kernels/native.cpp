// The passes of the temporal-norm operator on the CPU; bntt/spiking/kernels/__init__.py says what each must do.
//
// Rows (samples and positions) run in parallel, time runs inside, channels lie innermost. A work item is a group of rows
// by a panel of channels, so that the scale, the shift and the sums of a panel stay in registers while its rows pass.
// Sums are taken within a fixed group of rows and the groups added up in order: no result depends on the number of
// threads. Values are float or bfloat16 in memory and float in registers; sums over groups are double.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

using u32x16 = uint32_t __attribute__((vector_size(64)));
using f32x16 = float __attribute__((vector_size(64)));

inline float magnitude(float v) { return v < 0 ? -v : v; }
inline f32x16 magnitude(f32x16 v) { return (f32x16)((u32x16)v & 0x7fffffff); }

// -- the shape of the work -------------------------------------------------------------------------------------------

constexpr i64 PANEL = 64;          // channels of a work item
constexpr i64 GROUPS = 64;         // of rows: what is summed apart
constexpr i64 BLOCK = 256;         // rows whose moments are taken in two passes while they are in the cache
constexpr i64 SCAN_ROWS = 128;     // whose membranes fit the first-level cache
constexpr i64 KEPT = 32 * 1024;    // membranes of all steps, in floats, that the reverse scan keeps: second-level cache

// A function of the number of rows alone, so that sums are the same whoever takes them.
i64 groups_of(i64 units) { return std::clamp<i64>(units / 64, 1, GROUPS); }

// Rows are worked on in units: one by one, or the four of a 2 x 2 window of maps of the given width together.
struct Units {
    i64 width, count, window;
    Units(i64 rows, i64 width) : width(width), count(width ? rows / 4 : rows), window(width ? 4 : 1) {}
    i64 row(i64 unit, i64 k) const {
        if (!width) return unit;
        return unit / (width / 2) * 2 * width + unit % (width / 2) * 2 + (k & 1) + (k >> 1) * width;
    }
};

// Calls work(vectors in a panel, a vector, first channel) over the channels of one work item.
template <class Work> void over_panels(i64 item, i64 channels, Work work) {
    i64 c = item * PANEL, end = std::min(channels, c + PANEL);
    if (end - c == PANEL) return work(std::integral_constant<int, 4>(), f32x16{}, c);
    for (; c + 16 <= end; c += 16) work(std::integral_constant<int, 1>(), f32x16{}, c);
    for (; c < end; ++c) work(std::integral_constant<int, 1>(), float{}, c);
}

// What comes next often lies far from what is at hand, at another time-step, where no processor expects it. The address
// may lie outside of the array: it is not read.
template <bool WRITE = false, class X> inline void prefetch(const X* p, int values) {
    for (int i = 0; i < values; i += 64 / int(sizeof(X))) __builtin_prefetch(p + i, WRITE);
}

// -- moments ---------------------------------------------------------------------------------------------------------

// Adds the moments (mean, sum of squared deviations) of n more values to those of `count`: Chan, Golub and LeVeque (1983).
template <class More>
void merge(double* means, double* squares, double count, const More* more_means, const More* more_squares, double n, i64 size) {
    const double share = n / (count + n);
    for (i64 i = 0; i < size; ++i) {
        const double difference = double(more_means[i]) - means[i];
        means[i] += difference * share;
        squares[i] += double(more_squares[i]) + difference * difference * (count * share);
    }
}

template <class X> void moments(const X* x, i64 T, i64 M, i64 C, float* mean, float* variance) {
    const i64 items = divide_up(C, PANEL), groups = divide_up(groups_of(M), 4);
    std::vector<double> means(groups * T * C), squares(groups * T * C);
#pragma omp parallel for collapse(2) schedule(dynamic, 8)
    for (i64 t = 0; t < T; ++t)
        for (i64 g = 0; g < groups; ++g)
            for (i64 item = 0; item < items; ++item)
                over_panels(item, C, [&](auto panel, auto vector, i64 c) {
                    using V = decltype(vector);
                    constexpr int P = panel(), L = LANES_OF<V>;
                    double *m = &means[(g * T + t) * C + c], *s = &squares[(g * T + t) * C + c];
                    const i64 first = g * M / groups, last = (g + 1) * M / groups;
                    for (i64 b = first; b < last; b += BLOCK) {
                        const i64 n = std::min(BLOCK, last - b);
                        const X* at = x + (t * M + b) * C + c;
                        V centre[P] = {}, sum[P] = {}, rest[P] = {};
                        for (i64 r = 0; r < n; ++r) {
                            prefetch(at + (r + 16) * C, P * L);
                            for (int p = 0; p < P; ++p) centre[p] += load<V>(at + r * C + p * L);
                        }
                        for (int p = 0; p < P; ++p) centre[p] /= float(n);
                        for (i64 r = 0; r < n; ++r)
                            for (int p = 0; p < P; ++p) {
                                V d = load<V>(at + r * C + p * L) - centre[p];
                                sum[p] += d * d;
                                rest[p] += d;  // what rounding left in the centre
                            }
                        for (int p = 0; p < P; ++p) {
                            rest[p] /= float(n);
                            sum[p] -= float(n) * rest[p] * rest[p];
                        }
                        float of_centre[P * L], of_rest[P * L], of_sum[P * L];
                        std::memcpy(of_centre, centre, sizeof of_centre);
                        std::memcpy(of_rest, rest, sizeof of_rest);
                        std::memcpy(of_sum, sum, sizeof of_sum);
                        double of_mean[P * L], of_squares[P * L];
                        for (int l = 0; l < P * L; ++l) of_mean[l] = double(of_centre[l]) + of_rest[l], of_squares[l] = of_sum[l];
                        merge(m, s, b - first, of_mean, of_squares, n, P * L);
                    }
                });
#pragma omp parallel for
    for (i64 t = 0; t < T; ++t) {
        double *m = &means[t * C], *s = &squares[t * C];
        for (i64 g = 1; g < groups; ++g) {
            const i64 at = (g * T + t) * C, first = g * M / groups;
            merge(m, s, first, &means[at], &squares[at], (g + 1) * M / groups - first, C);
        }
        for (i64 c = 0; c < C; ++c) mean[t * C + c] = m[c], variance[t * C + c] = s[c] / M;
    }
}

// -- the neuron ------------------------------------------------------------------------------------------------------

struct Neuron {
    float leak, threshold, alpha, steepness;  // the last is alpha / threshold

    // Eq. 9, and Eq. 4 without a norm: the membrane that decides.
    template <class V> V charged(V u, V x, V scale, V shift) const { return leak * u + (scale * x + shift); }
    template <bool HARD, class V> V after(V u) const {
        return u > threshold ? (HARD ? V{} : u - threshold) : u;
    }
    template <class V> V slope(V u) const {  // Eq. 8
        const V s = alpha - magnitude(u - threshold) * steepness;
        return s < 0.0f ? V{} : s;
    }
};

// Scale and shift of a panel at one step; 1 and 0 without a norm.
template <int P, class V> struct Affine {
    V scale[P], shift[P];
    Affine(const float* scales, const float* shifts, i64 at) {
        for (int p = 0; p < P; ++p) {
            scale[p] = scales ? load<V>(scales + at + p * LANES_OF<V>) : V{} + 1.0f;
            shift[p] = shifts ? load<V>(shifts + at + p * LANES_OF<V>) : V{};
        }
    }
};

template <class X, bool HARD>
void scan(const X* x, i64 T, i64 M, i64 C, const float* scale, const float* shift, Neuron neuron, float* membrane,
          i64 halve, X* output) {
    const Units units(M, halve);
    const i64 size = SCAN_ROWS / units.window, blocks = divide_up(units.count, size), items = divide_up(C, PANEL);
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
    for (i64 b = 0; b < blocks; ++b)
        for (i64 item = 0; item < items; ++item)
            over_panels(item, C, [&](auto panel, auto vector, i64 c) {
                using V = decltype(vector);
                constexpr int P = panel(), L = LANES_OF<V>;
                const Neuron own = neuron;
                const i64 first = b * size, last = std::min(units.count, first + size), window = units.window;
                V u[SCAN_ROWS * P] = {};
                if (membrane)
                    for (i64 unit = first, i = 0; unit < last; ++unit)
                        for (i64 k = 0; k < window; ++k, ++i)
                            for (int p = 0; p < P; ++p)
                                u[i * P + p] = load<V>(membrane + units.row(unit, k) * C + c + p * L);
                for (i64 t = 0; t < T; ++t) {
                    const Affine<P, V> affine(scale, shift, t * C + c);
                    const X* in = x + t * M * C + c;
                    X* out = output + t * units.count * C + c;
                    for (i64 unit = first, i = 0; unit < last; ++unit) {
                        V sum[P] = {};
                        for (i64 k = 0; k < window; ++k, ++i) {
                            const X* at = in + units.row(unit, k) * C;
                            prefetch(at + M * C, P * L);
                            for (int p = 0; p < P; ++p) {
                                V v = own.charged(u[i * P + p], load<V>(at + p * L), affine.scale[p], affine.shift[p]);
                                sum[p] += v > own.threshold ? V{} + 1.0f : V{};
                                u[i * P + p] = own.after<HARD>(v);
                            }
                        }
                        for (int p = 0; p < P; ++p) store_exact(out + unit * C + p * L, window == 4 ? sum[p] * 0.25f : sum[p]);
                    }
                }
                if (membrane)
                    for (i64 unit = first, i = 0; unit < last; ++unit)
                        for (i64 k = 0; k < window; ++k, ++i)
                            for (int p = 0; p < P; ++p)
                                store(membrane + units.row(unit, k) * C + c + p * L, u[i * P + p]);
            });
}

template <class X, bool HARD>
void reverse_scan(const X* x, i64 T, i64 M, i64 C, const float* centre, const float* scale, const float* shift,
                  Neuron neuron, const float* membrane, const X* grad_output, float* grad_membrane, i64 halve, X* dy,
                  float* dscale, float* dshift) {
    const Units units(M, halve);
    const i64 groups = groups_of(units.count), items = divide_up(C, PANEL), window = units.window;
    const int shift_of_unit = window == 4 ? 2 : 0;
    const i64 step_above = units.count * C;
    neuron.alpha /= window, neuron.steepness /= window;  // a spike has this share of the average
    const i64 size = std::max<i64>(1, KEPT / std::min(C, PANEL) / T / window);  // units at a time
    std::vector<float> sums(scale ? groups * T * 2 * C : 0);
#pragma omp parallel
    {
        std::vector<float> membranes(size * window * (T + 1) * std::min(C, PANEL));
        float* kept = membranes.data();
        std::vector<i64> row(size * window);
#pragma omp for collapse(2) schedule(dynamic, 1)
        for (i64 g = 0; g < groups; ++g)
            for (i64 item = 0; item < items; ++item)
                over_panels(item, C, [&](auto panel, auto vector, i64 c) {
                    using V = decltype(vector);
                    constexpr int P = panel(), L = LANES_OF<V>;
                    const Neuron own = neuron;  // nothing that is written can change it
                    const i64 end = (g + 1) * units.count / groups;
                    for (i64 first = g * units.count / groups; first < end; first += size) {
                        const i64 rows = (std::min(end, first + size) - first) * window, length = rows * P * L;
                        for (i64 i = 0; i < rows; ++i) row[i] = units.row(first + i / window, i % window) * C + c;
                        float* before = kept + T * length;  // the membrane before the first step
                        for (i64 i = 0; i < rows; ++i)
                            for (int p = 0; p < P * L; ++p) before[i * P * L + p] = membrane ? membrane[row[i] + p] : 0.0f;
                        for (i64 t = 0; t < T; ++t) {
                            const Affine<P, V> affine(scale, shift, t * C + c);
                            const X* in = x + t * M * C;
                            const float* u = t ? kept + (t - 1) * length : before;
                            float* v = kept + t * length;
                            for (i64 i = 0; i < rows; ++i, u += P * L, v += P * L) {
                                const X* at = in + row[i];
                                prefetch(at + M * C, P * L);
                                for (int p = 0; p < P; ++p) {
                                    V rest = load<V>(u + p * L);
                                    if (t) rest = own.after<HARD>(rest);
                                    store(v + p * L, own.charged(rest, load<V>(at + p * L), affine.scale[p], affine.shift[p]));
                                }
                            }
                        }
                        float* carried = before;  // the gradient for the membrane after a step, before the leak
                        for (i64 i = 0; i < rows; ++i)
                            for (int p = 0; p < P * L; ++p) carried[i * P * L + p] = grad_membrane ? grad_membrane[row[i] + p] : 0.0f;
                        for (i64 t = T - 1; t >= 0; --t) {
                            V around[P], of_scale[P] = {}, of_shift[P] = {};
                            for (int p = 0; p < P; ++p) around[p] = centre ? load<V>(centre + t * C + c + p * L) : V{};
                            const X *in = x + t * M * C, *upstream = grad_output + (t * units.count + first) * C + c;
                            X* out = dy + t * M * C;
                            float *carry = carried, *v = kept + t * length;
                            const float leak = t < T - 1 ? neuron.leak : 1.0f;  // that of the step that follows
                            for (i64 i = 0; i < rows; ++i, carry += P * L, v += P * L) {
                                const X *above = upstream + (i >> shift_of_unit) * C, *at = in + row[i];
                                X* to = out + row[i];
                                prefetch(above - step_above, P * L);
                                prefetch(at - M * C, P * L);
                                prefetch<true>(to - M * C, P * L);
                                for (int p = 0; p < P; ++p) {
                                    V u = load<V>(v + p * L), g = load<V>(carry + p * L);
                                    if (HARD) g = u > own.threshold ? V{} : g;
                                    g = leak * g + load<V>(above + p * L) * own.slope(u);
                                    store(carry + p * L, g);
                                    store(to + p * L, g);
                                    of_scale[p] += g * (load<V>(at + p * L) - around[p]);
                                    of_shift[p] += g;
                                }
                            }
                            if (scale)
                                for (int p = 0; p < P; ++p) {
                                    float* to = &sums[(g * T + t) * 2 * C + c + p * L];
                                    store(to, load<V>(to) + of_scale[p]);
                                    store(to + C, load<V>(to + C) + of_shift[p]);
                                }
                        }
                        if (grad_membrane)
                            for (i64 i = 0; i < rows; ++i)
                                for (int p = 0; p < P * L; ++p) grad_membrane[row[i] + p] = neuron.leak * carried[i * P * L + p];
                    }
                });
    }
    if (scale)
        for (i64 t = 0; t < T; ++t)
            for (i64 c = 0; c < C; ++c) {
                double a = 0, b = 0;
                for (i64 g = 0; g < groups; ++g) a += sums[(g * T + t) * 2 * C + c], b += sums[((g * T + t) * 2 + 1) * C + c];
                dscale[t * C + c] = a, dshift[t * C + c] = b;
            }
}

template <class X>
void combine(const X* dy, const X* x, i64 T, i64 M, i64 C, const float* scale, const float* mean, const float* dmean,
             const float* dvariance, X* dx) {
    std::vector<float> factors(2 * T * C);  // dx = scale * dy + slope * (x - mean) + constant
    float *slope = factors.data(), *constant = slope + T * C;
    if (mean)
        for (i64 i = 0; i < T * C; ++i) {
            slope[i] = dvariance[i] * (2.0f / M);
            constant[i] = dmean[i] / M;
        }
    const i64 blocks = divide_up(M, BLOCK);
#pragma omp parallel for collapse(2) schedule(dynamic, 4)
    for (i64 t = 0; t < T; ++t)
        for (i64 b = 0; b < blocks; ++b)
            for (i64 r = b * BLOCK; r < std::min(M, (b + 1) * BLOCK); ++r) {
                const i64 row = (t * M + r) * C;
                auto work = [&](auto vector, i64 c) {
                    using V = decltype(vector);
                    V v = load<V>(scale + t * C + c) * load<V>(dy + row + c);
                    if (mean) {
                        V centred = load<V>(x + row + c) - load<V>(mean + t * C + c);
                        v += load<V>(slope + t * C + c) * centred + load<V>(constant + t * C + c);
                    }
                    store(dx + row + c, v);
                };
                i64 c = 0;
                for (; c + 16 <= C; c += 16) work(f32x16{}, c);
                for (; c < C; ++c) work(float{}, c);
            }
}

// -- keyed Poisson spikes --------------------------------------------------------------------------------------------

uint32_t mix(uint32_t h) {  // the finaliser of MurmurHash3, as in bntt/spiking/randomness.py
    h ^= h >> 16;
    h *= 0x85EBCA6Bu;
    h ^= h >> 13;
    h *= 0xC2B2AE35u;
    return h ^ (h >> 16);
}

template <class X>
void poisson(const float* rate, i64 T, i64 N, i64 C, i64 pixels, uint64_t key, const i64* samples, i64 start, X* output) {
    const uint32_t low = uint32_t(key), high = uint32_t(key >> 32);
    const i64 size = C * pixels;
    std::vector<uint32_t> position(T * size), limit(N * size), sign(N * size);
#pragma omp parallel for
    for (i64 t = 0; t < T; ++t)
        for (i64 c = 0; c < C; ++c)
            for (i64 p = 0; p < pixels; ++p)
                position[t * size + p * C + c] = mix(mix(uint32_t((start + t) * size + c * pixels + p) ^ high) ^ low);
    for (i64 n = 0; n < N; ++n)
        for (i64 c = 0; c < C; ++c)
            for (i64 p = 0; p < pixels; ++p) {
                const float r = rate[(n * C + c) * pixels + p];
                limit[n * size + p * C + c] = uint32_t((r < 0 ? -r : r) * 16777216.0f);
                sign[n * size + p * C + c] = r < 0 ? 0xbf800000u : 0x3f800000u;  // -1 or 1
            }
#pragma omp parallel for collapse(2)
    for (i64 t = 0; t < T; ++t)
        for (i64 n = 0; n < N; ++n) {
            const uint32_t sample = mix(mix(uint32_t(samples[n]) ^ low) ^ high);
            const uint32_t *of_position = &position[t * size], *below = &limit[n * size], *one = &sign[n * size];
            X* out = output + (t * N + n) * size;
            for (i64 i = 0; i < size; ++i) {
                const uint32_t bits = (mix(of_position[i] ^ sample) >> 8) < below[i] ? one[i] : 0;
                if constexpr (sizeof(X) == 2) out[i].bits = uint16_t(bits >> 16);
                else std::memcpy(out + i, &bits, 4);
            }
        }
}

}  // namespace

// -- what is called: every function once for float and once for bfloat16 ---------------------------------------------

#define FOR_TYPE(NAME, X)                                                                                              \
    extern "C" void NAME##_moments(const X* x, i64 T, i64 M, i64 C, float* mean, float* variance) {                    \
        moments(x, T, M, C, mean, variance);                                                                           \
    }                                                                                                                  \
    extern "C" void NAME##_scan(const X* x, i64 T, i64 M, i64 C, const float* scale, const float* shift, float leak,   \
                                float threshold, int hard, float* membrane, i64 halve, X* output) {                    \
        (hard ? scan<X, true> : scan<X, false>)(x, T, M, C, scale, shift, {leak, threshold, 0, 0}, membrane, halve, output); \
    }                                                                                                                  \
    extern "C" void NAME##_reverse_scan(const X* x, i64 T, i64 M, i64 C, const float* centre, const float* scale,      \
                                        const float* shift, float leak, float threshold, float alpha, int hard,        \
                                        const float* membrane, const X* grad_output, float* grad_membrane, i64 halve,  \
                                        X* dy, float* dscale, float* dshift) {                                         \
        (hard ? reverse_scan<X, true> : reverse_scan<X, false>)(x, T, M, C, centre, scale, shift,                      \
                                                                {leak, threshold, alpha, alpha / threshold}, membrane, \
                                                                grad_output, grad_membrane, halve, dy, dscale, dshift); \
    }                                                                                                                  \
    extern "C" void NAME##_combine(const X* dy, const X* x, i64 T, i64 M, i64 C, const float* scale,                   \
                                   const float* mean, const float* dmean, const float* dvariance, X* dx) {             \
        combine(dy, x, T, M, C, scale, mean, dmean, dvariance, dx);                                                    \
    }                                                                                                                  \
    extern "C" void NAME##_poisson(const float* rate, i64 T, i64 N, i64 C, i64 pixels, uint64_t key,                   \
                                   const i64* samples, i64 start, X* output) {                                         \
        poisson(rate, T, N, C, pixels, key, samples, start, output);                                                   \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bf16)
