// GEMM of many rows in integers of 8 bits: both sides are quantized, which costs precision and is opt-in
// (`--arithmetic int8`).

#pragma once

#include "integer_dot.h"
#include "quantized.h"
#include "scratch.h"

namespace {

constexpr int ROW_TILE = 6;             // rows of a register tile
constexpr int STRIP_TILE = 4;           // strips of a register tile
constexpr int M_BLOCK = 40 * ROW_TILE;  // rows whose sums stay in cache
constexpr int K_BLOCK = 256;            // numbers of the summed dimension whose weights stay in cache

// Where numbers k to k + 3 of a row lie: rows are interleaved by register tile, [row / 6][column / 4][6][NARROW_STEP],
// so that the microkernel reads them in order.
inline long step_offset(int row, int k, int width) {
    return ((long(row / ROW_TILE) * (width / 4) + k / 4) * ROW_TILE + row % ROW_TILE) * NARROW_STEP;
}

// The microkernel: acc[6][REGISTERS * INT_LANES] += six rows times REGISTERS registers of weights, which lie
// `b_register` bytes apart, over `steps` times 4 numbers. Rows of `acc` lie `acc_row` numbers apart.
template <int REGISTERS>
inline void gemm_int8_registers(const int8_t* a, const uint8_t* b, long b_register, int steps, int32_t* acc,
                                int acc_row) {
    RegisterInts sums[ROW_TILE][REGISTERS];
    for (int r = 0; r < ROW_TILE; r++)
        for (int s = 0; s < REGISTERS; s++) sums[r][s] = load_ints(acc + r * acc_row + s * INT_LANES);
    for (int q = 0; q < steps; q++) {
        Weights part[REGISTERS];
#pragma GCC unroll 4
        for (int s = 0; s < REGISTERS; s++) part[s] = unpack(load_ints(b + s * b_register + long(q) * 64));
#pragma GCC unroll 2
        for (int word = 0; word < NARROW_WORDS; word++)
#pragma GCC unroll 6
            for (int r = 0; r < ROW_TILE; r++) {
                const RegisterInts numbers = broadcast_word(a + (q * ROW_TILE + r) * NARROW_STEP + word * 4);
#pragma GCC unroll 4
                for (int s = 0; s < REGISTERS; s++) sums[r][s] = add_narrow(sums[r][s], part[s], word, numbers);
            }
    }
    for (int r = 0; r < ROW_TILE; r++)
        for (int s = 0; s < REGISTERS; s++) store_ints(acc + r * acc_row + s * INT_LANES, sums[r][s]);
}

// acc[6][STRIPS][16] += six rows times STRIPS strips, which lie `strip_bytes` apart, over `steps` times 4 numbers: as
// many registers at a time as the CPU has room for.
template <int STRIPS>
inline void gemm_int8_tile(const int8_t* a, const uint8_t* b, long strip_bytes, int steps, int32_t* acc) {
    constexpr int ACC_ROW = STRIPS * LANES;
    if constexpr (HAS_VNNI && INT_PIECES == 1) {
        gemm_int8_registers<STRIPS>(a, b, strip_bytes, steps, acc, ACC_ROW);
    } else {
        constexpr int REGISTERS = HAS_VNNI ? 2 : 1;
        for (int s = 0; s < STRIPS; s++)
            for (int p = 0; p < INT_PIECES; p += REGISTERS)
                gemm_int8_registers<REGISTERS>(a, b + s * strip_bytes + p * INT_LANES * 4, INT_LANES * 4, steps,
                                               acc + s * LANES + p * INT_LANES, ACC_ROW);
    }
}

// Strips of 4 bits as strips of 8 bits with one scale for each row, which is what the microkernel multiplies.
inline void int4_to_int8(const Matrix& w, long strip, int strips, uint8_t* data, float* scales) {
    const int width = round_up(w.columns, GROUP), groups = width / GROUP;
    for (long s = 0; s < strips; s++) {
        const uint8_t* from = static_cast<const uint8_t*>(w.data) + (strip + s) * (width / 2) * LANES;
        const bf16* of_groups = static_cast<const bf16*>(w.scales) + (strip + s) * groups * LANES;
        uint8_t* to = data + s * width * LANES;
        // The largest magnitude that any group's scale allows; the numbers themselves would gain less than a bit.
        Floats top = broadcast(0.0f);
        for (int g = 0; g < groups; g++) {
            Floats scale = load(of_groups + g * LANES);
            top = max(top, max(scale * 8.0f, scale * -8.0f));
        }
        store(scales + s * LANES, top * (1 / 127.0f));
        for (int g = 0; g < groups; g++) {
            Floats by = load(of_groups + g * LANES) * 127.0f / (top > 0.0f ? top : broadcast(1.0f));
            for (int v = 0; v < 4; v++) {
                Ints bytes = *reinterpret_cast<const Ints*>(from + (g * 4 + v) * 64);
                for (int half = 0; half < 2; half++, bytes >>= 4) {
                    Ints out = broadcast(0);
                    for (int shift = 0; shift < 32; shift += 8) {
                        Floats q = __builtin_convertvector((bytes >> shift & 15) - 8, Floats) * by;
                        out |= (round_to_int(q) + 128) << shift;
                    }
                    *reinterpret_cast<Ints*>(to + (g * 8 + v * 2 + half) * 64) = out;
                }
            }
        }
    }
}

// One panel of STRIPS strips: columns `column` and on of out [rows][columns].
template <int STRIPS>
inline void gemm_int8_panel(const uint8_t* data, const float* scales, int width, int rows, const int8_t* a,
                           const float* a_scale, const int32_t* a_sum, int32_t* acc, float* out, int column,
                           int columns) {
    const int wide = std::min(STRIPS * LANES, columns - column);
    for (int top = 0; top < rows; top += M_BLOCK) {
        const int height = std::min(M_BLOCK, rows - top);
        std::fill(acc, acc + round_up(height, ROW_TILE) * STRIPS * LANES, 0);
        for (int k = 0; k < width; k += K_BLOCK)
            for (int r = 0; r < height; r += ROW_TILE)
                gemm_int8_tile<STRIPS>(a + step_offset(top + r, k, width), data + long(k) * LANES, long(width) * LANES,
                                       std::min(K_BLOCK, width - k) / 4, acc + r * STRIPS * LANES);
        for (int r = 0; r < height; r++) {
            float* to = out + long(top + r) * columns + column;
            const float scale = a_scale[top + r];
            const int32_t offset = 128 * a_sum[top + r];
            for (int c = 0; c < wide; c++) to[c] = float(acc[r * STRIPS * LANES + c] - offset) * (scales[c] * scale);
        }
    }
}

// out [num][w.rows] = rows of signed bytes, with a scale and a sum each, times a quantized matrix.
inline void gemm_int8(const Matrix& w, int num, const int8_t* a, const float* a_scale, const int32_t* a_sum, float* out,
                      int num_threads) {
    static thread_local ScratchBuffer widened_scratch, acc_scratch;
    const int width = round_up(w.columns, GROUP), strips = round_up(w.rows, LANES) / LANES;
    const int panels = (strips + STRIP_TILE - 1) / STRIP_TILE;
    const PerThread<uint8_t> widened_panels(widened_scratch, w.bits == 4 ? num_threads : 0,
                                            size_t(width) * LANES * STRIP_TILE);
    const PerThread<int32_t> accs(acc_scratch, num_threads, M_BLOCK * STRIP_TILE * LANES);
#pragma omp parallel num_threads(num_threads)
    {
        uint8_t* widened = widened_panels.of(omp_get_thread_num());
        int32_t* acc = accs.of(omp_get_thread_num());
        float widened_scales[STRIP_TILE * LANES];
#pragma omp for schedule(dynamic)
        for (int panel = 0; panel < panels; panel++) {
            const long strip = long(panel) * STRIP_TILE;
            const int count = std::min(STRIP_TILE, int(strips - strip)), column = int(strip) * LANES;
            const uint8_t* data = static_cast<const uint8_t*>(w.data) + strip * width * LANES;
            const float* scales = static_cast<const float*>(w.scales) + strip * LANES;
            if (w.bits == 4) {
                int4_to_int8(w, strip, count, widened, widened_scales);
                data = widened, scales = widened_scales;
            }
            auto run = [&](auto f) { f(data, scales, width, num, a, a_scale, a_sum, acc, out, column, w.rows); };
            if (count == 4) run(gemm_int8_panel<4>);
            if (count == 3) run(gemm_int8_panel<3>);
            if (count == 2) run(gemm_int8_panel<2>);
            if (count == 1) run(gemm_int8_panel<1>);
        }
    }
}

// A row as signed bytes with one scale; a NaN or an infinity makes the scale NaN.
template <typename T>
void quantize_row_int8(const T* x, int row, int columns, int width, int8_t* out, float* scale, int32_t* total) {
    const float largest = max_abs(x, columns);
    *scale = largest / 127;
    const float inverse = largest > 0 && largest - largest == 0 ? 127 / largest : 0;
    Ints totals = broadcast(0);
    for (int k = 0; k < width; k += LANES) {
        Ints q = inverse == 0 ? broadcast(0) : round_to_int(load(x + k, columns - k) * inverse);
        int32_t numbers[LANES];
        std::memcpy(numbers, &q, sizeof q);
        for (int i = 0; i < LANES; i += 4) store_narrow(out + step_offset(row, k + i, width), numbers + i);
        totals += q;
    }
    *total = reduce_sum(totals);
}

// out [num][rows of w] = rows [num][columns of w], quantized to 8 bits, times a quantized w.
template <typename T> void run_gemm_int8(const Matrix& w, int num, const T* rows, float* out, int num_threads) {
    static thread_local ScratchBuffer numbers_scratch, scales_scratch, sums_scratch;
    const int width = round_up(w.columns, GROUP), padded_num = round_up(num, ROW_TILE);
    int8_t* numbers = numbers_scratch.reserve<int8_t>(padded_num, size_t(width) / 4 * NARROW_STEP);
    float* scales = scales_scratch.reserve<float>(num);
    int32_t* sums = sums_scratch.reserve<int32_t>(num);
    for (int r = num; r < padded_num; r++)
        for (int k = 0; k < width; k += 4) std::memset(numbers + step_offset(r, k, width), 0, NARROW_STEP);
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int r = 0; r < num; r++)
        quantize_row_int8(rows + size_t(r) * w.columns, r, w.columns, width, numbers, scales + r, sums + r);
    gemm_int8(w, num, numbers, scales, sums, out, num_threads);
}

}  // namespace
