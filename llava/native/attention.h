// Attention over the paged KV cache with an online softmax: one pass over the positions, 64 of them ("a KV tile") at a
// time, without ever holding a whole row of scores.
//
// Source: Milakov and Gimelshein 2018 (online softmax), Dao et al. 2022 (FlashAttention).

#pragma once

#include "kv_cache.h"
#include "scratch.h"

#include <vector>

namespace {

constexpr int MAX_ROWS = 48;  // queries that attend together
constexpr int KV_TILE = 64;   // positions multiplied together
constexpr int32_t LANE_INDEX[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// The dtype in which a cache's numbers are multiplied. Where a CPU has no bfloat16 dot product it is float32, and each
// KV tile is widened once for all queries.
#if defined(__AVX512BF16__)
template <typename T> using ComputeType = T;
#else
template <typename T> using ComputeType = float;
#endif

// out[ROWS][16 * VECTORS] (+)= a[ROWS][k] * b[k / depth][16 * VECTORS][depth], in registers. `b`'s rows and vectors lie
// `b_row` and `b_vector` elements apart.
template <typename T, int ROWS, int VECTORS>
inline void microkernel(const T* a, long a_row, const T* b, long b_row, long b_vector, int k, float* out, long out_row,
                        bool add) {
    constexpr int DEPTH = DotStep<T>::DEPTH;
    Floats acc[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) acc[r][v] = add ? load(out + r * out_row + v * LANES) : broadcast(0.0f);
    for (int i = 0; i < k; i += DEPTH) {
        const T* row = b + long(i / DEPTH) * b_row;
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++)
                acc[r][v] = DotStep<T>::fma(acc[r][v], a + r * a_row + i, row + v * b_vector);
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) store(out + r * out_row + v * LANES, acc[r][v]);
}

template <typename T, int VECTORS>
inline void gemm_rows(int rows, const T* a, long a_row, const T* b, long b_row, long b_vector, int k, float* out,
                      long out_row, bool add) {
    constexpr int BLOCK = VECTORS >= 4 ? 6 : 8;
    for (; rows >= BLOCK; rows -= BLOCK, a += BLOCK * a_row, out += BLOCK * out_row)
        microkernel<T, BLOCK, VECTORS>(a, a_row, b, b_row, b_vector, k, out, out_row, add);
    for (; rows >= 2; rows -= 2, a += 2 * a_row, out += 2 * out_row)
        microkernel<T, 2, VECTORS>(a, a_row, b, b_row, b_vector, k, out, out_row, add);
    if (rows) microkernel<T, 1, VECTORS>(a, a_row, b, b_row, b_vector, k, out, out_row, add);
}

// The same for any number of rows and vectors.
template <typename T>
inline void gemm(int rows, const T* a, long a_row, const T* b, long b_row, long b_vector, int vectors, int k,
                 float* out, long out_row, bool add) {
    int v = 0;
    for (; v + 4 <= vectors; v += 4)
        gemm_rows<T, 4>(rows, a, a_row, b + v * b_vector, b_row, b_vector, k, out + v * LANES, out_row, add);
    for (; v + 2 <= vectors; v += 2)
        gemm_rows<T, 2>(rows, a, a_row, b + v * b_vector, b_row, b_vector, k, out + v * LANES, out_row, add);
    for (; v < vectors; v++)
        gemm_rows<T, 1>(rows, a, a_row, b + v * b_vector, b_row, b_vector, k, out + v * LANES, out_row, add);
}

#if !defined(__AVX512F__)
// The same for 16 columns of float32 where a register holds fewer lanes: in vectors as wide as a register, since
// compilers keep wider ones in memory. Six rows fit AVX2's 16 registers: 12 sums, 2 vectors of b and a number of a.
template <int ROWS>
inline void microkernel16(const float* a, long a_row, const float* b, long b_row, int k, float* out, long out_row,
                          bool add) {
    RegisterFloats acc[ROWS][PIECES];
    for (int r = 0; r < ROWS; r++)
        for (int p = 0; p < PIECES; p++)
            acc[r][p] = add ? load_register(out + r * out_row + p * REGISTER_LANES) : RegisterFloats{};
    for (int i = 0; i < k; i++) {
        RegisterFloats row[PIECES];
#pragma GCC unroll 4
        for (int p = 0; p < PIECES; p++) row[p] = load_register(b + i * b_row + p * REGISTER_LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            const float x = a[r * a_row + i];
#pragma GCC unroll 4
            for (int p = 0; p < PIECES; p++) acc[r][p] += x * row[p];
        }
    }
    for (int r = 0; r < ROWS; r++)
        for (int p = 0; p < PIECES; p++) store_register(out + r * out_row + p * REGISTER_LANES, acc[r][p]);
}

inline void gemm(int rows, const float* a, long a_row, const float* b, long b_row, long b_vector, int vectors, int k,
                 float* out, long out_row, bool add) {
    constexpr int BLOCK = 6;
    for (int v = 0; v < vectors; v++, b += b_vector, out += LANES) {
        int r = 0;
        for (; r + BLOCK <= rows; r += BLOCK)
            microkernel16<BLOCK>(a + r * a_row, a_row, b, b_row, k, out + r * out_row, out_row, add);
        for (; r + 2 <= rows; r += 2)
            microkernel16<2>(a + r * a_row, a_row, b, b_row, k, out + r * out_row, out_row, add);
        if (r < rows) microkernel16<1>(a + r * a_row, a_row, b, b_row, k, out + r * out_row, out_row, add);
    }
}
#endif

// The online softmax's state for a group of queries: per row the running maximum and sum of the softmax, and the
// weighted sum of the values [rows][head_dim], all relative to that maximum.
struct OnlineSoftmax {
    float running_max[MAX_ROWS], running_sum[MAX_ROWS];
    alignas(64) float values[MAX_ROWS * MAX_DIM];
    alignas(64) float gathered[KV_TILE * MAX_DIM];  // a tile's keys, then its values, out of all their blocks

    void reset(int rows, int dim) {
        for (int r = 0; r < rows; r++) running_max[r] = -INFINITY, running_sum[r] = 0;
        std::fill(values, values + rows * dim, 0.0f);
    }
    // out [head_dim] = the attention of row r; 0 for a row that sees nothing.
    template <typename Put> void finish(int r, int dim, Put put) const {
        const float scale = running_sum[r] > 0 ? 1 / running_sum[r] : 0;
        for (int d = 0; d < dim; d += LANES) put(d, load(values + r * dim + d) * scale);
    }
};

// The first and the second of 16 pairs.
inline void widen_pairs(const bf16* pairs, float* first, float* second) {
    for (int i = 0; i < LANES; i += REGISTER_LANES) {
        RegisterUInts words;
        std::memcpy(&words, pairs + 2 * i, sizeof words);
        *reinterpret_cast<RegisterUInts*>(first + i) = words << 16;
        *reinterpret_cast<RegisterUInts*>(second + i) = words & 0xffff0000u;
    }
}

// `count` keys or values of one block as they are multiplied. Widened, the depth becomes 1: keys [dim][16] of 16
// positions each, values [count][dim].
template <typename T> void gather_keys(const T* from, int count, int dim, T* to) {
    std::copy(from, from + count * dim, to);
}
template <typename T> void gather_values(const T* from, int count, int dim, T* to) {
    std::copy(from, from + count * dim, to);
}
inline void gather_keys(const bf16* from, int count, int dim, float* to) {
    for (int i = 0; i < count * dim; i += 2 * LANES)
        widen_pairs(from + i, to + i, to + i + LANES);
}
inline void gather_values(const bf16* from, int count, int dim, float* to) {
    for (int i = 0; i < count; i += 2)
        for (int d = 0; d < dim; d += LANES)
            widen_pairs(from + long(i) * dim + d * 2, to + long(i) * dim + d, to + long(i + 1) * dim + d);
}

// The queries of one KV head that attend together, [rows][head_dim]: row r sees positions first[r] to last[r] of one
// block table. block_tokens is a multiple of 16.
template <typename T> struct AttentionTask {
    const KVLayout& kv;
    const T *keys, *values;
    const int32_t* table;
    int head;
    const ComputeType<T>* queries;
    int rows;
    const int *first, *last;
    float scale;

    // Blocks are short. For many rows it pays to gather a tile out of them first; to widen a tile, it must be gathered.
    bool gathers() const { return !std::is_same<T, ComputeType<T>>::value || rows >= 8; }
    const T* block_at(const T* cache, int position) const {
        return kv.at(cache, table[position / kv.block_tokens], head) + long(position % kv.block_tokens) * kv.head_dim;
    }
};

// Prefetches positions begin to end: a block holds too little of one head for the hardware's prefetcher to help.
template <typename T> inline void prefetch_tile(const AttentionTask<T>& task, const T* cache, int begin, int end) {
    for (int position = begin; position < end; position += LANES) {
        const T* block = task.block_at(cache, position);
        for (int i = 0; i < LANES * task.kv.head_dim; i += 64 / int(sizeof(T))) __builtin_prefetch(block + i);
    }
}

// scores[rows][KV_TILE] = queries times the keys of `vectors` * 16 positions from `start` on.
template <typename T>
inline void score_tile(const AttentionTask<T>& task, int start, int vectors, ComputeType<T>* gathered, float* scores) {
    using C = ComputeType<T>;
    const int dim = task.kv.head_dim, block_tokens = task.kv.block_tokens;
    const long b_row = long(LANES) * DotStep<C>::DEPTH, b_vector = long(LANES) * dim;
    for (int v = 0; v < vectors;) {  // the vectors of one block at a time
        const int position = start + v * LANES;
        const int run = std::min(vectors - v, (block_tokens - position % block_tokens) / LANES);
        const T* block = task.block_at(task.keys, position);
        if (task.gathers())
            gather_keys(block, run * LANES, dim, gathered + v * b_vector);
        else
            gemm(task.rows, task.queries, dim, (const C*)block, b_row, b_vector, run, dim, scores + v * LANES,
                    KV_TILE, false);
        v += run;
    }
    if (task.gathers())
        gemm(task.rows, task.queries, dim, gathered, b_row, b_vector, vectors, dim, scores, KV_TILE, false);
}

// Turns row r of a tile's scores into softmax weights relative to the new running maximum, and rescales what the row
// has accumulated to that maximum.
template <typename T>
inline void update_softmax(const AttentionTask<T>& task, int r, int start, int vectors, bool is_masked, float* scores,
                           ComputeType<T>* weights, OnlineSoftmax& state) {
    typedef decltype(RegisterFloats{} < RegisterFloats{}) Integers;
    const RegisterFloats nothing = RegisterFloats{} - INFINITY;
    Pieces top, sums = {};
    for (RegisterFloats& piece : top.of) piece = nothing;
    for (int v = 0; v < vectors * LANES; v += LANES)
        for (int p = 0; p < PIECES; p++) {
            float* at = scores + v + p * REGISTER_LANES;
            RegisterFloats s = load_register(at) * task.scale;
            if (is_masked) {
                Integers position;
                std::memcpy(&position, &LANE_INDEX[p * REGISTER_LANES], sizeof position);
                position += start + v;
                s = (position < task.first[r]) | (position > task.last[r]) ? nothing : s;
            }
            store_register(at, s);
            top.of[p] = max<RegisterFloats>(top.of[p], s);
        }
    const float new_max = std::max(state.running_max[r], reduce_max(top));
    if (new_max == -INFINITY) {  // the row sees nothing yet
        for (int i = 0; i < vectors * LANES; i++) store(weights + i, 0.0f);
        return;
    }
    const float rescale = new_max == state.running_max[r] ? 1.0f : std::exp(state.running_max[r] - new_max);
    for (int v = 0; v < vectors * LANES; v += LANES)
        for (int p = 0; p < PIECES; p++) {
            const int i = v + p * REGISTER_LANES;
            const RegisterFloats e = exp_nonpositive<RegisterFloats>(load_register(scores + i) - new_max);
            sums.of[p] += e;
            store_register(weights + i, e);
        }
    state.running_sum[r] = state.running_sum[r] * rescale + reduce_sum(sums);
    if (rescale != 1.0f)
        for (int d = 0; d < task.kv.head_dim; d += LANES) {
            float* values = state.values + r * task.kv.head_dim + d;
            store(values, load(values) * rescale);
        }
    state.running_max[r] = new_max;
}

// state.values += weights[rows][KV_TILE] times the values of `count` positions from `start` on.
template <typename T>
inline void accumulate_values(const AttentionTask<T>& task, int start, int count, const ComputeType<T>* weights,
                              ComputeType<T>* gathered, OnlineSoftmax& state) {
    using C = ComputeType<T>;
    const int dim = task.kv.head_dim, block_tokens = task.kv.block_tokens;
    const long b_row = long(DotStep<C>::DEPTH) * dim, b_vector = long(LANES) * DotStep<C>::DEPTH;
    // The cache holds whole pairs; the second of an odd last one has weight 0.
    const int padded = (count + DotStep<T>::DEPTH - 1) / DotStep<T>::DEPTH * DotStep<T>::DEPTH;
    for (int done = 0; done < padded;) {  // the positions of one block at a time
        const int position = start + done, run = std::min(padded - done, block_tokens - position % block_tokens);
        const T* block = task.block_at(task.values, position);
        if (task.gathers())
            gather_values(block, run, dim, gathered + long(done) * dim);
        else
            gemm(task.rows, weights + done, KV_TILE, (const C*)block, b_row, b_vector, dim / LANES, run,
                    state.values, dim, true);
        done += run;
    }
    if (task.gathers())
        gemm(task.rows, weights, KV_TILE, gathered, b_row, b_vector, dim / LANES, padded, state.values, dim, true);
}

// Attends to positions `from` to `to` (`from` a multiple of 16) and adds what the queries see there to `state`.
template <typename T> void attend_chunk(const AttentionTask<T>& task, int from, int to, OnlineSoftmax& state) {
    alignas(64) float scores[MAX_ROWS * KV_TILE];
    alignas(64) ComputeType<T> weights[MAX_ROWS * KV_TILE];
    auto* gathered = reinterpret_cast<ComputeType<T>*>(state.gathered);
    const bool prefetches = task.rows < MAX_ROWS / 2;
    // Every row sees all positions between these two.
    const int all_from = *std::max_element(task.first, task.first + task.rows);
    const int all_to = *std::min_element(task.last, task.last + task.rows);
    for (int start = from; start < to; start += KV_TILE) {
        const int count = std::min(KV_TILE, to - start), vectors = (count + LANES - 1) / LANES;
        const int next = start + KV_TILE, next_end = std::min(next + KV_TILE, to);
        if (prefetches) prefetch_tile(task, task.keys, next, next_end);
        score_tile(task, start, vectors, gathered, scores);
        if (prefetches) prefetch_tile(task, task.values, next, next_end);
        const bool is_masked = start < all_from || start + vectors * LANES - 1 > all_to;
        for (int r = 0; r < task.rows; r++)
            update_softmax(task, r, start, vectors, is_masked, scores + r * KV_TILE, weights + r * KV_TILE, state);
        accumulate_values(task, start, count, weights, gathered, state);
    }
}

// Queries begin to end of request `row`, under one KV head.
struct QueryChunk {
    int row, head, begin, end;
};

// Cuts all queries into chunks of at most `step`. The last queries of a request see the most, so they go first: no
// thread is left alone with them at the end.
inline std::vector<QueryChunk> cut_queries(const Attention& a, int step) {
    std::vector<QueryChunk> chunks;
    for (int r = 0; r < a.num_rows; r++)
        for (int end = a.starts[r + 1] - a.starts[r]; end > 0; end -= step)
            for (int h = 0; h < a.num_kv_heads; h++) chunks.push_back({r, h, std::max(0, end - step), end});
    return chunks;
}

template <typename T>
void attend_query_chunk(const Attention& a, const QueryChunk& chunk, const T* queries, const T* keys, const T* values,
                        T* out, OnlineSoftmax& state) {
    const KVLayout kv{a.block_tokens, a.num_kv_heads, a.head_dim};
    const int group = a.num_heads / a.num_kv_heads, dim = a.head_dim;
    const int start = a.starts[chunk.row], num = a.starts[chunk.row + 1] - start, length = a.lengths[chunk.row];
    alignas(64) ComputeType<T> gathered[MAX_ROWS * MAX_DIM];
    int first[MAX_ROWS], last[MAX_ROWS];
    const int rows = (chunk.end - chunk.begin) * group;
    auto offset_of = [&](int r) {  // where row r's query and output lie
        return (long(start + chunk.begin + r / group) * a.num_heads + chunk.head * group + r % group) * dim;
    };
    for (int r = 0; r < rows; r++) {
        const T* query = queries + offset_of(r);
        for (int d = 0; d < dim; d += LANES) store(gathered + r * dim + d, load(query + d));
        last[r] = a.is_bidirectional ? length - 1 : length - num + chunk.begin + r / group;
        first[r] = a.window ? std::max(0, last[r] - a.window + 1) : 0;
    }
    const int32_t* table = a.tables + long(chunk.row) * a.table_stride;
    state.reset(rows, dim);
    attend_chunk<T>({kv, keys, values, table, chunk.head, gathered, rows, first, last, a.scale},
                    first[0] / LANES * LANES, last[rows - 1] + 1, state);
    for (int r = 0; r < rows; r++) {
        T* to = out + offset_of(r);
        state.finish(r, dim, [=](int d, Floats x) { store(to + d, x); });
    }
}

// out [N][heads][head_dim] = attention of the last queries of every request over its own positions.
template <typename T> void attend(const Attention& a, const T* queries, const T* keys, const T* values, T* out) {
    static thread_local ScratchBuffer scratch;
    const PerThread<OnlineSoftmax> states(scratch, a.num_threads);
    const std::vector<QueryChunk> chunks = cut_queries(a, std::max(1, MAX_ROWS / (a.num_heads / a.num_kv_heads)));
#pragma omp parallel for num_threads(a.num_threads) schedule(dynamic)
    for (size_t i = 0; i < chunks.size(); i++)
        attend_query_chunk(a, chunks[i], queries, keys, values, out, *states.of(omp_get_thread_num()));
}

}  // namespace
