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
    UInts word, is_nan;
    std::memcpy(&word, &x, sizeof word);
    is_nan = UInts(x != x);
    UInts rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    *reinterpret_cast<UShorts*>(p) = __builtin_convertvector((rounded & ~is_nan) | (is_nan & 0x7fc0), UShorts);
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

// The widest vector of floats that a register holds. Compilers compare and select wider ones lane by lane, and keep
// them in memory, so whatever takes long is done in pieces of this width.
#if defined(__AVX512F__)
constexpr int REGISTER_LANES = 16;
#elif defined(__AVX__)
constexpr int REGISTER_LANES = 8;
#else
constexpr int REGISTER_LANES = 4;
#endif
constexpr int PIECES = LANES / REGISTER_LANES;
typedef float RegisterFloats __attribute__((vector_size(4 * REGISTER_LANES), aligned(4)));
inline RegisterFloats load_register(const float* p) { return *reinterpret_cast<const RegisterFloats*>(p); }
inline void store_register(float* p, RegisterFloats x) { *reinterpret_cast<RegisterFloats*>(p) = x; }

typedef uint32_t RegisterUInts __attribute__((vector_size(4 * REGISTER_LANES), aligned(4), may_alias));
typedef uint16_t RegisterUShorts __attribute__((vector_size(2 * REGISTER_LANES), aligned(2)));
inline RegisterFloats load_register(const bf16* p) {
    const RegisterUShorts halves = *reinterpret_cast<const RegisterUShorts*>(p);
    const RegisterUInts words = __builtin_convertvector(halves, RegisterUInts) << 16;
    RegisterFloats x;
    std::memcpy(&x, &words, sizeof x);
    return x;
}
inline void store_register(bf16* p, RegisterFloats x) {
    RegisterUInts word;
    std::memcpy(&word, &x, sizeof word);
    const RegisterUInts is_nan = RegisterUInts(x != x), rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    const RegisterUInts bits = (rounded & ~is_nan) | (is_nan & 0x7fc0);
    *reinterpret_cast<RegisterUShorts*>(p) = __builtin_convertvector(bits, RegisterUShorts);
}
// The same for the tail of a row: loads fill the other lanes with 0.
template <typename T> inline RegisterFloats load_register(const T* p, int count) {
    if (count >= REGISTER_LANES) return load_register(p);
    RegisterFloats x = {};
    for (int i = 0; i < count; i++) x[i] = to_float(p[i]);
    return x;
}
template <typename T> inline void store_register(T* p, RegisterFloats x, int count) {
    if (count >= REGISTER_LANES) return store_register(p, x);
    for (int i = 0; i < count; i++) store(p + i, x[i]);
}

// 16 lanes as registers.
struct Pieces {
    RegisterFloats of[PIECES];
};
inline Pieces split(Floats x) {
    Pieces pieces;
    std::memcpy(&pieces, &x, sizeof x);
    return pieces;
}
inline Floats join(const Pieces& pieces) {
    Floats x;
    std::memcpy(&x, &pieces, sizeof x);
    return x;
}
// f of each register of x.
template <typename F> inline Floats map_pieces(Floats x, F f) {
    Pieces pieces = split(x);
    for (RegisterFloats& piece : pieces.of) piece = f(piece);
    return join(pieces);
}

template <typename V> inline V max(V a, V b) { return a > b ? a : b; }
inline Floats max(Floats a, Floats b) {
    Pieces x = split(a), y = split(b);
    for (int p = 0; p < PIECES; p++) x.of[p] = max<RegisterFloats>(x.of[p], y.of[p]);
    return join(x);
}
// `combine` over all lanes: over the halves, then theirs, in the order of AVX-512's reductions.
template <typename F> inline float reduce(const Pieces& x, F combine) {
    RegisterFloats whole = x.of[0];
    if constexpr (PIECES == 2) whole = combine(x.of[0], x.of[1]);
    if constexpr (PIECES == 4) whole = combine(combine(x.of[0], x.of[2]), combine(x.of[1], x.of[3]));
    typedef float Four __attribute__((vector_size(16)));
    Four parts[REGISTER_LANES / 4];
    std::memcpy(parts, &whole, sizeof whole);
    if constexpr (REGISTER_LANES == 16) parts[0] = combine(parts[0], parts[2]), parts[1] = combine(parts[1], parts[3]);
    if constexpr (REGISTER_LANES > 4) parts[0] = combine(parts[0], parts[1]);
    const Four last = parts[0];
    return combine(combine(last[0], last[2]), combine(last[1], last[3]));
}
inline float reduce_sum(const Pieces& x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(__m512(x.of[0]));
#else
    return reduce(x, [](auto a, auto b) { return a + b; });
#endif
}
inline float reduce_max(const Pieces& x) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(__m512(x.of[0]));
#else
    return reduce(x, [](auto a, auto b) { return a > b ? a : b; });
#endif
}
inline float reduce_sum(Floats x) { return reduce_sum(split(x)); }
inline float reduce_max(Floats x) { return reduce_max(split(x)); }
inline int32_t reduce_sum(Ints x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_epi32(__m512i(x));
#else
    int32_t total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}

// e**x for x <= 0 within 2 ULP; 0 below -87. Source: Cephes' expf (Cody-Waite range reduction, degree-5 polynomial).
template <typename V> inline V exp_nonpositive(V x) {
    typedef decltype(x < x) Integers;
    V clipped = max<V>(x, V{} - 87.0f);
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
    Integers exponent = __builtin_convertvector(whole, Integers) + 127;
    exponent <<= 23;
    V power;
    std::memcpy(&power, &exponent, sizeof power);
    return x < -87.0f ? V{} : p * power;
}

template <typename V> inline V silu(V x) {
    V e = exp_nonpositive<V>(-max<V>(x, -x));
    return x * ((x < 0.0f ? e : V{} + 1.0f) / (1.0f + e));
}
inline Floats silu_pieces(Floats x) {
    return map_pieces(x, [](RegisterFloats piece) { return silu<RegisterFloats>(piece); });
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
