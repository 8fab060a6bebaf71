// Vectors of 16 lanes in GCC's and Clang's own terms, float32 and bfloat16 numbers, and what is computed with them.
//
// One source for every machine: only what those vectors cannot say (dot products of pairs and of quads) is written for
// single instruction sets, each beside a general way that gives the same.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <omp.h>
#include <type_traits>

namespace {

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES), aligned(1)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4)));

struct bf16 {
    uint16_t bits;
};

inline float to_float(float x) { return x; }
inline float to_float(bf16 x) {
    uint32_t word = uint32_t(x.bits) << 16;
    float f;
    std::memcpy(&f, &word, 4);
    return f;
}

// Round to nearest, ties to even; a NaN stays one.
inline void store(bf16* to, float x) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    to->bits = std::isnan(x) ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}
inline void store(float* to, float x) { *to = x; }

inline Floats splat(float x) { return Floats{} + x; }
inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline void save(float* p, Floats x) { *reinterpret_cast<Floats*>(p) = x; }

inline float sum(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(__m512(x));
#else
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e**x to 2 units in the last place for x <= 0; below -87 it is 0. Cody and Waite's reduction, Cephes' polynomial.
inline Floats exponential(Floats x) {
    Floats clipped = larger(x, splat(-87.0f));
    Floats shifted = clipped * 1.44269504f + 12582912.0f;  // 1.5 * 2**23: rounds to an integer
    Floats whole = shifted - 12582912.0f;
    Floats r = clipped - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    Ints exponent = __builtin_convertvector(whole, Ints) + 127;
    exponent <<= 23;
    Floats power;
    std::memcpy(&power, &exponent, sizeof power);
    return x < -87.0f ? splat(0.0f) : p * power;
}

// acc += a * b for one (pair of) summed position(s): `a` is one number or pair for all lanes, `b` a vector of them.
template <typename T> struct Pairs;
template <> struct Pairs<float> {
    static constexpr int N = 1;
    static inline Floats madd(Floats acc, const float* a, const float* b) { return acc + *a * load(b); }
};
template <> struct Pairs<bf16> {
    static constexpr int N = 2;
    static inline Floats madd(Floats acc, const bf16* a, const bf16* b) {
        uint32_t pair;
        std::memcpy(&pair, a, 4);
#if defined(__AVX512BF16__)
        __m512i vector = _mm512_loadu_si512(b);
        return Floats(_mm512_dpbf16_ps(__m512(acc), __m512bh(_mm512_set1_epi32(int(pair))), __m512bh(vector)));
#else
        Words words = *reinterpret_cast<const Words*>(b);
        Words low = words << 16, high = words & 0xffff0000u;
        Floats first, second;
        std::memcpy(&first, &low, sizeof first);
        std::memcpy(&second, &high, sizeof second);
        return acc + to_float(a[0]) * first + to_float(a[1]) * second;
#endif
    }
};

}  // namespace
