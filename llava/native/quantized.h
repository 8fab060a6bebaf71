// Quantized weight matrices: their layout, quantization and dequantization.
//
// A dense matrix is [out][in] row by row, as torch has it. In 8 or 4 bits it consists of strips of 16 rows ("lanes"). A
// vector of 64 bytes holds 4 numbers of each lane, which is what one VNNI instruction multiplies:
//
//     8 bits   [strip][in / 4][16 lanes][4]    unsigned, weight = scale[row] * (byte - 128)
//     4 bits   [strip][in / 8][16 lanes][4]    low nibble: the first 4 of 8 numbers, high nibble: the last 4
//                                              weight = scale[strip][in / 32][lane] * (nibble - 8), scale bfloat16
//
// `in` is padded to a multiple of 32 and `out` to one of 16.

#pragma once

#include "abi.h"
#include "vectors.h"

namespace {

constexpr int GROUP = 32;             // numbers that share a scale in 4 bits
constexpr int PREFETCH_BYTES = 2048;  // how far ahead weights are prefetched: the hardware's own stops at each page

inline int round_up(int n, int to) { return (n + to - 1) / to * to; }


// x[GROUP][lane] = numbers k, k + 1 ... of a strip's 16 rows, zero in the padding.
template <typename T> void load_group(const T* weight, int rows, int columns, int first, int k, float* x) {
    const int count = std::min(GROUP, columns - k);
    for (int lane = 0; lane < LANES; lane++) {
        const T* row = weight + long(first + lane) * columns + k;
        for (int i = 0; i < GROUP; i++) x[i * LANES + lane] = first + lane < rows && i < count ? to_float(row[i]) : 0;
    }
}

// For each lane the scale, among a few candidates, with the least squared error. It is a bfloat16, and the error
// includes its rounding.
inline Floats choose_scales(const float* x) {
    static const float STEPS[] = {8, 7, 7.5f, 6.5f, 8.5f, 6};
    Floats largest = broadcast(0.0f), best = broadcast(0.0f), least = broadcast(INFINITY);
    for (int k = 0; k < GROUP; k++) {
        Floats v = load(x + k * LANES);
        largest = max(v, -v) > max(largest, -largest) ? v : largest;
    }
    for (float step : STEPS)
        for (float sign : {-1.0f, 1.0f}) {
            bf16 rounded[LANES];
            store(rounded, sign * largest / step);
            const Floats scale = load(rounded), inverse = scale != 0.0f ? 1.0f / scale : broadcast(0.0f);
            Floats error = broadcast(0.0f);
            for (int k = 0; k < GROUP; k++) {
                Floats v = load(x + k * LANES), q = v * inverse + 12582912.0f - 12582912.0f;
                q = q < -8.0f ? broadcast(-8.0f) : q;
                q = q > 7.0f ? broadcast(7.0f) : q;
                error += (v - q * scale) * (v - q * scale);
            }
            best = error < least ? scale : best;
            least = error < least ? error : least;
        }
    return best;
}

template <typename T>
void quantize_strip_int8(const T* weight, int rows, int columns, int first, uint8_t* strip, float* scales) {
    float x[GROUP * LANES], largest[LANES] = {};
    for (int lane = 0; lane < std::min(LANES, rows - first); lane++)
        for (int k = 0; k < columns; k += LANES) {
            Floats v = load(weight + long(first + lane) * columns + k, columns - k);
            largest[lane] = std::max(largest[lane], reduce_max(max(v, -v)));
        }
    const Floats top = load(largest), inverse = top > 0.0f ? 127.0f / top : broadcast(0.0f);
    store(scales, top / 127.0f);
    for (int k = 0; k < columns; k += GROUP) {
        load_group(weight, rows, columns, first, k, x);
        for (int i = 0; i < GROUP; i += 4, strip += 64) {
            Ints word = broadcast(0);
            for (int j = 0; j < 4; j++) word |= (round_to_int(load(x + (i + j) * LANES) * inverse) + 128) << (8 * j);
            *reinterpret_cast<Ints*>(strip) = word;
        }
    }
}

template <typename T>
void quantize_strip_int4(const T* weight, int rows, int columns, int first, uint8_t* strip, bf16* scales) {
    float x[GROUP * LANES];
    for (int k = 0; k < columns; k += GROUP, scales += LANES) {
        load_group(weight, rows, columns, first, k, x);
        const Floats scale = choose_scales(x), inverse = scale != 0.0f ? 1.0f / scale : broadcast(0.0f);
        store(scales, scale);
        for (int i = 0; i < GROUP; i += 8, strip += 64) {
            Ints word = broadcast(0);
            for (int j = 0; j < 8; j++) {
                Ints q = round_to_int(load(x + (i + j) * LANES) * inverse);
                q = q < -8 ? broadcast(-8) : q;
                q = q > 7 ? broadcast(7) : q;
                word |= (q + 8) << (j % 4 * 8 + j / 4 * 4);
            }
            *reinterpret_cast<Ints*>(strip) = word;
        }
    }
}

template <typename T>
void quantize(int bits, const T* weight, int rows, int columns, uint8_t* data, void* scales, int num_threads) {
    const int width = round_up(columns, GROUP), strips = round_up(rows, LANES) / LANES;
    const long strip_bytes = long(width) * LANES * bits / 8;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int s = 0; s < strips; s++) {
        uint8_t* strip = data + s * strip_bytes;
        if (bits == 8)
            quantize_strip_int8(weight, rows, columns, s * LANES, strip, static_cast<float*>(scales) + s * LANES);
        else
            quantize_strip_int4(weight, rows, columns, s * LANES, strip,
                  static_cast<bf16*>(scales) + long(s) * (width / GROUP) * LANES);
    }
}

// 8 numbers, from k on (a multiple of 8), of a lane of a strip, as the unsigned bytes that are stored.
typedef uint8_t EightBytes __attribute__((vector_size(8)));
inline EightBytes load_eight(const uint8_t* strip, int bits, int k, int lane) {
    uint32_t words[2];
    if (bits == 8) {
        std::memcpy(words, strip + long(k) * LANES + lane * 4, 4);
        std::memcpy(words + 1, strip + long(k + 4) * LANES + lane * 4, 4);
    } else {
        std::memcpy(words + 1, strip + long(k) * LANES / 2 + lane * 4, 4);
        words[0] = words[1] & 0x0f0f0f0f, words[1] = words[1] >> 4 & 0x0f0f0f0f;
    }
    EightBytes bytes;
    std::memcpy(&bytes, words, sizeof bytes);
    return bytes;
}

typedef float EightFloats __attribute__((vector_size(32), aligned(4)));
typedef int32_t EightInts __attribute__((vector_size(32)));
inline void store_eight(float* to, EightFloats x) { *reinterpret_cast<EightFloats*>(to) = x; }
inline void store_eight(bf16* to, EightFloats x) {  // of finite numbers
    typedef uint32_t Words __attribute__((vector_size(32)));
    typedef uint16_t Halves __attribute__((vector_size(16), aligned(2)));
    Words word;
    std::memcpy(&word, &x, sizeof word);
    *reinterpret_cast<Halves*>(to) = __builtin_convertvector((word + 0x7fff + ((word >> 16) & 1)) >> 16, Halves);
}

// to [count] = numbers k to k + count (at most GROUP) of a lane of a strip.
template <int BITS, typename T>
inline void dequantize_group(const uint8_t* strip, int k, int lane, float scale, int count, T* to) {
    for (int i = 0; i < count; i += 8) {
        const EightInts q = __builtin_convertvector(load_eight(strip, BITS, k + i, lane), EightInts);
        const EightFloats x = __builtin_convertvector(q - (BITS == 8 ? 128 : 8), EightFloats) * scale;
        if (i + 8 <= count) {
            store_eight(to + i, x);
        } else {
            for (int j = 0; i + j < count; j++) store(to + i + j, x[j]);
        }
    }
}

template <int BITS, typename T> void dequantize_strip(const Matrix& w, int strip, T* out) {
    const int groups = round_up(w.columns, GROUP) / GROUP;
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + long(strip) * groups * GROUP * LANES * BITS / 8;
    for (int g = 0; g < groups; g++)
        for (int lane = 0; lane < std::min(LANES, w.rows - strip * LANES); lane++) {
            const float scale = BITS == 8 ? static_cast<const float*>(w.scales)[strip * LANES + lane]
                                          : to_float(static_cast<const bf16*>(
                                                w.scales)[(long(strip) * groups + g) * LANES + lane]);
            dequantize_group<BITS>(data, g * GROUP, lane, scale, std::min(GROUP, w.columns - g * GROUP),
                                   out + (long(strip) * LANES + lane) * w.columns + g * GROUP);
        }
}

// out [rows][columns] = the numbers of a quantized matrix.
template <typename T> void dequantize(const Matrix& w, T* out, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int strip = 0; strip < round_up(w.rows, LANES) / LANES; strip++)
        w.bits == 8 ? dequantize_strip<8>(w, strip, out) : dequantize_strip<4>(w, strip, out);
}

}  // namespace
