// Numbers in memory, float or bfloat16, which are float in registers. V is a vector of floats, or a single one.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
using f32 = float __attribute__((vector_size(4 * LANES)));  // the widest vector of this processor
using i32 = int32_t __attribute__((vector_size(4 * LANES)));

using i64 = int64_t;

inline i64 divide_up(i64 a, i64 b) { return (a + b - 1) / b; }

struct bf16 {
    uint16_t bits;
};

template <class V> constexpr int LANES_OF = sizeof(V) / sizeof(float);
template <int COUNT> struct Words {  // as many of 16 and of 32 bits
    typedef uint16_t u16 __attribute__((vector_size(2 * COUNT)));
    typedef uint32_t u32 __attribute__((vector_size(4 * COUNT)));
};

template <class V> inline V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V> inline void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

inline float value(const float* p) { return *p; }
inline float value(const bf16* p) {
    const uint32_t wide = uint32_t(p->bits) << 16;
    float v;
    std::memcpy(&v, &wide, sizeof v);
    return v;
}

template <class V> inline V load(const bf16* p) {
    if constexpr (LANES_OF<V> == 1) return value(p);
    else {
#if defined(__AVX512F__)  // left to the compiler, it takes five instructions
        if constexpr (LANES_OF<V> == 16)
            return (V)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16);
#endif
        using W = Words<LANES_OF<V>>;
        typename W::u16 narrow;
        std::memcpy(&narrow, p, sizeof narrow);
        return (V)(__builtin_convertvector(narrow, typename W::u32) << 16);
    }
}

// Round to nearest even; what is not a number stays so.
template <class V> inline void store(bf16* p, V v) {
    if constexpr (LANES_OF<V> == 1) {
        uint32_t w;
        std::memcpy(&w, &v, sizeof w);
        p->bits = v != v ? 0x7fc0 : uint16_t((w + 0x7fff + ((w >> 16) & 1)) >> 16);
    } else {
#if defined(__AVX512BF16__)
        if constexpr (LANES_OF<V> == 16) {
            const __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);  // numbers below 2 ** -126 become zero
            std::memcpy(p, &narrow, sizeof narrow);
            return;
        }
#endif
        using W = Words<LANES_OF<V>>;
        typename W::u32 w = (typename W::u32)v;
        w = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
        w = v != v ? typename W::u32{} + 0x7fc0 : w;
        const auto narrow = __builtin_convertvector(w, typename W::u16);
        std::memcpy(p, &narrow, sizeof narrow);
    }
}

// Numbers that have no digits to round, as spikes and their averages.
template <class V> inline void store_exact(float* p, V v) { store(p, v); }
template <class V> inline void store_exact(bf16* p, V v) {
    if constexpr (LANES_OF<V> == 1) store(p, v);
    else {
        using W = Words<LANES_OF<V>>;
        const auto narrow = __builtin_convertvector((typename W::u32)v >> 16, typename W::u16);
        std::memcpy(p, &narrow, sizeof narrow);
    }
}
