// Connections of a training step on the CPU that visit spikes and leave out zeros: the currents of a 3 x 3 convolution of
// stride 1 and padding 1, and the gradient of its weights. bntt/spiking/connections.py says when they are used.
//
// Spikes come as bytes that count quarters, channels innermost. Currents and their gradients are float or bfloat16 in
// memory; products are exact or float, and sums are float. A sum takes its terms in an order that depends on the shapes
// alone, so no result depends on the number of threads.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#include "vectors.h"

namespace {

#if defined(__AVX__) && !defined(__AVX512F__)
constexpr int WIDE = 1;
#else
constexpr int WIDE = 2;  // vectors of output channels whose nine sums fill the registers
#endif
constexpr i64 TILE = 1 << 14;  // numbers in the maps that are at hand at once: in the second-level cache
constexpr i64 GROUPS = 4;      // of images whose weight gradients are summed apart: each takes memory as large as these

using u32 = Words<LANES>::u32;
using i8 = int8_t __attribute__((vector_size(LANES)));

// Arrays that begin where a line of the cache does: a vector that lies in two lines takes twice as long to read.
template <class X> struct OnLines {
    using value_type = X;
    OnLines() = default;
    template <class Y> OnLines(const OnLines<Y>&) {}
    X* allocate(size_t n) { return static_cast<X*>(::operator new(n * sizeof(X), std::align_val_t(64))); }
    void deallocate(X* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
    bool operator==(const OnLines&) const { return true; }
    bool operator!=(const OnLines&) const { return false; }
};
template <class X> using Aligned = std::vector<X, OnLines<X>>;

// Stores the first `lanes` of a vector.
template <class X> inline void store_some(X* p, f32 v, i64 lanes) {
    if (lanes >= LANES) return store(p, v);
    X some[LANES];
    store(some, v);
    if (lanes > 0) std::memcpy(p, some, lanes * sizeof *p);
}

inline uint32_t bits_of(float v) {
    uint32_t bits;
    std::memcpy(&bits, &v, sizeof v);
    return bits;
}

// One weight, which has no more digits than its type.
inline void narrow(float* p, float v) { *p = v; }
inline void narrow(bf16* p, float v) { p->bits = uint16_t(bits_of(v) >> 16); }

template <i64 COUNT, class X> inline void copy(const X* from, X* to) { std::memcpy(to, from, COUNT * sizeof *to); }
template <i64 COUNT> inline void copy(const bf16* from, float* to) {
    for (i64 i = 0; i < COUNT; ++i) to[i] = value(from + i);
}

// -- spikes as bytes -------------------------------------------------------------------------------------------------

// Vectors of values that become bytes, and what is noted of them: how many are zero, and whether any is no quarter.
struct Noted {
    i64 zeros = 0;
    bool exact = true;
};

inline i64 bytes_of(const float* x, i64 count, int8_t* bytes, Noted& noted) {
    i32 zeros{}, wrong{};
    i64 i = 0;
    for (; i + LANES <= count; i += LANES) {
        const f32 four = load<f32>(x + i) * 4.0f;
        const i32 whole = __builtin_convertvector(four, i32);
        const i8 narrow = __builtin_convertvector(whole, i8);
        wrong |= (__builtin_convertvector(whole, f32) != four) | (__builtin_convertvector(narrow, i32) != whole);
        zeros -= whole == 0;  // a comparison that holds is -1
        std::memcpy(bytes + i, &narrow, sizeof narrow);
    }
    for (int l = 0; l < LANES; ++l) noted.zeros += zeros[l], noted.exact = noted.exact && !wrong[l];
    return i;
}

// Nearly all are 0, 1/4, 1/2, 3/4, 1 or -1, which their bits tell apart: twice as many fit into a vector.
inline i64 bytes_of(const bf16* x, i64 count, int8_t* bytes, Noted& noted) {
    using u16 = uint16_t __attribute__((vector_size(4 * LANES)));
    using u8 = uint8_t __attribute__((vector_size(2 * LANES)));
    u16 zeros{}, wrong{};
    i64 i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        u16 bits;
        std::memcpy(&bits, x + i, sizeof bits);
        const u16 negative = (u16)(bits >= 0x8000), quarter = u16{} + 0x3e80;  // all digits of `negative` are alike
        bits &= 0x7fff;
        u16 whole = (bits - quarter) >> 6;  // of the last three
        whole = bits == quarter ? u16{} + 1 : whole;
        whole = bits == 0 ? u16{} : whole;
        const u16 value = whole == 0 ? u16{} : whole == 1 ? quarter : quarter + (whole << 6);
        wrong |= (value ^ bits) | (whole > 4);
        zeros -= (u16)(bits == 0);
        const u8 narrow = __builtin_convertvector((whole ^ negative) - negative, u8);
        std::memcpy(bytes + i, &narrow, sizeof narrow);
    }
    for (int l = 0; l < 2 * LANES; ++l) noted.zeros += zeros[l], noted.exact = noted.exact && !wrong[l];
    return i;
}

// Writes four times each value; counts the values of each step that are not zero. Returns whether all fitted.
template <class X> bool quarters(const X* x, i64 T, i64 size, int8_t* bytes, i64* counts) {
    constexpr i64 BLOCK = 1 << 14;
    const i64 blocks = divide_up(size, BLOCK);
    std::fill_n(counts, T, 0);
    bool exact = true;
#pragma omp parallel for collapse(2) reduction(&& : exact)
    for (i64 t = 0; t < T; ++t)
        for (i64 b = 0; b < blocks; ++b) {
            const i64 first = t * size + b * BLOCK, count = std::min(size - b * BLOCK, BLOCK);
            Noted noted;
            i64 i = bytes_of(x + first, count, bytes + first, noted);
            if (!noted.exact) i = 0, noted = {};  // others, one by one
            for (; i < count; ++i) {
                const float four = value(x + first + i) * 4.0f;
                const bool fits = four >= -128 && four <= 127 && float(int(four)) == four;
                bytes[first + i] = fits ? int8_t(four) : 0;
                noted.zeros += four == 0, noted.exact = noted.exact && fits;
            }
            exact = exact && noted.exact;
#pragma omp atomic
            counts[t] += count - noted.zeros;
        }
    return exact;
}

// -- lists of spikes -------------------------------------------------------------------------------------------------

// Writes the numbers of the bytes that are not zero, and their values.
inline i64 list(const int8_t* p, i64 count, int* index, float* values) {
    i64 i = 0, n = 0;
#ifdef __AVX512F__
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (; i + 16 <= count; i += 16) {
        const __m512i v = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(p + i)));
        const __mmask16 some = _mm512_test_epi32_mask(v, v);
        _mm512_storeu_ps(values + n, _mm512_cvtepi32_ps(_mm512_maskz_compress_epi32(some, v)));
        _mm512_storeu_si512(index + n, _mm512_maskz_compress_epi32(some, _mm512_add_epi32(lanes, _mm512_set1_epi32(int(i)))));
        n += __builtin_popcount(some);
    }
#endif
    for (; i < count; ++i) {
        index[n] = int(i), values[n] = p[i];
        n += p[i] != 0;
    }
    return n;
}

struct Spike {
    int at;       // where the numbers to be added begin: weights, or gradients
    float value;  // four times that of the spike
};

// Maps of numbers around the cells of some images, with a border of one cell: that of a spike in the corner, too, has all
// nine neighbours. A cell has `columns` numbers.
struct Maps {
    i64 H, W, columns, pitch, size;
    i64 around[9];  // of the cell that the output of a tap has, from the upper left neighbour of the spike
    i64 of_tap[9];  // of the numbers of a tap, from those of the first
    Maps(i64 H, i64 W, i64 columns) : H(H), W(W), columns(columns), pitch((W + 2) * columns), size((H + 2) * pitch) {
        for (int tap = 0; tap < 9; ++tap) {
            around[tap] = (2 - tap / 3) * pitch + (2 - tap % 3) * columns;
            of_tap[tap] = tap * columns;
        }
    }
    i64 cell(i64 image, i64 y) const { return image * size + y * pitch; }
};

// The type of numbers that are read again and again, P vectors at a time. A single vector of bfloat16 would have to be
// spread out first, which takes longer than to read floats.
template <class X, int P> using Number = std::conditional_t<P == 2, X, float>;

// Adds numbers, P vectors for each of nine taps, to the sums that belong to them.
template <int P>
inline void add(const Spike* spike, const Spike* end, const float* numbers, const i64* from, float* sums, const i64* to) {
    f32 s[9][P];
    for (int tap = 0; tap < 9; ++tap)
        for (int p = 0; p < P; ++p) s[tap][p] = load<f32>(sums + to[tap] + p * LANES);
    for (; spike != end; ++spike) {
        const f32 value = f32{} + spike->value;
        for (int tap = 0; tap < 9; ++tap)
            for (int p = 0; p < P; ++p) s[tap][p] += value * load<f32>(numbers + spike->at + from[tap] + p * LANES);
    }
    for (int tap = 0; tap < 9; ++tap)
        for (int p = 0; p < P; ++p) store(sums + to[tap] + p * LANES, s[tap][p]);
}

// Whether one instruction multiplies and adds two spikes at once. Processors with AMX have it, too, but it is slow there.
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define BY_PAIRS
#endif

#ifdef BY_PAIRS
// Two spikes at once: the numbers of both lie side by side.
template <int P>
inline void add(const Spike* spike, const Spike* end, const bf16* numbers, const i64* from, float* sums, const i64* to) {
    __m512 s[9][2];
    for (int tap = 0; tap < 9; ++tap)
        for (int p = 0; p < 2; ++p) s[tap][p] = _mm512_load_ps(sums + to[tap] + p * LANES);
    for (; spike < end; spike += 2) {
        const Spike one = spike[0], other = spike + 1 < end ? spike[1] : Spike{one.at, 0.0f};
        const auto values = (__m512bh)_mm512_set1_epi32(int(bits_of(one.value) >> 16 | (bits_of(other.value) & 0xffff0000u)));
        for (int tap = 0; tap < 9; ++tap) {
            const __m512i a = _mm512_load_si512(numbers + one.at + from[tap]), b = _mm512_load_si512(numbers + other.at + from[tap]);
            s[tap][0] = _mm512_dpbf16_ps(s[tap][0], (__m512bh)_mm512_unpacklo_epi16(a, b), values);
            s[tap][1] = _mm512_dpbf16_ps(s[tap][1], (__m512bh)_mm512_unpackhi_epi16(a, b), values);
        }
    }
    for (int tap = 0; tap < 9; ++tap)
        for (int p = 0; p < 2; ++p) _mm512_store_ps(sums + to[tap] + p * LANES, s[tap][p]);
}
#else
// Two vectors of bfloat16 are read as one, of the even numbers and of the odd ones.
template <int P>
inline void add(const Spike* spike, const Spike* end, const bf16* numbers, const i64* from, float* sums, const i64* to) {
    f32 s[9][2];
    for (int tap = 0; tap < 9; ++tap)
        for (int p = 0; p < 2; ++p) s[tap][p] = load<f32>(sums + to[tap] + p * LANES);
    for (; spike != end; ++spike) {
        const f32 value = f32{} + spike->value;
        for (int tap = 0; tap < 9; ++tap) {
            u32 both;
            std::memcpy(&both, numbers + spike->at + from[tap], sizeof both);
            s[tap][0] += value * (f32)(both << 16), s[tap][1] += value * (f32)(both & 0xffff0000u);
        }
    }
    for (int tap = 0; tap < 9; ++tap)
        for (int p = 0; p < 2; ++p) store(sums + to[tap] + p * LANES, s[tap][p]);
}
#endif

// Which of the sums the number of a column is added to.
template <class N> i64 place(i64 column) {
    if (sizeof(N) == 4) return column;
#ifdef BY_PAIRS
    return column % 8 / 4 * LANES + column / 8 * 4 + column % 4;
#else
    return column % 2 * LANES + column / 2;
#endif
}

// The spikes of some images, in order.
struct Spikes {
    i64 Cin, count = 0;
    std::vector<int> column, channel;  // of the numbers in a row of a map
    std::vector<int> index, cell, from;  // number in the row; where its cell begins in `maps`; channel
    std::vector<float> value;

    Spikes(i64 images, const Maps& maps, i64 Cin)
        : Cin(Cin), column(maps.W * Cin), channel(maps.W * Cin), index(maps.W * Cin + LANES),
          cell(images * maps.H * maps.W * Cin + LANES), from(cell.size()), value(cell.size()) {
        for (i64 i = 0; i < maps.W * Cin; ++i) column[i] = int(i / Cin * maps.columns), channel[i] = int(i % Cin);
    }
    void fill(const int8_t* bytes, i64 images, const Maps& maps) {
        count = 0;
        for (i64 i = 0; i < images; ++i)
            for (i64 y = 0; y < maps.H; ++y, bytes += maps.W * Cin) {
                const i64 n = list(bytes, maps.W * Cin, index.data(), &value[count]);
                const int row = int(maps.cell(i, y));
                for (i64 e = 0; e < n; ++e) cell[count + e] = row + column[index[e]], from[count + e] = channel[index[e]];
                count += n;
            }
    }
};

// -- currents --------------------------------------------------------------------------------------------------------

// Weights [Cout, 9, Cin] as one block [Cin, 9, columns] per panel, filled up with zeros to whole vectors. A quarter of
// each, as spikes count quarters.
template <class N> Aligned<N> packed(const float* weight, i64 Cin, i64 Cout, i64 columns) {
    const i64 panels = divide_up(Cout, columns), some = 16;  // input channels, whose weights lie in one line of the cache
    Aligned<N> blocks(panels * Cin * 9 * columns);
#pragma omp parallel for collapse(2)
    for (i64 panel = 0; panel < panels; ++panel)
        for (i64 first = 0; first < Cin; first += some)
            for (i64 column = 0; column < columns; ++column) {
                const i64 o = panel * columns + place<N>(column);
                if (o >= Cout) continue;
                for (i64 tap = 0; tap < 9; ++tap)
                    for (i64 c = first; c < std::min(Cin, first + some); ++c)
                        narrow(&blocks[((panel * Cin + c) * 9 + tap) * columns + column], 0.25f * weight[(o * 9 + tap) * Cin + c]);
            }
    return blocks;
}

template <class X, int P>
void currents(const int8_t* bytes, i64 I, i64 H, i64 W, i64 Cin, i64 Cout, const float* weight, X* out) {
    constexpr i64 columns = P * LANES;
    const Maps maps(H, W, columns);
    const i64 panels = divide_up(Cout, columns), tile = std::clamp<i64>(TILE / maps.size, 1, I), block = 9 * columns;
    const auto blocks = packed<Number<X, P>>(weight, Cin, Cout, columns);
#pragma omp parallel
    {
        Spikes spikes(tile, maps, Cin);
        std::vector<Spike> listed(spikes.cell.size());
        Aligned<float> sums(tile * maps.size);
#pragma omp for schedule(dynamic)
        for (i64 item = 0; item < divide_up(I, tile); ++item) {
            const i64 first = item * tile, images = std::min(tile, I - first);
            spikes.fill(bytes + first * H * W * Cin, images, maps);
            for (i64 e = 0; e < spikes.count; ++e) listed[e] = {int(spikes.from[e] * block), spikes.value[e]};
            spikes.cell[spikes.count] = -1;
            for (i64 panel = 0; panel < panels; ++panel) {
                std::fill_n(sums.begin(), images * maps.size, 0.0f);
                for (i64 e = 0; e < spikes.count;) {
                    const int cell = spikes.cell[e];
                    const i64 begin = e;
                    while (spikes.cell[++e] == cell) {}
                    add<P>(&listed[begin], &listed[e], &blocks[panel * Cin * block], maps.of_tap, &sums[cell], maps.around);
                }
                X* to = out + first * H * W * Cout + panel * columns;
                for (i64 i = 0; i < images; ++i)
                    for (i64 y = 0; y < H; ++y)
                        for (i64 x = 0; x < W; ++x, to += Cout)
                            for (int p = 0; p < P; ++p)
                                store_some(to + p * LANES, load<f32>(&sums[maps.cell(i, y + 1) + (x + 1) * columns + p * LANES]),
                                           Cout - panel * columns - p * LANES);
            }
        }
    }
}

// -- gradient of the weights -----------------------------------------------------------------------------------------

// The same spikes channel by channel, and where the gradients around each begin.
struct Channels {
    std::vector<int> start, next;  // of each channel
    std::vector<Spike> spikes;

    Channels(const Spikes& ordered) : start(ordered.Cin + 1), next(ordered.Cin), spikes(ordered.cell.size()) {}

    void fill(const Spikes& ordered) {
        std::fill(start.begin(), start.end(), 0);
        for (i64 e = 0; e < ordered.count; ++e) ++start[ordered.from[e] + 1];
        for (i64 c = 0; c < ordered.Cin; ++c) next[c] = start[c], start[c + 1] += start[c];
        for (i64 e = 0; e < ordered.count; ++e) spikes[next[ordered.from[e]]++] = {ordered.cell[e], ordered.value[e]};
    }
};

template <class X, int P>
void weight_gradient(const int8_t* bytes, const X* gradient, i64 I, i64 H, i64 W, i64 Cin, i64 Cout, float* out) {
    using N = Number<X, P>;
    constexpr i64 columns = P * LANES;
    const Maps maps(H, W, columns);
    const i64 panels = divide_up(Cout, columns), tile = std::clamp<i64>(TILE / maps.size, 1, I), tiles = divide_up(I, tile);
    const i64 groups = std::min(tiles, GROUPS), block = 9 * columns;
    const i64 shares = std::min(panels, divide_up(omp_get_max_threads(), groups));  // each lists the spikes itself
    Aligned<float> sums(groups * panels * Cin * block);
#pragma omp parallel
    {
        Spikes spikes(tile, maps, Cin);
        Channels channels(spikes);
        Aligned<N> gradients(tile * maps.size);  // whose border stays zero
#pragma omp for collapse(2) schedule(dynamic)
        for (i64 group = 0; group < groups; ++group)
            for (i64 share = 0; share < shares; ++share)
                for (i64 one = group * tiles / groups; one < (group + 1) * tiles / groups; ++one) {
                    const i64 first = one * tile, images = std::min(tile, I - first);
                    spikes.fill(bytes + first * H * W * Cin, images, maps);
                    channels.fill(spikes);
                    for (i64 panel = share * panels / shares; panel < (share + 1) * panels / shares; ++panel) {
                        const X* from = gradient + first * H * W * Cout + panel * columns;
                        const i64 width = std::min(columns, Cout - panel * columns);
                        for (i64 i = 0; i < images; ++i)
                            for (i64 y = 0; y < H; ++y)
                                for (i64 x = 0; x < W; ++x, from += Cout) {
                                    N* at = &gradients[maps.cell(i, y + 1) + (x + 1) * columns];
                                    if (width == columns) copy<columns>(from, at);
                                    else for (i64 c = 0; c < width; ++c) copy<1>(from + c, at + c);
                                }
                        float* to = &sums[(group * panels + panel) * Cin * block];
                        for (i64 c = 0; c < Cin; ++c)
                            add<P>(&channels.spikes[channels.start[c]], &channels.spikes[channels.start[c + 1]],
                                   gradients.data(), maps.around, to + c * block, maps.of_tap);
                    }
                }
    }
#pragma omp parallel for collapse(2)
    for (i64 panel = 0; panel < panels; ++panel)
        for (i64 c = 0; c < Cin; ++c)
            for (i64 tap = 0; tap < 9; ++tap)
                for (i64 column = 0; column < std::min(columns, Cout - panel * columns); ++column) {
                    double total = 0;
                    for (i64 group = 0; group < groups; ++group)
                        total += sums[((group * panels + panel) * Cin + c) * block + tap * columns + place<N>(column)];
                    out[((panel * columns + column) * 9 + tap) * Cin + c] = float(0.25 * total);
                }
}

}  // namespace

// -- what is called: every function once for float and once for bfloat16. Arrays are contiguous, channels innermost. -----
// x [T, size] -> bytes [T, size], counts [T], exact; bytes [I, H, W, Cin], weight [Cout, 9, Cin] -> out [I, H, W, Cout];
// bytes, gradient [I, H, W, Cout] -> out [Cout, 9, Cin].

#define FOR_TYPE(NAME, X)                                                                                              \
    extern "C" void NAME##_quarters(const X* x, i64 T, i64 size, int8_t* bytes, i64* counts, bool* exact) {            \
        *exact = quarters(x, T, size, bytes, counts);                                                                  \
    }                                                                                                                  \
    extern "C" void NAME##_sparse_currents(const int8_t* bytes, i64 I, i64 H, i64 W, i64 Cin, i64 Cout,                \
                                           const float* weight, X* out) {                                              \
        (Cout > LANES ? currents<X, WIDE> : currents<X, 1>)(bytes, I, H, W, Cin, Cout, weight, out);                   \
    }                                                                                                                  \
    extern "C" void NAME##_sparse_weight_gradient(const int8_t* bytes, const X* gradient, i64 I, i64 H, i64 W, i64 Cin,\
                                                  i64 Cout, float* out) {                                              \
        (Cout > LANES ? weight_gradient<X, WIDE> : weight_gradient<X, 1>)(bytes, gradient, I, H, W, Cin, Cout, out);   \
    }

FOR_TYPE(float32, float)
FOR_TYPE(bfloat16, bf16)
