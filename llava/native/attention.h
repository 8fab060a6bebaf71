// Attention over keys and values in blocks.
//
// Both caches hold, per layer, block and kv head, what the products below read in order ("pairs" are neighbours of the
// summed dimension, 2 for bfloat16 and 1 for float32; a lane is one of 16 columns):
//
//     keys    [block_tokens / 16][head_dim / pairs][16 lanes][pairs]     a vector is one dimension (pair) of 16 positions
//     values  [block_tokens / pairs][head_dim][pairs]                    a vector is 16 dimensions of one position (pair)

#pragma once

#include "vectors.h"

namespace {

// out[ROWS][16 * VECTORS] (+)= a[ROWS][k] * b[k / pairs][16 * VECTORS][pairs], `b`'s rows and vectors being apart by
// `b_row` and `b_vector` elements.
template <typename T, int ROWS, int VECTORS>
inline void tile(const T* a, long a_row, const T* b, long b_row, long b_vector, int k, float* out, long out_row, bool add) {
    constexpr int P = Pairs<T>::N;
    Floats acc[ROWS][VECTORS];
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) acc[r][v] = add ? load(out + r * out_row + v * LANES) : splat(0.0f);
    for (int i = 0; i < k; i += P) {
        const T* row = b + long(i / P) * b_row;
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++)
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) acc[r][v] = Pairs<T>::madd(acc[r][v], a + r * a_row + i, row + v * b_vector);
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) save(out + r * out_row + v * LANES, acc[r][v]);
}

template <typename T, int VECTORS>
inline void tile_rows(int rows, const T* a, long a_row, const T* b, long b_row, long b_vector, int k, float* out,
                      long out_row, bool add) {
    constexpr int BLOCK = VECTORS >= 4 ? 6 : 8;
    for (; rows >= BLOCK; rows -= BLOCK, a += BLOCK * a_row, out += BLOCK * out_row)
        tile<T, BLOCK, VECTORS>(a, a_row, b, b_row, b_vector, k, out, out_row, add);
    for (; rows >= 2; rows -= 2, a += 2 * a_row, out += 2 * out_row)
        tile<T, 2, VECTORS>(a, a_row, b, b_row, b_vector, k, out, out_row, add);
    if (rows) tile<T, 1, VECTORS>(a, a_row, b, b_row, b_vector, k, out, out_row, add);
}

template <typename T>
inline void product(int rows, const T* a, long a_row, const T* b, long b_row, long b_vector, int vectors, int k,
                    float* out, long out_row, bool add) {
    int v = 0;
    for (; v + 4 <= vectors; v += 4)
        tile_rows<T, 4>(rows, a, a_row, b + v * b_vector, b_row, b_vector, k, out + v * LANES, out_row, add);
    for (; v + 2 <= vectors; v += 2)
        tile_rows<T, 2>(rows, a, a_row, b + v * b_vector, b_row, b_vector, k, out + v * LANES, out_row, add);
    for (; v < vectors; v++)
        tile_rows<T, 1>(rows, a, a_row, b + v * b_vector, b_row, b_vector, k, out + v * LANES, out_row, add);
}

struct Cache {
    int block_tokens, num_kv_heads, head_dim;
    long per_head() const { return long(block_tokens) * head_dim; }
    template <typename T> T* at(T* cache, long block, int head) const {
        return cache + (block * num_kv_heads + head) * per_head();
    }
};

template <typename T> void write_key(const Cache& c, T* head, int place, const float* key) {
    constexpr int P = Pairs<T>::N;
    T* at = head + long(place / LANES) * LANES * c.head_dim + (place % LANES) * P;
    for (int d = 0; d < c.head_dim; d++) store(at + long(d / P) * LANES * P + d % P, key[d]);
}

// `is_last`: the next place is not written in this step. Its part of a pair is then cleared, since whatever lies there is
// multiplied by zero, and zero times a NaN that another request left is no zero.
template <typename T> void write_value(const Cache& c, T* head, int place, const float* value, bool is_last) {
    constexpr int P = Pairs<T>::N;
    T* at = head + long(place / P) * P * c.head_dim + place % P;
    for (int d = 0; d < c.head_dim; d++) store(at + long(d) * P, value[d]);
    if (P == 2 && place % 2 == 0 && is_last)
        for (int d = 0; d < c.head_dim; d++) store(at + long(d) * P + 1, 0.0f);
}

// What a group of queries has seen of its positions so far: the softmax's running maximum and sum, and the weighted
// values, [rows][head_dim].
constexpr int MAX_ROWS = 48;
constexpr int KEYS = 64;  // positions looked at together
constexpr int MAX_DIM = 256;
constexpr Ints COUNT = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct Seen {
    float largest[MAX_ROWS], total[MAX_ROWS];
    alignas(64) float values[MAX_ROWS * MAX_DIM];
    alignas(64) float near[KEYS * MAX_DIM];  // the keys or values looked at, out of all their blocks
    void begin(int rows, int dim) {
        for (int r = 0; r < rows; r++) largest[r] = -INFINITY, total[r] = 0;
        std::fill(values, values + rows * dim, 0.0f);
    }
};

// What numbers in a cache are multiplied as: where a CPU has no instructions for pairs of bfloat16, as float32, and each
// run of vectors is widened once for all queries of a piece.
#if defined(__AVX512BF16__)
template <typename T> using Worked = T;
#else
template <typename T> using Worked = float;
#endif

inline void widen_pairs(const Words words, float* first, float* second) {
    save(first, as_floats(words << 16));
    save(second, as_floats(words & 0xffff0000u));
}

// `count` keys or values of one block, as they are multiplied: [dim / pairs][16][pairs] of 16 keys as [dim][16], and
// [count / pairs][dim][pairs] values as [count][dim].
template <typename T> void bring_keys(const T* from, int count, int dim, T* to) { std::copy(from, from + count * dim, to); }
template <typename T> void bring_values(const T* from, int count, int dim, T* to) { bring_keys(from, count, dim, to); }
inline void bring_keys(const bf16* from, int count, int dim, float* to) {
    for (int i = 0; i < count * dim; i += 2 * LANES)
        widen_pairs(*reinterpret_cast<const Words*>(from + i), to + i, to + i + LANES);
}
inline void bring_values(const bf16* from, int count, int dim, float* to) {
    for (int i = 0; i < count; i += 2)
        for (int d = 0; d < dim; d += LANES)
            widen_pairs(*reinterpret_cast<const Words*>(from + long(i) * dim + d * 2), to + long(i) * dim + d,
                        to + long(i + 1) * dim + d);
}

// Looks at positions `from` to `to` of a table (`from` a multiple of 16): rows of `queries` [rows][dim], of which row r
// may see positions first[r] to last[r]. block_tokens is a multiple of 16.
template <typename T>
void look(const Cache& c, const T* keys, const T* values, const int32_t* table, int head, const Worked<T>* queries,
          int rows, const int* first, const int* last, int from, int to, float scale, Seen& seen) {
    using W = Worked<T>;
    constexpr int P = Pairs<W>::N;
    const int dim = c.head_dim;
    alignas(64) float scores[MAX_ROWS * KEYS];
    alignas(64) W weights[MAX_ROWS * KEYS];
    W* near = reinterpret_cast<W*>(seen.near);
    // Blocks are short. For many rows it pays to put what is in them together first; numbers to be widened have to be.
    const bool gathers = !std::is_same<T, W>::value || rows >= 8;
    // A block holds too little of one head for the hardware to see what comes next.
    auto ask_for = [&](const T* cache, int begin, int end) {
        for (int position = begin; position < end; position += LANES) {
            const T* block = c.at(cache, table[position / c.block_tokens], head) + long(position % c.block_tokens) * dim;
            for (int i = 0; i < LANES * dim; i += 64 / int(sizeof(T))) __builtin_prefetch(block + i);
        }
    };
    int least = *std::max_element(first, first + rows), most = *std::min_element(last, last + rows);
    for (int start = from; start < to; start += KEYS) {
        int count = std::min(KEYS, to - start), vectors = (count + LANES - 1) / LANES;
        const int next = start + KEYS, end_of_next = std::min(next + KEYS, to);
        if (rows < MAX_ROWS / 2) ask_for(keys, next, end_of_next);
        // Whole runs of vectors inside one block at a time.
        for (int v = 0; v < vectors;) {
            int position = start + v * LANES, place = position % c.block_tokens;
            int run = std::min(vectors - v, (c.block_tokens - place) / LANES);
            const T* block = c.at(keys, table[position / c.block_tokens], head) + long(place) * dim;
            if (gathers)
                bring_keys(block, run * LANES, dim, near + long(v) * LANES * dim);
            else
                product<W>(rows, queries, dim, (const W*)block, long(LANES) * P, long(LANES) * dim, run, dim,
                           scores + v * LANES, KEYS, false);
            v += run;
        }
        if (gathers)
            product<W>(rows, queries, dim, near, long(LANES) * P, long(LANES) * dim, vectors, dim, scores, KEYS, false);
        if (rows < MAX_ROWS / 2) ask_for(values, next, end_of_next);
        bool is_whole = start >= least && start + vectors * LANES - 1 <= most;
        for (int r = 0; r < rows; r++) {
            float* row = scores + r * KEYS;
            Floats top = splat(-INFINITY);
            for (int v = 0; v < vectors; v++) {
                Floats s = load(row + v * LANES) * scale;
                if (!is_whole) {
                    Ints position = COUNT + (start + v * LANES);
                    s = (position < first[r]) | (position > last[r]) ? splat(-INFINITY) : s;
                }
                save(row + v * LANES, s);
                top = larger(top, s);
            }
            float highest = std::max(seen.largest[r], largest_of(top));
            W* w = weights + r * KEYS;
            if (highest == -INFINITY) {  // nothing to see here yet
                for (int i = 0; i < vectors * LANES; i++) store(w + i, 0.0f);
                continue;
            }
            float shrink = highest == seen.largest[r] ? 1.0f : std::exp(seen.largest[r] - highest);
            Floats sums = splat(0.0f);
            for (int v = 0; v < vectors; v++) {
                Floats e = exponential(load(row + v * LANES) - highest);
                sums += e;
                save(w + v * LANES, e);
            }
            seen.total[r] = seen.total[r] * shrink + sum(sums);
            if (shrink != 1.0f)
                for (int d = 0; d < dim; d += LANES) {
                    float* to_shrink = seen.values + r * dim + d;
                    save(to_shrink, load(to_shrink) * shrink);
                }
            seen.largest[r] = highest;
        }
        // A cache of pairs has both of the last one, whatever the second is multiplied with.
        const int pairs = (count + Pairs<T>::N - 1) / Pairs<T>::N * Pairs<T>::N;
        for (int done = 0; done < pairs;) {
            int position = start + done, place = position % c.block_tokens;
            int run = std::min(pairs - done, c.block_tokens - place);
            const T* block = c.at(values, table[position / c.block_tokens], head) + long(place) * dim;
            if (gathers)
                bring_values(block, run, dim, near + long(done) * dim);
            else
                product<W>(rows, weights + done, KEYS, (const W*)block, long(P) * dim, long(LANES) * P, dim / LANES,
                           run, seen.values, dim, true);
            done += run;
        }
        if (gathers)
            product<W>(rows, weights, KEYS, near, long(P) * dim, long(LANES) * P, dim / LANES, pairs, seen.values, dim,
                       true);
    }
}

template <typename T> void finish(const Seen& seen, int r, int dim, T* out) {
    float share = seen.total[r] > 0 ? 1 / seen.total[r] : 0;
    for (int d = 0; d < dim; d += LANES) save(out + d, load(seen.values + r * dim + d) * share);
}

}  // namespace

extern "C" {

struct Attention {
    int32_t num_rows, num_heads, num_kv_heads, head_dim, block_tokens, table_stride, window, num_threads;
    int32_t sees_all;  // a query sees all positions of its request, those behind its own too
    float scale;
    const int32_t* starts;   // [rows + 1] where each request's queries begin
    const int32_t* lengths;  // [rows] its positions, these queries' own at the end
    const int32_t* tables;   // [rows][table_stride]
};
}

namespace {

// A piece of work: queries begin to end of a request under one kv head.
struct Piece {
    int row, head, begin, end;
};

template <typename T>
void attend(const Attention& a, const T* queries, const T* keys, const T* values, T* out) {
    const Cache cache{a.block_tokens, a.num_kv_heads, a.head_dim};
    const int group = a.num_heads / a.num_kv_heads, dim = a.head_dim;
    const int step = std::max(1, MAX_ROWS / group);  // queries of one piece: all their heads go together
    long num_pieces = 0;
    for (int r = 0; r < a.num_rows; r++)
        num_pieces += long((a.starts[r + 1] - a.starts[r] + step - 1) / step) * a.num_kv_heads;
    Piece* pieces = KEPT(Piece, num_pieces);
    long n = 0;
    for (int r = 0; r < a.num_rows; r++) {
        int count = a.starts[r + 1] - a.starts[r];
        // The last queries see the most: they go first, so that no thread is left with them at the end.
        for (int end = count; end > 0; end -= step)
            for (int h = 0; h < a.num_kv_heads; h++) pieces[n++] = {r, h, std::max(0, end - step), end};
    }
#pragma omp parallel num_threads(a.num_threads)
    {
        Seen* seen = KEPT(Seen, 1);
        alignas(64) Worked<T> gathered[MAX_ROWS * MAX_DIM];
        int first[MAX_ROWS], last[MAX_ROWS];
#pragma omp for schedule(dynamic)
        for (long i = 0; i < num_pieces; i++) {
            const Piece& p = pieces[i];
            int start = a.starts[p.row], count = a.starts[p.row + 1] - start, length = a.lengths[p.row];
            int rows = 0;
            for (int q = p.begin; q < p.end; q++)
                for (int g = 0; g < group; g++, rows++) {
                    const T* query = queries + (long(start + q) * a.num_heads + p.head * group + g) * dim;
                    for (int d = 0; d < dim; d += LANES) save(gathered + rows * dim + d, load(query + d));
                    last[rows] = a.sees_all ? length - 1 : length - count + q;
                    first[rows] = a.window ? std::max(0, last[rows] - a.window + 1) : 0;
                }
            seen->begin(rows, dim);
            look<T>(cache, keys, values, a.tables + long(p.row) * a.table_stride, p.head, gathered, rows, first, last,
                    first[0] / LANES * LANES, last[rows - 1] + 1, a.scale, *seen);
            rows = 0;
            for (int q = p.begin; q < p.end; q++)
                for (int g = 0; g < group; g++, rows++)
                    finish(*seen, rows, dim, out + (long(start + q) * a.num_heads + p.head * group + g) * dim);
        }
    }
}

template <typename T>
void write(const Cache& cache, int num, const T* keys, const T* values, const int64_t* slots, T* key_cache,
           T* value_cache, int num_threads) {
    const int heads = cache.num_kv_heads, dim = cache.head_dim;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long i = 0; i < long(num) * heads; i++) {
        long n = i / heads;
        int head = int(i % heads);
        long block = slots[n] / cache.block_tokens;
        int place = int(slots[n] % cache.block_tokens);
        float row[MAX_DIM];
        for (int d = 0; d < dim; d++) row[d] = to_float(keys[(n * heads + head) * dim + d]);
        write_key(cache, cache.at(key_cache, block, head), place, row);
        for (int d = 0; d < dim; d++) row[d] = to_float(values[(n * heads + head) * dim + d]);
        bool is_last = n + 1 == num || slots[n + 1] != slots[n] + 1;
        write_value(cache, cache.at(value_cache, block, head), place, row, is_last);
    }
}

}  // namespace
