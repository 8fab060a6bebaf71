// Vectors of 16 lanes in GCC's and Clang's own terms, float32 and bfloat16 numbers, and what is computed with them.
//
// One source for every machine: only what those vectors cannot say (dot products of pairs and of quads) is written for
// single instruction sets, each beside a general way that gives the same.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
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
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
typedef int8_t Bytes __attribute__((vector_size(LANES), aligned(1)));

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
inline Ints spread(int32_t x) { return Ints{} + x; }
inline Floats as_floats(Words x) {
    Floats f;
    std::memcpy(&f, &x, sizeof f);
    return f;
}
inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline void save(float* p, Floats x) { *reinterpret_cast<Floats*>(p) = x; }
inline Floats load(const bf16* p) {
    return as_floats(__builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16);
}
inline void save(bf16* p, Floats x) {
    Words word;
    std::memcpy(&word, &x, sizeof word);
    Words rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    *reinterpret_cast<Halves*>(p) = __builtin_convertvector(x == x ? rounded : Words{} + 0x7fc0, Halves);
}
// The same of fewer numbers than lanes, at the end of a row; the other lanes are 0.
template <typename T> inline Floats load(const T* p, int count) {
    if (count >= LANES) return load(p);
    alignas(64) float part[LANES] = {};
    for (int i = 0; i < count; i++) part[i] = to_float(p[i]);
    return load(part);
}
template <typename T> inline void save(T* p, Floats x, int count) {
    if (count >= LANES) return save(p, x);
    for (int i = 0; i < count; i++) store(p + i, x[i]);
}

inline float sum(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(__m512(x));
#else
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}
inline int32_t sum(Ints x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32(__m512i(x));
#else
    int32_t total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline float largest_of(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(__m512(x));
#else
    float top = x[0];
    for (int i = 1; i < LANES; i++) top = std::max(top, x[i]);
    return top;
#endif
}

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

inline Floats silu(Floats x) {
    Floats e = exponential(-larger(x, -x));
    return x * ((x < 0.0f ? e : splat(1.0f)) / (1.0f + e));
}

// The integers nearest to x (ties to even), for |x| < 2**22.
inline Ints to_ints(Floats x) {
    Floats shifted = x + 12582912.0f;  // 1.5 * 2**23
    Ints bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return bits - 0x4b400000;
}

// The largest magnitude of a row, or no number where one of them is none.
template <typename T> inline float find_largest(const T* x, int count) {
    Floats top = splat(0.0f), check = splat(0.0f);
    for (int i = 0; i < count; i += LANES) {
        Floats v = load(x + i, count - i);
        top = larger(top, larger(v, -v));
        check += v * 0.0f;
    }
    return sum(check) == 0 ? largest_of(top) : NAN;
}

// Memory that is kept from call to call: fresh pages cost more than what is computed in them. One for each place in the
// code that asks, and for each thread that calls the library.
class Kept {
    void* memory = nullptr;
    size_t size = 0;

  public:
    ~Kept() { std::free(memory); }
    template <typename T> T* take(size_t count) {
        if (count * sizeof(T) > size) {
            std::free(memory);
            size = (count * sizeof(T) + 4095) / 4096 * 4096;
            memory = std::aligned_alloc(4096, size);
        }
        return static_cast<T*>(memory);
    }
};
#define KEPT(type, count)                 \
    ([&]() -> type* {                     \
        static thread_local Kept kept;    \
        return kept.take<type>(count);    \
    }())

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
        return acc + to_float(a[0]) * as_floats(words << 16) + to_float(a[1]) * as_floats(words & 0xffff0000u);
#endif
    }
};

}  // namespace
