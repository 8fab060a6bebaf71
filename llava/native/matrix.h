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

// Rows as integers of 16 bits: `high` and `low` [rows][padded], `sums` [rows][padded / GROUP], `scale` [rows]; in memory
// that somebody else keeps.
struct Quantized {
    int width = 0;
    int8_t *high = nullptr, *low = nullptr;
    int32_t* sums = nullptr;
    float* scale = nullptr;
    Quantized() = default;
    Quantized(int rows, int columns, Kept& kept) : width(padded(columns, GROUP)) {
        const size_t row = 2 * width + 4 * (width / GROUP) + 4;
        auto* at = kept.take<int8_t>(rows * row + 64);
        scale = reinterpret_cast<float*>(at), sums = reinterpret_cast<int32_t*>(scale + rows);
        high = reinterpret_cast<int8_t*>(sums + size_t(rows) * (width / GROUP)), low = high + size_t(rows) * width;
    }

    template <typename T> void set(int row, const T* x, int columns) {
        // What is no number must not become one: it goes on to the scores, where it is found.
        const float largest = find_largest(x, columns);
        scale[row] = largest / 32512;
        const bool is_number = largest - largest == 0;
        const float inverse = largest > 0 && is_number ? 32512 / largest : 0;
        int8_t *h = high + size_t(row) * width, *l = low + size_t(row) * width;
        int32_t* s = sums + size_t(row) * (width / GROUP);
        for (int k = 0; k < width; k += LANES) {
            Ints q = inverse == 0 ? spread(0) : to_ints(load(x + k, columns - k) * inverse);
            Ints part = q << 24 >> 24;
            *reinterpret_cast<Bytes*>(l + k) = __builtin_convertvector(part, Bytes);
            *reinterpret_cast<Bytes*>(h + k) = __builtin_convertvector((q - part) >> 8, Bytes);
            s[k / GROUP] = (k % GROUP ? s[k / GROUP] : 0) + sum(q);
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
        if (ROWS < 4) __builtin_prefetch(scales + g * LANES + AHEAD / 4);
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
        Floats scale = load(scales + g * LANES);
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
                // A row is no longer than a page, where the hardware stops: the same place of the next columns.
                if (r == 0) __builtin_prefetch(w + long(COLS) * k);
                if constexpr (Pairs<T>::N == 1) {
                    acc[r][c] += load((const float*)x) * load((const float*)w);
                } else {
#if defined(__AVX512BF16__)
                    acc[r][c] = Floats(_mm512_dpbf16_ps(__m512(acc[r][c]), __m512bh(_mm512_loadu_si512(x)),
                                                        __m512bh(_mm512_loadu_si512(w))));
#else
                    Words xs = *reinterpret_cast<const Words*>(x), ws = *reinterpret_cast<const Words*>(w);
                    acc[r][c] += as_floats(xs << 16) * as_floats(ws << 16);
                    acc[r][c] += as_floats(xs & 0xffff0000u) * as_floats(ws & 0xffff0000u);
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
        const T* x = a + long(r) * k;
        if (rows - r == 3) dots<T, 3, COLS>(x, k, w, k, out);
        if (rows - r == 2) dots<T, 2, COLS>(x, k, w, k, out);
        if (rows - r == 1) dots<T, 1, COLS>(x, k, w, k, out);
        for (int i = 0; i < (rows - r) * COLS; i++) give(r + i / COLS, c + i % COLS, out[i]);
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

// x[GROUP][lane] = numbers k, k + 1 ... of a strip's 16 rows, zero where there are none.
template <typename T> void gather(const T* weight, int rows, int columns, int first, int k, float* x) {
    const int count = std::min(GROUP, columns - k);
    for (int lane = 0; lane < LANES; lane++) {
        const T* row = weight + long(first + lane) * columns + k;
        for (int i = 0; i < GROUP; i++) x[i * LANES + lane] = first + lane < rows && i < count ? to_float(row[i]) : 0;
    }
}

// For each lane the scale, of a few tried, that leaves the least squared error; as a bfloat16, and the error counts its
// rounding.
inline Floats choose_scales(const float* x) {
    static const float STEPS[] = {8, 7, 7.5f, 6.5f, 8.5f, 6};
    Floats largest = splat(0.0f), best = splat(0.0f), least = splat(INFINITY);
    for (int k = 0; k < GROUP; k++) {
        Floats v = load(x + k * LANES);
        largest = larger(v, -v) > larger(largest, -largest) ? v : largest;
    }
    for (float step : STEPS)
        for (float sign : {-1.0f, 1.0f}) {
            bf16 rounded[LANES];
            save(rounded, sign * largest / step);
            const Floats scale = load(rounded), inverse = scale != 0.0f ? 1.0f / scale : splat(0.0f);
            Floats error = splat(0.0f);
            for (int k = 0; k < GROUP; k++) {
                Floats v = load(x + k * LANES), q = v * inverse + 12582912.0f - 12582912.0f;
                q = q < -8.0f ? splat(-8.0f) : q;
                q = q > 7.0f ? splat(7.0f) : q;
                error += (v - q * scale) * (v - q * scale);
            }
            best = error < least ? scale : best;
            least = error < least ? error : least;
        }
    return best;
}

template <typename T>
void pack8(const T* weight, int rows, int columns, int first, uint8_t* strip, float* scales) {
    float x[GROUP * LANES], largest[LANES] = {};
    for (int lane = 0; lane < std::min(LANES, rows - first); lane++)
        for (int k = 0; k < columns; k += LANES) {
            Floats v = load(weight + long(first + lane) * columns + k, columns - k);
            largest[lane] = std::max(largest[lane], largest_of(larger(v, -v)));
        }
    const Floats top = load(largest), inverse = top > 0.0f ? 127.0f / top : splat(0.0f);
    save(scales, top / 127.0f);
    for (int k = 0; k < columns; k += GROUP) {
        gather(weight, rows, columns, first, k, x);
        for (int i = 0; i < GROUP; i += 4, strip += 64) {
            Ints word = spread(0);
            for (int j = 0; j < 4; j++) word |= (to_ints(load(x + (i + j) * LANES) * inverse) + 128) << (8 * j);
            *reinterpret_cast<Ints*>(strip) = word;
        }
    }
}

template <typename T>
void pack4(const T* weight, int rows, int columns, int first, uint8_t* strip, bf16* scales) {
    float x[GROUP * LANES];
    for (int k = 0; k < columns; k += GROUP, scales += LANES) {
        gather(weight, rows, columns, first, k, x);
        const Floats scale = choose_scales(x), inverse = scale != 0.0f ? 1.0f / scale : splat(0.0f);
        save(scales, scale);
        for (int i = 0; i < GROUP; i += 8, strip += 64) {
            Ints word = spread(0);
            for (int j = 0; j < 8; j++) {
                Ints q = to_ints(load(x + (i + j) * LANES) * inverse);
                q = q < -8 ? spread(-8) : q;
                q = q > 7 ? spread(7) : q;
                word |= (q + 8) << (j % 4 * 8 + j / 4 * 4);
            }
            *reinterpret_cast<Ints*>(strip) = word;
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
        if (bits == 8)
            pack8(weight, rows, columns, s * LANES, strip, static_cast<float*>(scales) + s * LANES);
        else
            pack4(weight, rows, columns, s * LANES, strip,
                  static_cast<bf16*>(scales) + long(s) * (width / GROUP) * LANES);
    }
}

// out[lane][16 numbers from k on] of a strip, as float32.
inline void unpack_part(const Matrix& w, long strip, int k, float out[LANES][LANES]) {
    const int width = padded(w.columns, GROUP);
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * (long(width) * LANES * w.bits / 8);
    Floats scale = w.bits == 8 ? load(static_cast<const float*>(w.scales) + strip * LANES)
                               : load(static_cast<const bf16*>(w.scales) +
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
            Floats scale = load(of_groups + g * LANES);
            top = larger(top, larger(scale * 8.0f, scale * -8.0f));
        }
        save(scales + s * LANES, top * (1 / 127.0f));
        for (int g = 0; g < groups; g++) {
            Floats by = load(of_groups + g * LANES) * 127.0f / (top > 0.0f ? top : splat(1.0f));
            for (int v = 0; v < 4; v++) {
                Ints bytes = load_ints(from + (g * 4 + v) * 64);
                for (int half = 0; half < 2; half++, bytes >>= 4) {
                    Ints out = spread(0);
                    for (int shift = 0; shift < 32; shift += 8) {
                        Floats q = __builtin_convertvector((bytes >> shift & 15) - 8, Floats) * by;
                        out |= (to_ints(q) + 128) << shift;
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
        uint8_t* widened = w.bits == 4 ? KEPT(uint8_t, size_t(width) * LANES * STRIPS) : nullptr;
        float panel_scales[STRIPS * LANES];
        int32_t* acc = KEPT(int32_t, 40 * TALL * STRIPS * LANES);
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
    }
}

// A row as signed bytes under one scale, into its places; what is no number makes the scale none.
template <typename T>
void quantize_bytes(const T* x, int row, int columns, int width, int8_t* out, float* scale, int32_t* total) {
    const float largest = find_largest(x, columns);
    *scale = largest / 127;
    const float inverse = largest > 0 && largest - largest == 0 ? 127 / largest : 0;
    Ints totals = spread(0);
    for (int k = 0; k < width; k += LANES) {
        Ints q = inverse == 0 ? spread(0) : to_ints(load(x + k, columns - k) * inverse);
        Bytes bytes = __builtin_convertvector(q, Bytes);
        for (int i = 0; i < LANES; i += 4)
            std::memcpy(out + place_byte(row, k + i, width), reinterpret_cast<const char*>(&bytes) + i, 4);
        totals += q;
    }
    *total = sum(totals);
}

}  // namespace
