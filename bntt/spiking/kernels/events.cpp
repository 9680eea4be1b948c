// One spiking layer at inference on the CPU, fused and driven by events: connection (3 x 3 convolution of stride 1 and
// padding 1, or 1 x 1, or linear), affine temporal norm, neuron, and 2 x 2 averaging, over all time-steps. No current is
// ever in memory: an output's current is summed in registers from the spikes around it and goes straight into the
// membrane.
//
// The order of summation is fixed. A current is one float that starts at zero and takes weight * spike by fused
// multiply-add in the order of the taps (row-major), and within a tap of the input channels. Leaving out a spike of zero
// changes no bit of that sum (weights are finite; the sign of a zero may differ), so the sparse loop, which visits
// events only, and the dense loop, which visits everything, agree bit for bit. Which one runs is decided per step and
// piece of the input, and like the batch's size, the cut in time and the number of threads it changes no result.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "vectors.h"

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int BLOCK = 4;  // positions that the dense loop works on at once: as many as the registers hold
#else
constexpr int BLOCK = 2;
#endif
constexpr int UNIT = 4;  // positions that are worked on together: a 2 x 2 window, or neighbours in a row
constexpr int PANEL = 4 * LANES;  // output channels that are worked on together
constexpr int FEW = LANES == 16 ? 2 : 1;  // vectors of channels whose nine sums fit the registers
constexpr int UNROLL = 4;  // events per round of the sparse loop; lists are padded with zeros
constexpr i64 MEMBRANES = 256 * 1024;  // bytes of a panel's membranes that an item touches: with the weights, in L2
constexpr i64 INPUTS = 1 << 22;  // spikes that an item scans: bounds the scratch
constexpr i64 REUSE = 512;  // outputs per item below which reading the panel's weights would not pay

constexpr i64 PACKING = 16;  // uses of a row of weights that repay its move

// -- vectors ---------------------------------------------------------------------------------------------------------

inline i32 load_indices(const int* p) {
    i32 v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

// The first `lanes` of a vector; panels that are not full end in zeros.
inline f32 load_some(const float* p, i64 lanes) {
    if (lanes >= LANES) return load<f32>(p);
    f32 v{};
    if (lanes > 0) std::memcpy(&v, p, lanes * sizeof(float));
    return v;
}
template <class P> inline void store_some(P* p, f32 v, i64 lanes) {  // of what has no digits to round
    if (lanes >= LANES) return store_exact(p, v);
    P some[LANES];
    store_exact(some, v);
    if (lanes > 0) std::memcpy(p, some, lanes * sizeof(P));
}

// Said explicitly: left to the compiler, contraction may differ between the two loops.
inline f32 fma(f32 a, f32 b, f32 c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(__aarch64__)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

// -- the problem and its pieces --------------------------------------------------------------------------------------

template <class S> struct Layer {
    const S* spikes;
    const float* weight;  // of a panel, one row of `stride` per tap and input channel; `panel` from one to the next
    i64 stride, panel;
    const float *scale, *shift;
    float leak, threshold;
    bool hard_reset, halve;
    float* membrane;
    S* output;
    double* counts;
    i64 T, N, H, W, Cin, Cout;
    int taps;
    double dense_above;

    i64 rows() const { return N * H; }  // of all images, one below the other
    i64 halo() const { return taps == 9; }
    i64 panels() const { return (Cout + PANEL - 1) / PANEL; }
};

// A position in the order in which an item visits its own.
struct Place {
    int row, x, y;  // row among all images, x and y within the image
};

// The events of rows `first - halo .. last + halo` at every step: where in its row of the map, and its value.
struct Events {
    i64 first, rows, cells;
    std::vector<Place> places;
    std::vector<int> start;  // [T, rows, W] and one more: where a cell's events begin
    std::vector<char> dense;  // [T]: more events than are worth listing; none are
    std::unique_ptr<int[]> index;
    std::unique_ptr<float[]> value;
    i64 capacity = 0;
};

// Appends the events among `count` values of which the first is number `begin` of its row.
template <class S> inline i64 append(const S* p, int begin, i64 count, int* index, float* values, i64 n) {
    i64 c = 0;
#ifdef __AVX512F__
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; c + 16 <= count; c += 16) {
        const __m512i v = (__m512i)load<f32>(p + c);
        const __mmask16 some = _mm512_test_epi32_mask(v, _mm512_set1_epi32(0x7fffffff));
        _mm512_storeu_si512(values + n, _mm512_maskz_compress_epi32(some, v));
        _mm512_storeu_si512(index + n, _mm512_maskz_compress_epi32(some, _mm512_add_epi32(lanes, _mm512_set1_epi32(begin + int(c)))));
        n += __builtin_popcount(some);
    }
#endif
    for (; c < count; c++) {
        index[n] = begin + int(c), values[n] = value(p + c);
        n += values[n] != 0;
    }
    return n;
}

// Lists the events around rows first .. last; returns how many spikes in those rows are not zero.
template <class S> i64 collect(const Layer<S>& layer, i64 first, i64 last, Events& events) {
    const i64 halo = layer.halo(), W = layer.W, Cin = layer.Cin;
    events.first = first - halo, events.rows = last - first + 2 * halo, events.cells = events.rows * W;
    events.start.resize(layer.T * events.cells + 1), events.dense.resize(layer.T);

    const i64 limit = i64(std::clamp(layer.dense_above, 0.0, 1.0) * double(events.cells * Cin));
    const i64 capacity = layer.T * limit + W * Cin + 2 * PANEL;
    if (capacity > events.capacity) {
        events.index.reset(new int[capacity]), events.value.reset(new float[capacity]);
        events.capacity = capacity;
    }
    i64 n = 0, present = 0;
    for (i64 t = 0; t < layer.T; t++) {
        const i64 begin = n;
        int* start = events.start.data() + t * events.cells;
        events.dense[t] = 0;
        for (i64 r = 0; r < events.rows; r++) {
            const i64 row = events.first + r, before = n;
            if (row < 0 || row >= layer.rows()) {
                std::fill_n(start + r * W, W, int(n));
                continue;
            }
            const S* p = layer.spikes + (t * layer.rows() + row) * W * Cin;
            for (i64 x = 0; x < W; x++) {
                start[r * W + x] = int(n);
                n = append(p + x * Cin, int(x * Cin), Cin, events.index.get(), events.value.get(), n);
            }
            if (row >= first && row < last) present += n - before;
            if (events.dense[t] || n - begin > limit) events.dense[t] = 1, n = begin;
        }
    }
    events.start[layer.T * events.cells] = int(n);

    events.places.clear();
    const i64 step = layer.halve ? 2 : 1;  // in windows, else in rows
    for (i64 row = first; row < last; row += step)
        for (i64 x = 0; x < W; x += step)
            for (i64 k = 0; k < step * step; k++)
                events.places.push_back({int(row + k / 2), int(x + k % 2), int((row + k / 2) % layer.H)});
    return present;
}

// -- the two loops ---------------------------------------------------------------------------------------------------

// What one position receives, as rows of the panel's weights and values, in the order of summation.
struct Gathered {
    std::unique_ptr<int[]> row;
    std::unique_ptr<float[]> value;
    i64 count;

    explicit Gathered(i64 most) : row(new int[most + 2 * LANES]), value(new float[most + 2 * LANES]) {}

    // The cells left and right lie beside each other, so that a row of taps is one stretch of the list.
    template <class S> void fill(const Layer<S>& layer, const Events& events, i64 t, const Place& place) {
        const i64 W = layer.W, halo = layer.halo();
        const int* start = events.start.data() + t * events.cells + (place.row - events.first) * W + place.x;
        const i64 left = halo && place.x > 0, right = 1 + (halo && place.x < W - 1);
        const i64 up = halo && place.y > 0, down = halo && place.y < layer.H - 1;
        count = 0;
        for (i64 dy = -up; dy <= down; dy++) {
            const i64 from = start[dy * W - left], to = start[dy * W + right];
            const int move = int(((dy + halo) * 3 * halo + halo - place.x) * layer.Cin);
            for (i64 e = from; e < to; e += LANES) {
                const i32 rows = load_indices(events.index.get() + e) + move;
                const f32 values = load<f32>(events.value.get() + e);
                std::memcpy(row.get() + count + e - from, &rows, sizeof rows);
                std::memcpy(value.get() + count + e - from, &values, sizeof values);
            }
            count += to - from;
        }
        for (; count % UNROLL; count++) row[count] = 0, value[count] = 0;
    }
};

template <int K> inline void sparse(const float* weight, i64 stride, const Gathered& gathered, f32 (&sum)[K]) {
    f32 s[K] = {};
    for (i64 e = 0; e < gathered.count; e += UNROLL)
        for (int j = 0; j < UNROLL; j++) {
            const float* w = weight + gathered.row[e + j] * stride;
            const f32 v = f32{} + gathered.value[e + j];
            for (int k = 0; k < K; k++) s[k] = fma(v, load<f32>(w + k * LANES), s[k]);
        }
    for (int k = 0; k < K; k++) sum[k] = s[k];
}

// The currents of an item's rows at one step, with a column at either side and a row below for what lies outside.
//
// Where output channels are few, it takes longer to gather the spikes around a position than to add their weights. So the
// spikes are visited in order, and each cell adds its own to the nine currents around it. A current still takes its terms
// row by row, and within a row of taps from left to right.
struct Currents {
    std::vector<f32> sums;
    i64 pitch = 0;

    template <int K, class S> void fill(const Layer<S>& layer, const float* weight, const Events& events, i64 t) {
        const i64 W = layer.W, Cin = layer.Cin;
        pitch = (W + 2) * K;
        sums.assign((events.rows + 1) * pitch, f32{});
        const int* start = events.start.data() + t * events.cells;
        for (i64 r = 0; r < events.rows; r++) {
            const i64 row = events.first + r, y = row % layer.H;
            if (row < 0 || row >= layer.rows()) continue;
            const i64 above = r > 0 && y > 0 ? r - 1 : events.rows, below = y < layer.H - 1 && r + 1 < events.rows ? r + 1 : events.rows;
            f32* rows[3] = {&sums[below * pitch], &sums[r * pitch], &sums[above * pitch]};  // that see this row by tap 0, 1, 2
            for (i64 x = 0; x < W; x++) {
                const i64 from = start[r * W + x], to = start[r * W + x + 1];
                if (from == to) continue;
                f32 s[9][K];
                for (int tap = 0; tap < 9; tap++)
                    for (int k = 0; k < K; k++) s[tap][k] = rows[tap / 3][(x + 2 - tap % 3) * K + k];
                for (i64 e = from; e < to; e++) {
                    const float* w = weight + (events.index[e] - x * Cin) * layer.stride;
                    const f32 v = f32{} + events.value[e];
                    for (int tap = 0; tap < 9; tap++)
                        for (int k = 0; k < K; k++) s[tap][k] = fma(v, load<f32>(w + tap * Cin * layer.stride + k * LANES), s[tap][k]);
                }
                for (int tap = 0; tap < 9; tap++)
                    for (int k = 0; k < K; k++) rows[tap / 3][(x + 2 - tap % 3) * K + k] = s[tap][k];
            }
        }
    }
    template <int K> void of(const Events& events, const Place& place, f32 (&current)[K]) const {
        for (int k = 0; k < K; k++) current[k] = sums[(place.row - events.first) * pitch + (place.x + 1) * K + k];
    }
};

// `from[b][r]`: where the neighbourhood of position b begins in its r-th row of the map.
template <int K>
inline void dense(const float* weight, i64 stride, const float* (*from)[3], i64 rows, i64 run, f32 (*sum)[K]) {
    f32 s[BLOCK][K] = {};
    for (i64 r = 0; r < rows; r++) {
        const float* p[BLOCK];
        for (int b = 0; b < BLOCK; b++) p[b] = from[b][r];
        for (i64 c = 0; c < run; c++, weight += stride) {
            f32 w[K];
            for (int k = 0; k < K; k++) w[k] = load<f32>(weight + k * LANES);
            for (int b = 0; b < BLOCK; b++) {
                const f32 v = f32{} + p[b][c];
                for (int k = 0; k < K; k++) s[b][k] = fma(v, w[k], s[b][k]);
            }
        }
    }
    for (int b = 0; b < BLOCK; b++)
        for (int k = 0; k < K; k++) sum[b][k] = s[b][k];
}

// The rows around an item's at one step as floats, with a column of zeros at either side; before them a row of zeros.
struct Map {
    std::vector<float> values;
    i64 pitch;

    template <class S> void fill(const Layer<S>& layer, const Events& events, i64 t) {
        const i64 side = layer.halo() * layer.Cin, run = layer.W * layer.Cin;
        pitch = run + 2 * side;
        values.resize((events.rows + 1) * pitch);  // its zeros are never overwritten
        for (i64 r = 0; r < events.rows; r++) {
            const i64 row = events.first + r;
            if (row < 0 || row >= layer.rows()) continue;
            const S* p = layer.spikes + (t * layer.rows() + row) * run;
            float* to = values.data() + (r + 1) * pitch + side;
            for (i64 i = 0; i < run; i++) to[i] = value(p + i);
        }
    }
    template <class S> void around(const Layer<S>& layer, const Events& events, const Place& place, const float** from) const {
        const i64 halo = layer.halo();
        for (i64 dy = -halo; dy <= halo; dy++) {
            const bool inside = place.y + dy >= 0 && place.y + dy < layer.H;
            const i64 r = inside ? place.row - events.first + dy + 1 : 0;
            from[dy + halo] = values.data() + r * pitch + place.x * layer.Cin;
        }
    }
};

// -- the neuron ------------------------------------------------------------------------------------------------------

// A panel's neurons at step t: K vectors of them, the last perhaps in part.
template <class S, int K> struct Neurons {
    const Layer<S>& layer;
    const i64 t, c, columns;
    f32 scale[K], shift[K];
    f32 tally = {};  // of spikes; below 2 ** 24 per lane, step and image
    i64 image = 0;

    Neurons(const Layer<S>& layer, i64 t, i64 c)
        : layer(layer), t(t), c(c), columns(std::min<i64>(layer.Cout - c, PANEL)) {
        for (int k = 0; k < K; k++) {
            const i64 at = t * layer.Cout + c + k * LANES;
            scale[k] = layer.scale ? load_some(layer.scale + at, columns - k * LANES) : f32{} + 1;
            shift[k] = layer.scale ? load_some(layer.shift + at, columns - k * LANES) : f32{};
        }
    }

    // One position: its current in, its spikes out.
    inline void integrate(const Place& place, f32 (&current)[K]) {
        float* membrane = layer.membrane + (place.row * layer.W + place.x) * layer.Cout + c;
        for (int k = 0; k < K; k++) {
            const i64 lanes = columns - k * LANES;
            f32 u = load_some(membrane + k * LANES, lanes);
            u = fma(f32{} + layer.leak, u, fma(scale[k], current[k], shift[k]));
            const auto fires = u > f32{} + layer.threshold;
            store_some(membrane + k * LANES, fires ? (layer.hard_reset ? f32{} : u - layer.threshold) : u, lanes);
            current[k] = fires ? f32{} + 1 : f32{};
        }
        if (layer.counts) {
            if (place.x == 0 && place.y == 0) flush(), image = place.row / layer.H;
            for (int k = 0; k < K; k++) tally += current[k];
        }
    }

    inline void fire(const Place* places, i64 count, f32 (*current)[K]) {
        for (i64 p = 0; p < count; p++) integrate(places[p], current[p]);
        if (layer.halve) {
            for (int k = 0; k < K; k++)
                current[0][k] = (current[0][k] + current[1][k] + current[2][k] + current[3][k]) * 0.25f;
            const i64 at = (t * layer.rows() + places->row) / 2 * (layer.W / 2) + places->x / 2;
            emit(at, current[0]);
        } else
            for (i64 p = 0; p < count; p++) emit((t * layer.rows() + places[p].row) * layer.W + places[p].x, current[p]);
    }
    inline void emit(i64 position, const f32 (&spikes)[K]) {
        S* to = layer.output + position * layer.Cout + c;
        for (int k = 0; k < K; k++) store_some(to + k * LANES, spikes[k], columns - k * LANES);
    }

    // Sums of whole numbers: their order does not matter.
    void flush() {
        double spikes = 0;
        for (int i = 0; i < LANES; i++) spikes += tally[i];
        tally = f32{};
        if (spikes == 0) return;
        double& total = layer.counts[t * layer.N + image];
#pragma omp atomic
        total += spikes;
    }
};

// -- putting it together ---------------------------------------------------------------------------------------------

struct Scratch {
    Events events;
    Gathered gathered;
    Map map;
    Currents currents;
};

template <class S, int K> void advance(const Layer<S>& layer, i64 t, i64 panel, Scratch& scratch) {
    const Events& events = scratch.events;
    const auto& places = events.places;
    const float* weight = layer.weight + panel * layer.panel;
    const i64 rows = layer.taps == 9 ? 3 : 1, size = places.size();
    Neurons<S, K> neurons(layer, t, panel * PANEL);
    neurons.image = places[0].row / layer.H;
    const bool by_cell = K <= FEW && rows == 3 && !events.dense[t];
    if (events.dense[t]) scratch.map.fill(layer, events, t);
    if constexpr (K <= FEW)
        if (by_cell) scratch.currents.fill<K>(layer, weight, events, t);
    for (i64 i = 0; i < size; i += UNIT) {
        const i64 count = std::min<i64>(UNIT, size - i);
        f32 current[UNIT][K];
        if (events.dense[t])
            for (i64 b = 0; b < UNIT; b += BLOCK) {
                const float* from[BLOCK][3];
                for (i64 p = 0; p < BLOCK; p++)  // what is missing from the last unit is computed and left unused
                    scratch.map.around(layer, events, places[std::min(i + b + p, size - 1)], from[p]);
                dense<K>(weight, layer.stride, from, rows, rows * layer.Cin, current + b);
            }
        else if (by_cell)
            for (i64 p = 0; p < count; p++) scratch.currents.of(events, places[i + p], current[p]);
        else
            for (i64 p = 0; p < count; p++) {
                scratch.gathered.fill(layer, events, t, places[i + p]);
                sparse<K>(weight, layer.stride, scratch.gathered, current[p]);
            }
        neurons.fire(&places[i], count, current);
    }
    if (layer.counts) neurons.flush();
}

// Weights as one block per panel, filled up with zeros: without the large strides that share few sets of a cache.
template <class S> std::unique_ptr<float[]> pack(Layer<S>& layer) {
    const i64 rows = layer.taps * layer.Cin, panels = layer.panels();
    std::unique_ptr<float[]> packed(new float[panels * rows * PANEL]);
#pragma omp parallel for collapse(2)
    for (i64 panel = 0; panel < panels; panel++)
        for (i64 row = 0; row < rows; row++) {
            const i64 c = panel * PANEL, columns = std::min<i64>(layer.Cout - c, PANEL);
            float* to = packed.get() + (panel * rows + row) * PANEL;
            std::copy_n(layer.weight + row * layer.Cout + c, columns, to);
            std::fill_n(to + columns, PANEL - columns, 0.0f);
        }
    layer.weight = packed.get(), layer.stride = PANEL, layer.panel = rows * PANEL;
    return packed;
}

// How often a row of the weights is needed, about, from a few of the spikes. The guess decides nothing but speed.
template <class S> i64 uses(const Layer<S>& layer) {
    const i64 outputs = layer.T * layer.rows() * layer.W, total = outputs * layer.Cin, samples = 1024;
    const i64 step = total / samples | 1;  // odd, so as to meet many channels
    i64 present = 0;
    for (i64 i = 0; i < samples; i++) present += value(layer.spikes + i * step % total) != 0;
    return outputs * present / samples;
}

template <class S> double run(Layer<S> layer) {
    const i64 rows = layer.rows(), panels = layer.panels(), threads = omp_get_max_threads();

    // An item is a stretch of rows by a stretch of panels. Rows are few enough for the caches, panels are shared out
    // only where there are too few rows, as every item looks for its events itself.
    i64 height = std::max(divide_up(rows, 4 * threads), divide_up(REUSE, layer.T * layer.W));
    height = std::min({height, MEMBRANES / (4 * PANEL * layer.W), INPUTS / (layer.T * layer.W * layer.Cin), rows});
    height = std::max<i64>(2, (height + 1) / 2 * 2);  // windows stay whole
    const i64 pieces = divide_up(rows, height);
    const i64 width = divide_up(panels, std::min(panels, divide_up(4 * threads, pieces)));
    const i64 shares = divide_up(panels, width);

    std::unique_ptr<float[]> packed;
    const bool narrow = layer.Cout <= PANEL;  // then the rows lie one after the other anyway
    if (layer.Cout % LANES || (!narrow && uses(layer) >= PACKING)) packed = pack(layer);
    if (layer.counts) std::fill_n(layer.counts, layer.T * layer.N, 0.0);

    i64 present = 0;
#pragma omp parallel reduction(+ : present)
    {
        Scratch scratch{{}, Gathered(layer.taps * layer.Cin), {}, {}};
#pragma omp for schedule(dynamic)
        for (i64 item = 0; item < pieces * shares; item++) {
            const i64 first = item % pieces * height, last = std::min(first + height, rows), share = item / pieces;
            const i64 some = collect(layer, first, last, scratch.events);
            if (share == 0) present += some;
            for (i64 panel = share * width; panel < std::min((share + 1) * width, panels); panel++)
                for (i64 t = 0; t < layer.T; t++) switch (divide_up(std::min<i64>(layer.Cout - panel * PANEL, PANEL), LANES)) {
                        case 1: advance<S, 1>(layer, t, panel, scratch); break;
                        case 2: advance<S, 2>(layer, t, panel, scratch); break;
                        case 3: advance<S, 3>(layer, t, panel, scratch); break;
                        default: advance<S, 4>(layer, t, panel, scratch);
                    }
        }
    }
    return double(present) / double(layer.T * rows * layer.W * layer.Cin);
}

}  // namespace

// Arrays are contiguous. spikes [T, N, H, W, Cin] and output [T, N, H, W, Cout], or with `halve` [T, N, H/2, W/2, Cout] of
// averages, are of one type: 0 float, 1 bfloat16. weight [taps, Cin, Cout], taps 9 (row-major) or 1; scale, shift
// [T, Cout] or both null; membrane [N, H, W, Cout] is updated. counts [T, N], or null, receives the spikes before
// averaging. Steps with a larger share of spikes than `dense_above` take the dense loop; `density_out`, or null, is the
// share over the whole call. Returns 0, or 1 for arguments that make no sense.
extern "C" int event_layer(
    const void* spikes, int spikes_type, const float* weight, const float* scale, const float* shift, float leak,
    float threshold, int hard_reset, float* membrane, void* output, int halve, double* counts_or_null, long T, long N, long H,
    long W, long Cin, long Cout, int taps, double dense_above, double* density_out) {
    if (std::min({T, N, H, W, Cin, Cout}) < 1 || (taps != 1 && taps != 9) || (halve && (H % 2 || W % 2)) || !scale != !shift)
        return 1;
    const auto call = [&](auto kind) {
        using S = decltype(kind);
        const double density = run(Layer<S>{
            static_cast<const S*>(spikes), weight, Cout, PANEL, scale, shift, leak, threshold, hard_reset != 0, halve != 0,
            membrane, static_cast<S*>(output), counts_or_null, T, N, H, W, Cin, Cout, taps, dense_above});
        if (density_out) *density_out = density;
        return 0;
    };
    if (spikes_type == 0) return call(float{});
    return spikes_type == 1 ? call(bf16{}) : 1;
}
