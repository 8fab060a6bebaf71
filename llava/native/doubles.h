// Vectors of floats whose halves are doubles, for sums that need more than float32.

#pragma once

#include "vectors.h"

namespace {

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

}  // namespace
