// Matrices in three forms, and products of a few or of many rows with them.
//
// Dense: [out][in] row by row, as torch has them. Packed in 8 or 4 bits: strips of 16 rows ("lanes"), in which a vector
// of 64 bytes holds what is multiplied together:
//
//     8 bits   [strip][in / 4][16 lanes][4]    unsigned, weight = scale[row] * (byte - 128)
//     4 bits   [strip][in / 8][16 lanes][4]    low half: the first 4 of 8 numbers, high half: the last 4
//                                              weight = scale[strip][in / 32][lane] * (half - 8), scale bfloat16
//
// `in` is padded to a multiple of 32 and `out` to one of 16. Rows that are multiplied with packed weights are integers
// of 16 bits under one scale each (an error of 2**-15 of the largest), in two bytes: x = 256 * high + low, both signed.
// So the sums are exact, and the same on every machine.

#pragma once

#include "vectors.h"

extern "C" {

struct Matrix {
    int32_t bits;  // 32 or 16 is dense, of the kind that the caller computes in; 8 and 4 are packed
    int32_t rows, columns;
    const void* data;
    const void* scales;  // 8 bits: float32 [strips][16]; 4 bits: bfloat16 [strips][columns / 32][16]
};
}

namespace {

constexpr int AHEAD = 2048;  // bytes that are asked for early: the hardware stops at the end of every page
constexpr int GROUP = 32;    // numbers that share a scale in 4 bits
constexpr int WIDEST = 256;  // numbers of the summed dimension that many-row products take together

inline int padded(int n, int to) { return (n + to - 1) / to * to; }

inline Ints load_ints(const void* p) { return *reinterpret_cast<const Ints*>(p); }
inline Ints spread(int32_t x) { return Ints{} + x; }
inline int32_t read_quad(const int8_t* p) {
    int32_t quad;
    std::memcpy(&quad, p, 4);
    return quad;
}

// acc + the sums over 4 bytes in each lane: unsigned bytes of `a` times signed ones of `b`.
inline Ints dot_quads(Ints acc, Ints a, Ints b) {
#if defined(__AVX512VNNI__)
    return Ints(_mm512_dpbusd_epi32(__m512i(acc), __m512i(a), __m512i(b)));
#elif defined(__AVXVNNI__)
    __m256i part[2], x[2], y[2];
    std::memcpy(part, &acc, sizeof part), std::memcpy(x, &a, sizeof x), std::memcpy(y, &b, sizeof y);
    for (int i = 0; i < 2; i++) part[i] = _mm256_dpbusd_avx_epi32(part[i], x[i], y[i]);
    std::memcpy(&acc, part, sizeof part);
    return acc;
#else
    for (int shift = 0; shift < 32; shift += 8) acc += ((a >> shift) & 255) * ((b << (24 - shift)) >> 24);
    return acc;
#endif
}

inline Floats load_scales(const bf16* p) {
    typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2)));
    Words words = __builtin_convertvector(*reinterpret_cast<const Halves*>(p), Words) << 16;
    Floats f;
    std::memcpy(&f, &words, sizeof f);
    return f;
}

// Rows as integers of 16 bits: `high` and `low` [rows][padded], `sums` [rows][padded / GROUP], `scale` [rows].
struct Quantized {
    int width;
    int8_t *high, *low;
    int32_t* sums;
    float* scale;
    explicit Quantized(int rows, int columns) : width(padded(columns, GROUP)) {
        high = new int8_t[size_t(rows) * width + 64]();
        low = new int8_t[size_t(rows) * width + 64]();
        sums = new int32_t[size_t(rows) * (width / GROUP)]();
        scale = new float[rows]();
    }
    ~Quantized() { delete[] high, delete[] low, delete[] sums, delete[] scale; }
    Quantized(const Quantized&) = delete;
    Quantized& operator=(const Quantized&) = delete;

    void set(int row, const float* x, int columns) {
        Floats top = splat(0.0f);
        int i = 0;
        for (; i + LANES <= columns; i += LANES) {
            Floats v = load(x + i);
            top = larger(top, larger(v, -v));
        }
        float largest = 0;
        for (int l = 0; l < LANES; l++) largest = std::max(largest, top[l]);
        bool is_number = sum(top) - sum(top) == 0;
        for (; i < columns; i++) largest = std::max(largest, std::abs(x[i])), is_number &= x[i] - x[i] == 0;
        // What is no number must not become one: it goes on to the scores, where it is found.
        for (i = 0; is_number && i < columns; i++) is_number = x[i] == x[i];
        scale[row] = is_number ? largest / 32512 : NAN;
        float inverse = largest > 0 && is_number ? 32512 / largest : 0;
        int8_t *h = high + size_t(row) * width, *l = low + size_t(row) * width;
        int32_t* s = sums + size_t(row) * (width / GROUP);
        for (int g = 0; g < width / GROUP; g++) {
            int end = std::min(columns, (g + 1) * GROUP), total = 0;
            for (int k = g * GROUP; k < end; k++) {
                // 1.5 * 2**23 rounds to an integer, ties to even.
                float shifted = x[k] * inverse + 12582912.0f;
                int32_t bits;
                std::memcpy(&bits, &shifted, 4);
                int32_t q = inverse == 0 ? 0 : bits - 0x4b400000;
                int8_t part = int8_t(uint8_t(q & 255));
                l[k] = part;
                h[k] = int8_t((q - part) >> 8);
                total += q;
            }
            s[g] = total;
        }
    }
};

// out[ROWS][16] of one strip, packed in 8 bits, with rows first, first + 1 ...
template <int ROWS>
inline void strip8(const Matrix& w, long strip, const Quantized& a, int first, float* out) {
    const int width = a.width, quads = width / 4;
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * width * LANES;
    Ints high[ROWS][2], low[ROWS][2];
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < 2; i++) high[r][i] = low[r][i] = Ints{};
    for (int q = 0; q < quads; q += 2) {
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            Ints bytes = load_ints(data + (q + i) * 64);
            if (ROWS < 4) __builtin_prefetch(data + (q + i) * 64 + AHEAD);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                long at = long(first + r) * width + (q + i) * 4;
                high[r][i] = dot_quads(high[r][i], bytes, spread(read_quad(a.high + at)));
                low[r][i] = dot_quads(low[r][i], bytes, spread(read_quad(a.low + at)));
            }
        }
    }
    const float* scales = static_cast<const float*>(w.scales) + strip * LANES;
    for (int r = 0; r < ROWS; r++) {
        const int32_t* sums = a.sums + long(first + r) * (width / GROUP);
        int64_t offset = 0;
        for (int g = 0; g < width / GROUP; g++) offset += sums[g];
        Ints h = high[r][0] + high[r][1], l = low[r][0] + low[r][1];
        for (int i = 0; i < LANES; i++)
            out[r * LANES + i] = float(int64_t(h[i]) * 256 + l[i] - 128 * offset) * (scales[i] * a.scale[first + r]);
    }
}

// The same of a strip packed in 4 bits.
template <int ROWS>
inline void strip4(const Matrix& w, long strip, const Quantized& a, int first, float* out) {
    const int width = a.width, groups = width / GROUP;
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * (width / 2) * LANES;
    const bf16* scales = static_cast<const bf16*>(w.scales) + strip * groups * LANES;
    Floats total[ROWS];
    for (int r = 0; r < ROWS; r++) total[r] = splat(0.0f);
    for (int g = 0; g < groups; g++) {
        Ints high[ROWS], low[ROWS];
        for (int r = 0; r < ROWS; r++) high[r] = low[r] = Ints{};
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            Ints bytes = load_ints(data + (g * 4 + v) * 64);
            if (ROWS < 4) __builtin_prefetch(data + (g * 4 + v) * 64 + AHEAD);
            Ints first4 = bytes & 0x0f0f0f0f, last4 = (bytes >> 4) & 0x0f0f0f0f;
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                long at = long(first + r) * width + g * GROUP + v * 8;
                high[r] = dot_quads(high[r], first4, spread(read_quad(a.high + at)));
                low[r] = dot_quads(low[r], first4, spread(read_quad(a.low + at)));
                high[r] = dot_quads(high[r], last4, spread(read_quad(a.high + at + 4)));
                low[r] = dot_quads(low[r], last4, spread(read_quad(a.low + at + 4)));
            }
        }
        Floats scale = load_scales(scales + g * LANES);
        for (int r = 0; r < ROWS; r++) {
            Ints whole = (high[r] << 8) + low[r] - 8 * a.sums[long(first + r) * groups + g];
            total[r] += __builtin_convertvector(whole, Floats) * scale;
        }
    }
    for (int r = 0; r < ROWS; r++) save(out + r * LANES, total[r] * a.scale[first + r]);
}

inline float dot_tail(const float* a, const float* b, int from, int k) {
    float total = 0;
    for (int i = from; i < k; i++) total += a[i] * b[i];
    return total;
}
inline float dot_tail(const bf16* a, const bf16* b, int from, int k) {
    float total = 0;
    for (int i = from; i < k; i++) total += to_float(a[i]) * to_float(b[i]);
    return total;
}

// out[ROWS][COLS] = a[ROWS][k] . b[COLS][k]; STEP numbers of each at a time.
template <typename T, int ROWS, int COLS>
inline void dots(const T* a, long a_row, const T* b, int k, float* out) {
    constexpr int STEP = LANES * Pairs<T>::N;
    Floats acc[ROWS][COLS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) acc[r][c] = splat(0.0f);
    int i = 0;
    for (; i + STEP <= k; i += STEP) {
#pragma GCC unroll 8
        for (int c = 0; c < COLS; c++)
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                const T *x = a + r * a_row + i, *w = b + long(c) * k + i;
                if constexpr (Pairs<T>::N == 1) {
                    acc[r][c] += load((const float*)x) * load((const float*)w);
                } else {
#if defined(__AVX512BF16__)
                    acc[r][c] = Floats(_mm512_dpbf16_ps(__m512(acc[r][c]), __m512bh(_mm512_loadu_si512(x)),
                                                        __m512bh(_mm512_loadu_si512(w))));
#else
                    Words xs = *reinterpret_cast<const Words*>(x), ws = *reinterpret_cast<const Words*>(w);
                    Words parts[4] = {xs << 16, ws << 16, xs & 0xffff0000u, ws & 0xffff0000u};
                    Floats f[4];
                    std::memcpy(f, parts, sizeof f);
                    acc[r][c] += f[0] * f[1] + f[2] * f[3];
#endif
                }
            }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            out[r * COLS + c] = sum(acc[r][c]) + dot_tail(a + r * a_row, b + long(c) * k, i, k);
}

// give(row, column, a[row] . b[column]) for all rows and the columns begin to end.
template <typename T, typename Give>
inline void dense(int rows, const T* a, const T* b, int k, int begin, int end, Give give) {
    constexpr int COLS = 4;
    float out[4 * COLS];
    int c = begin;
    for (; c + COLS <= end; c += COLS) {
        const T* w = b + long(c) * k;
        int r = 0;
        for (; r + 4 <= rows; r += 4) {
            dots<T, 4, COLS>(a + long(r) * k, k, w, k, out);
            for (int i = 0; i < 4 * COLS; i++) give(r + i / COLS, c + i % COLS, out[i]);
        }
        for (; r < rows; r++) {
            dots<T, 1, COLS>(a + long(r) * k, k, w, k, out);
            for (int i = 0; i < COLS; i++) give(r, c + i, out[i]);
        }
    }
    for (; c < end; c++)
        for (int r = 0; r < rows; r++) {
            dots<T, 1, 1>(a + long(r) * k, k, b + long(c) * k, k, out);
            give(r, c, out[0]);
        }
}

// give(row, column, sum) for a few rows and the columns begin to end (begin a multiple of 16) of any matrix: dense ones
// take `a` [rows][columns], packed ones `q`.
template <typename T, typename Give>
inline void multiply(const Matrix& w, int rows, const T* a, const Quantized* q, int begin, int end, Give give) {
    if (w.bits > 8) {
        dense<T>(rows, a, static_cast<const T*>(w.data), w.columns, begin, end, give);
        return;
    }
    float out[4 * LANES];
    // As many rows at a time as stay in the second-level cache while all strips pass by.
    const int together = std::max(4, (1 << 19) / q->width / 8 * 4);
    for (int top = 0; top < rows; top += together) {
        for (int column = begin; column < end; column += LANES) {
            long strip = column / LANES;
            int count = std::min(LANES, end - column);
            for (int r = top; r < std::min(rows, top + together);) {
                int left = std::min(rows, top + together) - r, taken = left >= 4 ? 4 : left >= 2 ? 2 : 1;
                auto run = [&](auto eight, auto four) { w.bits == 8 ? eight(w, strip, *q, r, out) : four(w, strip, *q, r, out); };
                if (taken == 4) run(strip8<4>, strip4<4>);
                if (taken == 2) run(strip8<2>, strip4<2>);
                if (taken == 1) run(strip8<1>, strip4<1>);
                for (int i = 0; i < taken; i++)
                    for (int c = 0; c < count; c++) give(r + i, column + c, out[i * LANES + c]);
                r += taken;
            }
        }
    }
}

// Packing ------------------------------------------------------------------------------------------------------------

// One number's place: which byte of a strip, and which half of it in 4 bits.
inline long place8(int k, int lane) { return long(k / 4) * 64 + lane * 4 + k % 4; }
inline long place4(int k, int lane) { return long(k / 8) * 64 + lane * 4 + k % 4; }

template <typename T> void pack8(const T* row, int columns, int width, int lane, uint8_t* strip, float* scale) {
    float largest = 0;
    for (int k = 0; k < columns; k++) largest = std::max(largest, std::abs(to_float(row[k])));
    *scale = largest / 127;
    float inverse = largest > 0 ? 127 / largest : 0;
    for (int k = 0; k < width; k++)
        strip[place8(k, lane)] = uint8_t(128 + (k < columns ? int(std::nearbyint(to_float(row[k]) * inverse)) : 0));
}

// The scale, of a few tried, that leaves the least squared error; as a bfloat16, and the error counts its rounding.
inline bf16 choose_scale(const float* x) {
    static const float STEPS[] = {8, 7, 7.5f, 6.5f, 8.5f, 6};
    float largest = 0;
    for (int k = 0; k < GROUP; k++)
        if (std::abs(x[k]) > std::abs(largest)) largest = x[k];
    bf16 best{0};
    float least = INFINITY;
    for (float step : STEPS)
        for (float sign : {-1.0f, 1.0f}) {
            bf16 rounded;
            store(&rounded, sign * largest / step);
            float scale = to_float(rounded), inverse = scale != 0 ? 1 / scale : 0;
            Floats errors = splat(0.0f);
            for (int k = 0; k < GROUP; k += LANES) {
                Floats v = load(x + k), q = v * inverse + 12582912.0f - 12582912.0f;
                q = q < -8.0f ? splat(-8.0f) : q;
                q = q > 7.0f ? splat(7.0f) : q;
                errors += (v - q * scale) * (v - q * scale);
            }
            float error = sum(errors);
            if (error < least) least = error, best = rounded;
        }
    return best;
}

template <typename T> void pack4(const T* row, int columns, int width, int lane, uint8_t* strip, bf16* scales) {
    for (int g = 0; g < width / GROUP; g++) {
        float x[GROUP] = {};
        for (int k = 0; k < GROUP && g * GROUP + k < columns; k++) x[k] = to_float(row[g * GROUP + k]);
        bf16 chosen = choose_scale(x);
        scales[g * LANES + lane] = chosen;
        float scale = to_float(chosen), inverse = scale != 0 ? 1 / scale : 0;
        for (int k = 0; k < GROUP; k++) {
            int q = 8 + std::min(7, std::max(-8, int(std::nearbyint(x[k] * inverse))));
            uint8_t& byte = strip[place4(g * GROUP + k, lane)];
            byte = k % 8 < 4 ? uint8_t((byte & 0xf0) | q) : uint8_t((byte & 0x0f) | (q << 4));
        }
    }
}

template <typename T>
void pack(int bits, const T* weight, int rows, int columns, uint8_t* data, void* scales, int num_threads) {
    const int width = padded(columns, GROUP), strips = padded(rows, LANES) / LANES;
    const long strip_bytes = long(width) * LANES * bits / 8;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int s = 0; s < strips; s++) {
        uint8_t* strip = data + s * strip_bytes;
        std::memset(strip, bits == 8 ? 128 : 0x88, strip_bytes);
        for (int lane = 0; lane < LANES; lane++) {
            const int row = s * LANES + lane;
            if (bits == 8) {
                float* scale = static_cast<float*>(scales) + row;
                *scale = 0;
                if (row < rows) pack8(weight + long(row) * columns, columns, width, lane, strip, scale);
            } else {
                bf16* of_strip = static_cast<bf16*>(scales) + long(s) * (width / GROUP) * LANES;
                for (int g = 0; g < width / GROUP; g++) of_strip[g * LANES + lane] = bf16{0};
                if (row < rows) pack4(weight + long(row) * columns, columns, width, lane, strip, of_strip);
            }
        }
    }
}

// out[lane][16 numbers from k on] of a strip, as float32.
inline void unpack_part(const Matrix& w, long strip, int k, float out[LANES][LANES]) {
    const int width = padded(w.columns, GROUP);
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * (long(width) * LANES * w.bits / 8);
    Floats scale = w.bits == 8 ? load(static_cast<const float*>(w.scales) + strip * LANES)
                               : load_scales(static_cast<const bf16*>(w.scales) +
                                             (strip * (width / GROUP) + k / GROUP) * LANES);
    for (int i = 0; i < LANES; i++) {
        Ints bytes = load_ints(data + (w.bits == 8 ? (k + i) / 4 : (k + i) / 8) * 64);
        Ints q = w.bits == 8 ? (bytes >> i % 4 * 8 & 255) - 128 : (bytes >> (i % 4 * 8 + i % 8 / 4 * 4) & 15) - 8;
        Floats x = __builtin_convertvector(q, Floats) * scale;
        for (int lane = 0; lane < LANES; lane++) out[lane][i] = x[lane];
    }
}

// out [rows][columns]: the numbers of a packed matrix.
template <typename T> void unpack(const Matrix& w, T* out, int num_threads) {
    const int strips = padded(w.rows, LANES) / LANES;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int strip = 0; strip < strips; strip++) {
        alignas(64) float part[LANES][LANES];
        for (int k = 0; k < w.columns; k += LANES) {
            unpack_part(w, strip, k, part);
            const int count = std::min(LANES, w.columns - k);
            for (int lane = 0; lane < std::min(LANES, w.rows - strip * LANES); lane++) {
                T* to = out + (long(strip) * LANES + lane) * w.columns + k;
                for (int i = 0; i < count; i++) store(to + i, part[lane][i]);
            }
        }
    }
}

// Many rows ----------------------------------------------------------------------------------------------------------

// Rows of signed bytes lie six together, so that what is multiplied next is what lies next: [row / 6][column / 4][6][4].
constexpr int TALL = 6;
inline long place_byte(int row, int k, int width) { return (long(row / TALL) * (width / 4) + k / 4) * TALL * 4 + row % TALL * 4 + k % 4; }

// acc[6][STRIPS][16] += six rows of signed bytes times `quads` quads of STRIPS strips, `apart` bytes from each other.
template <int STRIPS>
inline void byte_tile(const int8_t* a, const uint8_t* b, long apart, int quads, int32_t* acc) {
    Ints sums[TALL][STRIPS];
    for (int r = 0; r < TALL; r++)
        for (int s = 0; s < STRIPS; s++) sums[r][s] = load_ints(acc + (r * STRIPS + s) * LANES);
    for (int q = 0; q < quads; q++) {
        Ints bytes[STRIPS];
#pragma GCC unroll 4
        for (int s = 0; s < STRIPS; s++) bytes[s] = load_ints(b + s * apart + q * 64);
#pragma GCC unroll 6
        for (int r = 0; r < TALL; r++) {
            Ints quad = spread(read_quad(a + (q * TALL + r) * 4));
#pragma GCC unroll 4
            for (int s = 0; s < STRIPS; s++) sums[r][s] = dot_quads(sums[r][s], bytes[s], quad);
        }
    }
    for (int r = 0; r < TALL; r++)
        for (int s = 0; s < STRIPS; s++) *reinterpret_cast<Ints*>(acc + (r * STRIPS + s) * LANES) = sums[r][s];
}

// Strips of a matrix in 4 bits as ones of 8 with a scale for each row, which is what bytes are multiplied with.
inline void widen(const Matrix& w, long strip, int strips, uint8_t* data, float* scales) {
    const int width = padded(w.columns, GROUP), groups = width / GROUP;
    for (long s = 0; s < strips; s++) {
        const uint8_t* from = static_cast<const uint8_t*>(w.data) + (strip + s) * (width / 2) * LANES;
        const bf16* of_groups = static_cast<const bf16*>(w.scales) + (strip + s) * groups * LANES;
        uint8_t* to = data + s * width * LANES;
        // The largest that any group's scale allows; what is lost by not looking at the numbers is a part of one bit.
        Floats top = splat(0.0f);
        for (int g = 0; g < groups; g++) {
            Floats scale = load_scales(of_groups + g * LANES);
            top = larger(top, larger(scale * 8.0f, scale * -8.0f));
        }
        save(scales + s * LANES, top * (1 / 127.0f));
        for (int g = 0; g < groups; g++) {
            Floats by = load_scales(of_groups + g * LANES) * 127.0f / (top > 0.0f ? top : splat(1.0f));
            for (int v = 0; v < 4; v++) {
                Ints bytes = load_ints(from + (g * 4 + v) * 64);
                for (int half = 0; half < 2; half++, bytes >>= 4) {
                    Ints out = spread(0);
                    for (int shift = 0; shift < 32; shift += 8) {
                        Floats q = __builtin_convertvector((bytes >> shift & 15) - 8, Floats) * by + 12582912.0f;
                        Ints rounded;
                        std::memcpy(&rounded, &q, sizeof rounded);
                        out |= (rounded - 0x4b400000 + 128) << shift;
                    }
                    *reinterpret_cast<Ints*>(to + (g * 8 + v * 2 + half) * 64) = out;
                }
            }
        }
    }
}

// One panel of STRIPS strips: columns of out [rows][w.rows], from `column` on.
template <int STRIPS>
inline void multiply_panel(const uint8_t* data, const float* scales, int width, int rows, const int8_t* a,
                           const float* a_scale, const int32_t* a_sum, int32_t* acc, float* out, int column, int columns) {
    constexpr int TOGETHER = 40 * TALL;
    const int wide = std::min(STRIPS * LANES, columns - column);
    for (int top = 0; top < rows; top += TOGETHER) {
        const int height = std::min(TOGETHER, rows - top);
        std::fill(acc, acc + padded(height, TALL) * STRIPS * LANES, 0);
        for (int k = 0; k < width; k += WIDEST)
            for (int r = 0; r < height; r += TALL)
                byte_tile<STRIPS>(a + place_byte(top + r, k, width), data + long(k) * LANES, long(width) * LANES,
                                  std::min(WIDEST, width - k) / 4, acc + r * STRIPS * LANES);
        for (int r = 0; r < height; r++) {
            float* to = out + long(top + r) * columns + column;
            const float scale = a_scale[top + r];
            const int32_t offset = 128 * a_sum[top + r];
            for (int c = 0; c < wide; c++) to[c] = float(acc[r * STRIPS * LANES + c] - offset) * (scales[c] * scale);
        }
    }
}

// out [rows][w.rows] = rows of signed bytes, with a scale and a sum each, times a packed matrix. Both sides are integers
// of 8 bits: what it costs in precision, `a` has lost already.
inline void multiply_bytes(const Matrix& w, int rows, const int8_t* a, const float* a_scale, const int32_t* a_sum,
                           float* out, int num_threads) {
    constexpr int STRIPS = 4;
    const int width = padded(w.columns, GROUP), strips = padded(w.rows, LANES) / LANES;
    const int panels = (strips + STRIPS - 1) / STRIPS;
#pragma omp parallel num_threads(num_threads)
    {
        uint8_t* widened = w.bits == 4 ? new uint8_t[size_t(width) * LANES * STRIPS] : nullptr;
        float panel_scales[STRIPS * LANES];
        int32_t* acc = new int32_t[40 * TALL * STRIPS * LANES];
#pragma omp for schedule(dynamic)
        for (int panel = 0; panel < panels; panel++) {
            const long strip = long(panel) * STRIPS;
            const int count = std::min(STRIPS, int(strips - strip)), column = int(strip) * LANES;
            const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * width * LANES;
            const float* scales = static_cast<const float*>(w.scales) + strip * LANES;
            if (widened != nullptr) {
                widen(w, strip, count, widened, panel_scales);
                data = widened, scales = panel_scales;
            }
            auto run = [&](auto f) { f(data, scales, width, rows, a, a_scale, a_sum, acc, out, column, w.rows); };
            if (count == 4) run(multiply_panel<4>);
            if (count == 3) run(multiply_panel<3>);
            if (count == 2) run(multiply_panel<2>);
            if (count == 1) run(multiply_panel<1>);
        }
        delete[] acc;
        delete[] widened;
    }
}

// A row as signed bytes under one scale, into its places; what is no number makes the scale none.
template <typename T>
void quantize_bytes(const T* x, int row, int columns, int width, int8_t* out, float* scale, int32_t* total) {
    Floats top = splat(0.0f), check = splat(0.0f);
    auto read = [&](int k) {
        alignas(64) float part[LANES];
        for (int i = 0; i < LANES; i++) part[i] = k + i < columns ? to_float(x[k + i]) : 0.0f;
        return load(part);
    };
    for (int k = 0; k < columns; k += LANES) {
        Floats v = read(k);
        top = larger(top, larger(v, -v));
        check += v * 0.0f;
    }
    float largest = 0;
    for (int i = 0; i < LANES; i++) largest = std::max(largest, top[i]);
    const bool is_number = sum(check) == 0;
    *scale = is_number ? largest / 127 : NAN;
    const float inverse = largest > 0 && is_number ? 127 / largest : 0;
    Ints totals = spread(0);
    for (int k = 0; k < width; k += LANES) {
        // 1.5 * 2**23 rounds to an integer, ties to even. What is no number times 0 is none either, and is not looked at.
        Floats shifted = read(k) * inverse + 12582912.0f;
        Ints q;
        std::memcpy(&q, &shifted, sizeof q);
        q = inverse == 0 ? spread(0) : q - 0x4b400000;
        for (int i = 0; i < LANES; i += 4) {
            int8_t* quad = out + place_byte(row, k + i, width);
            for (int j = 0; j < 4; j++) quad[j] = int8_t(q[i + j]);
        }
        totals += q;
    }
    *total = 0;
    for (int i = 0; i < LANES; i++) *total += totals[i];
}

}  // namespace
