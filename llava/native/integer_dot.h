// Dot products of bytes of weights with rows of integers, in vectors as wide as a register (compilers keep wider ones
// in memory). All sums are exact, and equal on every machine.
//
// A vector of weights holds 4 bytes for each lane. VNNI multiplies them with 4 signed bytes of a row; the 16 bits of a
// wide row's number are then two of them, 256 * high + low. Without VNNI the bytes are widened to 16 bits, and pairs of
// numbers are multiplied: the first and third of 4, then the second and fourth.

#pragma once

#include "vectors.h"

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define HAS_VNNI 1
#else
#define HAS_VNNI 0
#endif

namespace {

#if defined(__AVX512BW__)
constexpr int INT_LANES = 16;
#elif defined(__AVX2__)
constexpr int INT_LANES = 8;
#else
constexpr int INT_LANES = 4;
#endif
constexpr int INT_PIECES = LANES / INT_LANES;  // registers that hold a number for each of 16 lanes
typedef int32_t RegisterInts __attribute__((vector_size(4 * INT_LANES), aligned(1)));
typedef uint16_t RegisterShorts __attribute__((vector_size(4 * INT_LANES), aligned(1)));
typedef float IntLaneFloats __attribute__((vector_size(4 * INT_LANES), aligned(4)));

inline RegisterInts load_ints(const void* p) { return *reinterpret_cast<const RegisterInts*>(p); }
inline void store_ints(int32_t* p, RegisterInts x) { *reinterpret_cast<RegisterInts*>(p) = x; }
inline RegisterInts broadcast_word(const void* p) {
    int32_t word;
    std::memcpy(&word, p, 4);
    return RegisterInts{} + word;
}

#if HAS_VNNI

// acc + the dot product of 4 bytes in each lane, unsigned in `a` and signed in `b`.
inline RegisterInts dot_u8s8(RegisterInts acc, RegisterInts a, RegisterInts b) {
#if defined(__AVX512VNNI__)
    return RegisterInts(_mm512_dpbusd_epi32(__m512i(acc), __m512i(a), __m512i(b)));
#else
    return RegisterInts(_mm256_dpbusd_avx_epi32(__m256i(acc), __m256i(a), __m256i(b)));
#endif
}

// A vector of weights as it is multiplied.
struct Weights {
    RegisterInts bytes;
};
inline Weights unpack(RegisterInts bytes) { return {bytes}; }
inline Weights unpack_low_nibbles(RegisterInts bytes) { return {bytes & 0x0f0f0f0f}; }
inline Weights unpack_high_nibbles(RegisterInts bytes) { return {(bytes >> 4) & 0x0f0f0f0f}; }

// 4 numbers of a wide row are two words, and those of a narrow row one. So many bytes further on are the next 4.
constexpr int WIDE_STEP = 4, NARROW_STEP = 4, NARROW_WORDS = 1;
inline int word_offset(int word, int width) { return word * width; }

// Writes numbers k to k + 15 of a wide row [2 * width bytes].
inline void store_wide(int8_t* row, int width, int k, Ints x) {
    const Ints low = x << 24 >> 24;
    *reinterpret_cast<Bytes*>(row + k) = __builtin_convertvector((x - low) >> 8, Bytes);
    *reinterpret_cast<Bytes*>(row + width + k) = __builtin_convertvector(low, Bytes);
}
// Writes 4 numbers of a narrow row.
inline void store_narrow(int8_t* to, const int32_t* x) {
    for (int i = 0; i < 4; i++) to[i] = int8_t(x[i]);
}

// A sum of products with a wide row: 2**SHIFT * high + low.
struct WideSum {
    static constexpr int SHIFT = 8, MAX_STEPS = 1 << 20;
    RegisterInts parts[2];
    void add(const Weights& w, int word, RegisterInts numbers) {
        parts[word] = dot_u8s8(parts[word], w.bytes, numbers);
    }
    RegisterInts high() const { return parts[0]; }
    RegisterInts low() const { return parts[1]; }
    RegisterInts value() const { return (parts[0] << SHIFT) + parts[1]; }
};
inline RegisterInts add_narrow(RegisterInts acc, const Weights& w, int, RegisterInts numbers) {
    return dot_u8s8(acc, w.bytes, numbers);
}

#else

// In each lane the product of the first of two signed numbers of 16 bits plus that of the second.
inline RegisterInts dot_pairs(RegisterShorts a, RegisterInts b) {
#if defined(__AVX512BW__)
    return RegisterInts(_mm512_madd_epi16(__m512i(a), __m512i(b)));
#elif defined(__AVX2__)
    return RegisterInts(_mm256_madd_epi16(__m256i(a), __m256i(b)));
#elif defined(__SSE2__)
    return RegisterInts(_mm_madd_epi16(__m128i(a), __m128i(b)));
#else
    const RegisterInts x = RegisterInts(a);
    return ((x << 16) >> 16) * ((b << 16) >> 16) + (x >> 16) * (b >> 16);
#endif
}

// A vector of weights as it is multiplied: bytes 0 and 2 of each lane, and bytes 1 and 3.
struct Weights {
    RegisterShorts pairs[2];
};
inline Weights unpack(RegisterInts bytes) { return {{RegisterShorts(bytes) & 255, RegisterShorts(bytes) >> 8}}; }
inline Weights unpack_low_nibbles(RegisterInts bytes) {
    return {{RegisterShorts(bytes) & 15, RegisterShorts(bytes) >> 8 & 15}};
}
inline Weights unpack_high_nibbles(RegisterInts bytes) {
    return {{RegisterShorts(bytes) >> 4 & 15, RegisterShorts(bytes) >> 12}};
}

// 4 numbers of a row are two words. So many bytes further on are the next 4.
constexpr int WIDE_STEP = 8, NARROW_STEP = 8, NARROW_WORDS = 2;
inline int word_offset(int word, int) { return word * 4; }

// Writes 4 numbers of a narrow row, in the order of Weights.
inline void store_narrow(int8_t* to, const int32_t* x) {
    const int16_t numbers[] = {int16_t(x[0]), int16_t(x[2]), int16_t(x[1]), int16_t(x[3])};
    std::memcpy(to, numbers, sizeof numbers);
}
// Writes numbers k to k + 15 of a wide row [2 * width bytes].
inline void store_wide(int8_t* row, int, int k, Ints x) {
    int32_t numbers[LANES];
    std::memcpy(numbers, &x, sizeof x);
    for (int i = 0; i < LANES; i += 4) store_narrow(row + 2 * (k + i), numbers + i);
}

inline RegisterInts add_narrow(RegisterInts acc, const Weights& w, int word, RegisterInts numbers) {
    return acc + dot_pairs(w.pairs[word], numbers);
}

// A sum of products with a wide row: 2**SHIFT * high + low. MAX_STEPS times 4 products of 255 and 32512 fit into 31
// bits.
struct WideSum {
    static constexpr int SHIFT = 16, MAX_STEPS = 64;
    RegisterInts sum;
    void add(const Weights& w, int word, RegisterInts numbers) { sum = add_narrow(sum, w, word, numbers); }
    RegisterInts high() const { return sum >> SHIFT; }
    RegisterInts low() const { return sum & 0xffff; }
    RegisterInts value() const { return sum; }
};

#endif

// sums[ROWS][pieces] += 4 numbers of ROWS wide rows, which begin at `numbers`, times a vector of weights. Numbers of a
// row are loaded once for all pieces.
template <int ROWS>
inline void add_products(WideSum (&sums)[ROWS][INT_PIECES], const Weights (&w)[INT_PIECES], const int8_t* numbers,
                         int width) {
#pragma GCC unroll 2
    for (int word = 0; word < 2; word++)
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const RegisterInts x = broadcast_word(numbers + long(r) * 2 * width + word_offset(word, width));
#pragma GCC unroll 4
            for (int p = 0; p < INT_PIECES; p++) sums[r][p].add(w[p], word, x);
        }
}

}  // namespace
