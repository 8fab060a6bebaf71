// GEMV and skinny GEMM: a few rows times any matrix, which is read once for all of them.
//
// Rows are multiplied with quantized weights as integers of 16 bits with one scale per row (an error of 2**-15 of the
// largest).

#pragma once

#include "barrier.h"
#include "integer_dot.h"
#include "quantized.h"
#include "scratch.h"

namespace {

// Rows as integers of 16 bits, in a caller's scratch buffer: `numbers` [rows][2 * width bytes] as integer_dot.h has
// them, `scale` [rows], `sums` [rows][width / GROUP].
struct QuantizedRows {
    int width = 0;
    int8_t* numbers = nullptr;
    int32_t* sums = nullptr;
    float* scale = nullptr;
    QuantizedRows() = default;
    QuantizedRows(int rows, int columns, ScratchBuffer& buffer) : width(round_up(columns, GROUP)) {
        const size_t row_bytes = 2 * size_t(width) + 4 * (size_t(width) / GROUP) + 4;
        auto* memory = buffer.reserve<int8_t>(rows, row_bytes);
        scale = reinterpret_cast<float*>(memory), sums = reinterpret_cast<int32_t*>(scale + rows);
        numbers = reinterpret_cast<int8_t*>(sums + size_t(rows) * (width / GROUP));
    }
    const int8_t* row(int r) const { return numbers + size_t(r) * 2 * width; }
    // The rows from this one on.
    QuantizedRows from(long row) const {
        QuantizedRows rest = *this;
        rest.numbers += row * 2 * width, rest.sums += row * (width / GROUP), rest.scale += row;
        return rest;
    }

    template <typename T> void set(int row, const T* x, int columns) {
        // A NaN or an infinity makes the scale NaN, so that it reaches the logits, where the engine looks for it.
        const float largest = max_abs(x, columns);
        scale[row] = largest / 32512;
        const bool is_finite = largest - largest == 0;
        const float inverse = largest > 0 && is_finite ? 32512 / largest : 0;
        int32_t* s = sums + size_t(row) * (width / GROUP);
        for (int k = 0; k < width; k += LANES) {
            Ints q = inverse == 0 ? broadcast(0) : round_to_int(load(x + k, columns - k) * inverse);
            store_wide(numbers + size_t(row) * 2 * width, width, k, q);
            s[k / GROUP] = (k % GROUP ? s[k / GROUP] : 0) + reduce_sum(q);
        }
    }
};

// out[ROWS][16] = rows first, first + 1 ... times one strip of 8 bits.
template <int ROWS>
inline void gemv_strip_int8(const Matrix& w, long strip, const QuantizedRows& a, int first, float* out) {
    constexpr int CHAINS = HAS_VNNI && ROWS < 4 ? 2 : 1;  // of sums that depend on one another
    const int width = a.width, steps = width / 4;
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * width * LANES;
    int32_t high[ROWS * LANES] = {}, low[ROWS * LANES] = {};
    for (int from = 0; from < steps; from += WideSum::MAX_STEPS) {
        const int to = std::min(steps, from + WideSum::MAX_STEPS);
        WideSum sums[CHAINS][ROWS][INT_PIECES] = {};
        for (int q = from; q < to; q += CHAINS)
#pragma GCC unroll 2
            for (int i = 0; i < CHAINS; i++) {
                const uint8_t* bytes = data + long(q + i) * 64;
                __builtin_prefetch(bytes + PREFETCH_BYTES);
                Weights parts[INT_PIECES];
#pragma GCC unroll 4
                for (int p = 0; p < INT_PIECES; p++) parts[p] = unpack(load_ints(bytes + p * INT_LANES * 4));
                add_products(sums[i], parts, a.row(first) + (q + i) * WIDE_STEP, width);
            }
        for (const auto& of_chain : sums)
            for (int r = 0; r < ROWS; r++)
                for (int p = 0; p < INT_PIECES; p++) {
                    int32_t *h = high + r * LANES + p * INT_LANES, *l = low + r * LANES + p * INT_LANES;
                    store_ints(h, load_ints(h) + of_chain[r][p].high());
                    store_ints(l, load_ints(l) + of_chain[r][p].low());
                }
    }
    const float* scales = static_cast<const float*>(w.scales) + strip * LANES;
    for (int r = 0; r < ROWS; r++) {
        const int32_t* sums = a.sums + long(first + r) * (width / GROUP);
        int64_t offset = 0;
        for (int g = 0; g < width / GROUP; g++) offset += sums[g];
        for (int i = 0; i < LANES; i++) {
            const int64_t total = int64_t(high[r * LANES + i]) * (1 << WideSum::SHIFT) + low[r * LANES + i];
            out[r * LANES + i] = float(total - 128 * offset) * (scales[i] * a.scale[first + r]);
        }
    }
}

// out[ROWS][16] = rows first, first + 1 ... times one strip of 4 bits.
template <int ROWS>
inline void gemv_strip_int4(const Matrix& w, long strip, const QuantizedRows& a, int first, float* out) {
    const int width = a.width, groups = width / GROUP;
    const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * (width / 2) * LANES;
    const bf16* scales = static_cast<const bf16*>(w.scales) + strip * groups * LANES;
    IntLaneFloats total[ROWS][INT_PIECES] = {};
    for (int g = 0; g < groups; g++) {
        const uint8_t* bytes = data + long(g) * 4 * 64;
        const int8_t* numbers = a.row(first) + g * (GROUP / 4) * WIDE_STEP;
        __builtin_prefetch(scales + g * LANES + PREFETCH_BYTES / 4);
        WideSum sums[ROWS][INT_PIECES] = {};
#pragma GCC unroll 1
        for (int v = 0; v < 4; v++, bytes += 64, numbers += 2 * WIDE_STEP) {
            __builtin_prefetch(bytes + PREFETCH_BYTES);
            Weights first4[INT_PIECES], last4[INT_PIECES];
#pragma GCC unroll 4
            for (int p = 0; p < INT_PIECES; p++) {
                const RegisterInts eight = load_ints(bytes + p * INT_LANES * 4);
                first4[p] = unpack_low_nibbles(eight), last4[p] = unpack_high_nibbles(eight);
            }
            add_products(sums, first4, numbers, width);
            add_products(sums, last4, numbers + WIDE_STEP, width);
        }
        float of_lanes[LANES];
        store(of_lanes, load(scales + g * LANES));
#pragma GCC unroll 4
        for (int p = 0; p < INT_PIECES; p++) {
            const IntLaneFloats scale = *reinterpret_cast<const IntLaneFloats*>(of_lanes + p * INT_LANES);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                const RegisterInts whole = sums[r][p].value() - 8 * a.sums[long(first + r) * groups + g];
                total[r][p] += __builtin_convertvector(whole, IntLaneFloats) * scale;
            }
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int p = 0; p < INT_PIECES; p++)
            for (int i = 0; i < INT_LANES; i++)
                out[r * LANES + p * INT_LANES + i] = total[r][p][i] * a.scale[first + r];
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

#if defined(__AVX512F__)
// out[ROWS][COLS] = a[ROWS][k] . b[COLS][k], in registers; STEP numbers of each at a time.
template <typename T, int ROWS, int COLS>
inline void dot_block(const T* a, long a_row, const T* b, int k, float* out) {
    constexpr int STEP = LANES * DotStep<T>::DEPTH;
    Floats acc[ROWS][COLS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) acc[r][c] = broadcast(0.0f);
    int i = 0;
    for (; i + STEP <= k; i += STEP) {
#pragma GCC unroll 8
        for (int c = 0; c < COLS; c++)
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                const T *x = a + r * a_row + i, *w = b + long(c) * k + i;
                // The hardware's prefetcher stops at each page, and a row is no longer: prefetch the next columns.
                if (r == 0) __builtin_prefetch(w + long(COLS) * k);
                if constexpr (DotStep<T>::DEPTH == 1) {
                    acc[r][c] += load((const float*)x) * load((const float*)w);
                } else {
#if defined(__AVX512BF16__)
                    acc[r][c] = Floats(_mm512_dpbf16_ps(__m512(acc[r][c]), __m512bh(_mm512_loadu_si512(x)),
                                                        __m512bh(_mm512_loadu_si512(w))));
#else
                    UInts xs = *reinterpret_cast<const UInts*>(x), ws = *reinterpret_cast<const UInts*>(w);
                    acc[r][c] += as_floats(xs << 16) * as_floats(ws << 16);
                    acc[r][c] += as_floats(xs & 0xffff0000u) * as_floats(ws & 0xffff0000u);
#endif
                }
            }
    }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            out[r * COLS + c] = reduce_sum(acc[r][c]) + dot_tail(a + r * a_row, b + long(c) * k, i, k);
}
constexpr int DOT_ROWS = 4, DOT_COLS = 4;
#else
// The numbers of a piece, as DEPTH vectors that are as wide as a register: compilers keep wider ones in memory.
inline void load_piece(const float* x, RegisterFloats* to) { to[0] = load_register(x); }
inline void load_piece(const bf16* x, RegisterFloats* to) {
    typedef uint32_t Words __attribute__((vector_size(4 * REGISTER_LANES), aligned(2)));
    const Words words = *reinterpret_cast<const Words*>(x), first = words << 16, second = words & 0xffff0000u;
    std::memcpy(to, &first, sizeof first);
    std::memcpy(to + 1, &second, sizeof second);
}

// out[ROWS][COLS] = a[ROWS][k] . b[COLS][k]: the same sums in the same order, in pieces of a step.
template <typename T, int ROWS, int COLS>
inline void dot_block(const T* a, long a_row, const T* b, int k, float* out) {
    constexpr int DEPTH = DotStep<T>::DEPTH, STEP = LANES * DEPTH;
    Pieces acc[ROWS][COLS] = {};
    int i = 0;
    for (; i + STEP <= k; i += STEP)
#pragma GCC unroll 4
        for (int p = 0; p < PIECES; p++) {
            const long at = i + p * REGISTER_LANES * DEPTH;
#pragma GCC unroll 4
            for (int c = 0; c < COLS; c++) {
                RegisterFloats w[DEPTH];
                load_piece(b + long(c) * k + at, w);
                if (p == 0) __builtin_prefetch(b + long(c + COLS) * k + at);
#pragma GCC unroll 4
                for (int r = 0; r < ROWS; r++) {
                    RegisterFloats x[DEPTH];
                    load_piece(a + r * a_row + at, x);
#pragma GCC unroll 2
                    for (int d = 0; d < DEPTH; d++) acc[r][c].of[p] += x[d] * w[d];
                }
            }
        }
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++)
            out[r * COLS + c] = reduce_sum(acc[r][c]) + dot_tail(a + r * a_row, b + long(c) * k, i, k);
}
constexpr int DOT_ROWS = 3, DOT_COLS = 2;  // 12 sums in AVX2's 16 registers

// emit(0, column, a . b[column]) for one row: memory sets the pace, COLS streams of it at a time.
template <typename T, int COLS, typename Emit>
inline void gemv_row(const T* a, const T* b, int k, int begin, int end, Emit emit) {
    float out[COLS];
    int c = begin;
    for (; c + COLS <= end; c += COLS) {
        dot_block<T, 1, COLS>(a, k, b + long(c) * k, k, out);
        for (int i = 0; i < COLS; i++) emit(0, c + i, out[i]);
    }
    for (; c < end; c++) {
        dot_block<T, 1, 1>(a, k, b + long(c) * k, k, out);
        emit(0, c, out[0]);
    }
}
#endif

// emit(row, column, a[row] . b[column]) for all rows and columns begin to end of a dense matrix.
template <typename T, typename Emit>
inline void gemv_dense(int rows, const T* a, const T* b, int k, int begin, int end, Emit emit) {
    constexpr int ROWS = DOT_ROWS, COLS = DOT_COLS;
#if !defined(__AVX512F__)
    // Short columns are read one after the other, as one stream; of longer ones, four streams at a time are faster.
    if (rows == 1 && k * sizeof(T) <= PREFETCH_BYTES) return gemv_row<T, 1>(a, b, k, begin, end, emit);
    if (rows == 1) return gemv_row<T, 4>(a, b, k, begin, end, emit);
#endif
    float out[ROWS * COLS];
    int c = begin;
    for (; c + COLS <= end; c += COLS) {
        const T* w = b + long(c) * k;
        int r = 0;
        for (; r + ROWS <= rows; r += ROWS) {
            dot_block<T, ROWS, COLS>(a + long(r) * k, k, w, k, out);
            for (int i = 0; i < ROWS * COLS; i++) emit(r + i / COLS, c + i % COLS, out[i]);
        }
        const T* x = a + long(r) * k;
        if (ROWS > 3 && rows - r == 3) dot_block<T, 3, COLS>(x, k, w, k, out);
        if (rows - r == 2) dot_block<T, 2, COLS>(x, k, w, k, out);
        if (rows - r == 1) dot_block<T, 1, COLS>(x, k, w, k, out);
        for (int i = 0; i < (rows - r) * COLS; i++) emit(r + i / COLS, c + i % COLS, out[i]);
    }
    for (; c < end; c++)
        for (int r = 0; r < rows; r++) {
            dot_block<T, 1, 1>(a + long(r) * k, k, b + long(c) * k, k, out);
            emit(r, c, out[0]);
        }
}

// The same for rows and one strip at a time of a quantized matrix; begin is a multiple of 16.
template <typename Emit>
inline void gemv_quantized(const Matrix& w, int rows, const QuantizedRows& a, int begin, int end, Emit emit) {
    float out[4 * LANES];
    // As many rows at a time as stay in the L2 cache while all strips are streamed.
    const int block = std::max(4, (1 << 19) / a.width / 8 * 4);
    for (int top = 0; top < rows; top += block) {
        const int bottom = std::min(rows, top + block);
        for (int column = begin; column < end; column += LANES) {
            const long strip = column / LANES;
            const int count = std::min(LANES, end - column);
            for (int r = top; r < bottom;) {
                const int left = bottom - r, taken = left >= 4 ? 4 : left >= 2 ? 2 : 1;
                auto run = [&](auto int8, auto int4) {
                    w.bits == 8 ? int8(w, strip, a, r, out) : int4(w, strip, a, r, out);
                };
                if (taken == 4) run(gemv_strip_int8<4>, gemv_strip_int4<4>);
                if (taken == 2) run(gemv_strip_int8<2>, gemv_strip_int4<2>);
                if (taken == 1) run(gemv_strip_int8<1>, gemv_strip_int4<1>);
                for (int i = 0; i < taken; i++)
                    for (int c = 0; c < count; c++) emit(r + i, column + c, out[i * LANES + c]);
                r += taken;
            }
        }
    }
}

// The same for any matrix: dense ones take `a` [rows][columns], quantized ones `q`.
template <typename T, typename Emit>
inline void gemv(const Matrix& w, int rows, const T* a, const QuantizedRows& q, Range columns, Emit emit) {
    if (w.bits > 8)
        gemv_dense<T>(rows, a, static_cast<const T*>(w.data), w.columns, int(columns.begin), int(columns.end), emit);
    else
        gemv_quantized(w, rows, q, int(columns.begin), int(columns.end), emit);
}

// out [num][rows of w] = rows [num][columns of w] times w.
template <typename T> void run_gemv(const Matrix& w, int num, const T* rows, float* out, int num_threads) {
    static thread_local ScratchBuffer scratch;
    QuantizedRows quantized;
    if (w.bits <= 8) quantized = QuantizedRows(num, w.columns, scratch);
#pragma omp parallel num_threads(num_threads)
    {
        if (w.bits <= 8) {
#pragma omp for schedule(static)
            for (int r = 0; r < num; r++) quantized.set(r, rows + size_t(r) * w.columns, w.columns);
        }
        const Worker worker{omp_get_thread_num(), omp_get_num_threads()};
        gemv<T>(w, num, rows, quantized, worker.share(w.rows, LANES),
                [&](int r, int c, float x) { out[size_t(r) * w.rows + c] = x; });
    }
}

}  // namespace
