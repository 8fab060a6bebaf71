// Vectors of 16 lanes through GCC's and Clang's vector extension, for float32 and bfloat16.
//
// One source serves every machine. Only what the extension cannot express (bfloat16 and VNNI dot products, reductions)
// uses intrinsics, each beside a portable version.

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
typedef uint32_t UInts __attribute__((vector_size(4 * LANES), aligned(1)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint16_t UShorts __attribute__((vector_size(2 * LANES), aligned(2)));
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

// Rounds to nearest even; a NaN stays a NaN.
inline void store(bf16* to, float x) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    to->bits = std::isnan(x) ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}
inline void store(float* to, float x) { *to = x; }

inline Floats broadcast(float x) { return Floats{} + x; }
inline Ints broadcast(int32_t x) { return Ints{} + x; }
inline Floats as_floats(UInts x) {
    Floats f;
    std::memcpy(&f, &x, sizeof f);
    return f;
}
inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline void store(float* p, Floats x) { *reinterpret_cast<Floats*>(p) = x; }
inline Floats load(const bf16* p) {
    return as_floats(__builtin_convertvector(*reinterpret_cast<const UShorts*>(p), UInts) << 16);
}
inline void store(bf16* p, Floats x) {
    UInts word;
    std::memcpy(&word, &x, sizeof word);
    UInts rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    *reinterpret_cast<UShorts*>(p) = __builtin_convertvector(x == x ? rounded : UInts{} + 0x7fc0, UShorts);
}
// The tail of a row, fewer numbers than lanes: loads fill the other lanes with 0.
template <typename T> inline Floats load(const T* p, int count) {
    if (count >= LANES) return load(p);
    alignas(64) float part[LANES] = {};
    for (int i = 0; i < count; i++) part[i] = to_float(p[i]);
    return load(part);
}
template <typename T> inline void store(T* p, Floats x, int count) {
    if (count >= LANES) return store(p, x);
    for (int i = 0; i < count; i++) store(p + i, x[i]);
}

// The widest vector of floats that a register holds.
#if defined(__AVX__)
constexpr int NARROW_LANES = 8;
#else
constexpr int NARROW_LANES = 4;
#endif
typedef float NarrowFloats __attribute__((vector_size(4 * NARROW_LANES), aligned(4)));
inline NarrowFloats load_narrow(const float* p) { return *reinterpret_cast<const NarrowFloats*>(p); }
inline void store_narrow(float* p, NarrowFloats x) { *reinterpret_cast<NarrowFloats*>(p) = x; }

// Its halves as doubles, and back.
typedef float HalfFloats __attribute__((vector_size(2 * NARROW_LANES), aligned(4)));
typedef double Doubles __attribute__((vector_size(4 * NARROW_LANES), aligned(8)));

// GCC's own conversions take two steps where AVX has one.
#if defined(__AVX__)
inline Doubles widen(const float* from) { return Doubles(_mm256_cvtps_pd(_mm_loadu_ps(from))); }
inline Doubles widen_low(NarrowFloats x) { return Doubles(_mm256_cvtps_pd(_mm256_castps256_ps128(__m256(x)))); }
inline Doubles widen_high(NarrowFloats x) { return Doubles(_mm256_cvtps_pd(_mm256_extractf128_ps(__m256(x), 1))); }
inline NarrowFloats narrow(Doubles low, Doubles high) {
    return NarrowFloats(_mm256_set_m128(_mm256_cvtpd_ps(__m256d(high)), _mm256_cvtpd_ps(__m256d(low))));
}
#else
inline Doubles widen(const float* from) {
    return __builtin_convertvector(*reinterpret_cast<const HalfFloats*>(from), Doubles);
}
inline Doubles widen_low(NarrowFloats x) { return widen(reinterpret_cast<const float*>(&x)); }
inline Doubles widen_high(NarrowFloats x) { return widen(reinterpret_cast<const float*>(&x) + NARROW_LANES / 2); }
inline NarrowFloats narrow(Doubles low, Doubles high) {
    HalfFloats halves[] = {__builtin_convertvector(low, HalfFloats), __builtin_convertvector(high, HalfFloats)};
    return load_narrow(reinterpret_cast<const float*>(halves));
}
#endif

// Bit i is set where lane i of a comparison is true.
inline uint32_t bits_of(decltype(NarrowFloats{} < NarrowFloats{}) lanes) {
#if defined(__AVX__)
    return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(__m256i(lanes))));
#else
    uint32_t bits = 0;
    for (int i = 0; i < NARROW_LANES; i++) bits |= uint32_t(lanes[i] & 1) << i;
    return bits;
#endif
}

inline float reduce_sum(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(__m512(x));
#else
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}
inline int32_t reduce_sum(Ints x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32(__m512i(x));
#else
    int32_t total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}
inline Floats max(Floats a, Floats b) { return a > b ? a : b; }
inline float reduce_max(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(__m512(x));
#else
    float top = x[0];
    for (int i = 1; i < LANES; i++) top = std::max(top, x[i]);
    return top;
#endif
}

// e**x for x <= 0 within 2 ULP; 0 below -87. Source: Cephes' expf (Cody-Waite range reduction, degree-5 polynomial).
template <typename V> inline V exp_nonpositive(V x) {
    V clipped = x > -87.0f ? x : V{} - 87.0f;
    V shifted = clipped * 1.44269504f + 12582912.0f;  // 1.5 * 2**23: rounds to an integer
    V whole = shifted - 12582912.0f;
    V r = clipped - whole * 0.693359375f + whole * 2.12194440e-4f;
    V p = V{} + 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    auto exponent = __builtin_convertvector(whole, decltype(x < x)) + 127;
    exponent <<= 23;
    V power;
    std::memcpy(&power, &exponent, sizeof power);
    return x < -87.0f ? V{} : p * power;
}

inline Floats silu(Floats x) {
    Floats e = exp_nonpositive(-max(x, -x));
    return x * ((x < 0.0f ? e : broadcast(1.0f)) / (1.0f + e));
}

// Rounds to the nearest integer, ties to even, for |x| < 2**22.
inline Ints round_to_int(Floats x) {
    Floats shifted = x + 12582912.0f;  // 1.5 * 2**23
    Ints bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return bits - 0x4b400000;
}

// The largest magnitude of a row; NaN where the row holds a NaN or an infinity.
template <typename T> inline float max_abs(const T* x, int count) {
    Floats top = broadcast(0.0f), check = broadcast(0.0f);
    for (int i = 0; i < count; i += LANES) {
        Floats v = load(x + i, count - i);
        top = max(top, max(v, -v));
        check += v * 0.0f;
    }
    return reduce_sum(check) == 0 ? reduce_max(top) : NAN;
}

// One step of a dot product in each lane, over DEPTH neighbours of the summed dimension: `a` holds DEPTH numbers for
// all lanes, `b` DEPTH numbers for each lane.
template <typename T> struct DotStep;
template <> struct DotStep<float> {
    static constexpr int DEPTH = 1;
    static inline Floats fma(Floats acc, const float* a, const float* b) { return acc + *a * load(b); }
};
template <> struct DotStep<bf16> {
    static constexpr int DEPTH = 2;
    static inline Floats fma(Floats acc, const bf16* a, const bf16* b) {
        uint32_t pair;
        std::memcpy(&pair, a, 4);
#if defined(__AVX512BF16__)
        __m512i vector = _mm512_loadu_si512(b);
        return Floats(_mm512_dpbf16_ps(__m512(acc), __m512bh(_mm512_set1_epi32(int(pair))), __m512bh(vector)));
#else
        UInts words = *reinterpret_cast<const UInts*>(b);
        return acc + to_float(a[0]) * as_floats(words << 16) + to_float(a[1]) * as_floats(words & 0xffff0000u);
#endif
    }
};

}  // namespace
