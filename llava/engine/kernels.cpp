// The engine's own arithmetic on a CPU: attention over a paged cache, and whole decoder steps of few positions.
//
// Plain C++ with a C interface, no headers of torch: it compiles in seconds and is called with pointers (native.py).
// One source for every machine: vectors are GCC's and Clang's own, and only what they cannot say (dot products of
// bfloat16 pairs) is written for AVX-512. Results are accumulated in float32 and rounded once.
//
// Both caches hold, per layer, block and kv head, what the products below read in order ("pairs" are neighbours of the
// summed dimension, 2 for bfloat16 and 1 for float32; a lane is one of 16 columns):
//
//     keys    [block_tokens / 16][head_dim / pairs][16 lanes][pairs]     a vector is one dimension (pair) of 16 positions
//     values  [block_tokens / pairs][head_dim][pairs]                    a vector is 16 dimensions of one position (pair)

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif
#include <omp.h>

namespace {

constexpr int LANES = 16;
typedef float Floats __attribute__((vector_size(4 * LANES), aligned(4)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES), aligned(2)));

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

// Round to nearest, ties to even; a NaN stays one.
inline void store(bf16* to, float x) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    to->bits = std::isnan(x) ? 0x7fc0 : uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16);
}
inline void store(float* to, float x) { *to = x; }

inline Floats splat(float x) { return Floats{} + x; }
inline Floats load(const float* p) { return *reinterpret_cast<const Floats*>(p); }
inline void save(float* p, Floats x) { *reinterpret_cast<Floats*>(p) = x; }

inline float sum(Floats x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(__m512(x));
#else
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
#endif
}
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e**x to 2 units in the last place for x <= 0; below -87 it is 0. Cody and Waite's reduction, Cephes' polynomial.
inline Floats exponential(Floats x) {
    Floats clipped = larger(x, splat(-87.0f));
    Floats shifted = clipped * 1.44269504f + 12582912.0f;  // 1.5 * 2**23: rounds to an integer
    Floats whole = shifted - 12582912.0f;
    Floats r = clipped - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
    Ints exponent = __builtin_convertvector(whole, Ints) + 127;
    exponent <<= 23;
    Floats power;
    std::memcpy(&power, &exponent, sizeof power);
    return x < -87.0f ? splat(0.0f) : p * power;
}

// acc += a * b for one (pair of) summed position(s): `a` is one number or pair for all lanes, `b` a vector of them.
template <typename T> struct Pairs;
template <> struct Pairs<float> {
    static constexpr int N = 1;
    static inline Floats madd(Floats acc, const float* a, const float* b) { return acc + *a * load(b); }
};
template <> struct Pairs<bf16> {
    static constexpr int N = 2;
    static inline Floats madd(Floats acc, const bf16* a, const bf16* b) {
        uint32_t pair;
        std::memcpy(&pair, a, 4);
#if defined(__AVX512BF16__)
        __m512i vector = _mm512_loadu_si512(b);
        return Floats(_mm512_dpbf16_ps(__m512(acc), __m512bh(_mm512_set1_epi32(int(pair))), __m512bh(vector)));
#else
        Words words = *reinterpret_cast<const Words*>(b);
        Words low = words << 16, high = words & 0xffff0000u;
        Floats first, second;
        std::memcpy(&first, &low, sizeof first);
        std::memcpy(&second, &high, sizeof second);
        return acc + to_float(a[0]) * first + to_float(a[1]) * second;
#endif
    }
};

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

struct Seen {
    float largest[MAX_ROWS], total[MAX_ROWS];
    alignas(64) float values[MAX_ROWS * MAX_DIM];
    void begin(int rows, int dim) {
        for (int r = 0; r < rows; r++) largest[r] = -INFINITY, total[r] = 0;
        std::fill(values, values + rows * dim, 0.0f);
    }
};

// Looks at positions `from` to `to` of a table (`from` a multiple of 16): rows of `queries` [rows][dim], of which row r
// may see positions first[r] to last[r]. block_tokens is a multiple of 16.
template <typename T>
void look(const Cache& c, const T* keys, const T* values, const int32_t* table, int head, const T* queries, int rows,
          const int* first, const int* last, int from, int to, float scale, Seen& seen) {
    constexpr int P = Pairs<T>::N;
    const int dim = c.head_dim;
    alignas(64) float scores[MAX_ROWS * KEYS];
    alignas(64) T weights[MAX_ROWS * KEYS];
    int least = *std::max_element(first, first + rows), most = *std::min_element(last, last + rows);
    for (int start = from; start < to; start += KEYS) {
        int count = std::min(KEYS, to - start), vectors = (count + LANES - 1) / LANES;
        // Whole runs of vectors inside one block at a time.
        for (int v = 0; v < vectors;) {
            int position = start + v * LANES, place = position % c.block_tokens;
            int run = std::min(vectors - v, (c.block_tokens - place) / LANES);
            const T* b = c.at(keys, table[position / c.block_tokens], head) + long(place) * dim;
            product<T>(rows, queries, dim, b, long(LANES) * P, long(LANES) * dim, run, dim, scores + v * LANES, KEYS,
                       false);
            v += run;
        }
        bool is_whole = start >= least && start + vectors * LANES - 1 <= most;
        for (int r = 0; r < rows; r++) {
            float* row = scores + r * KEYS;
            Floats top = splat(-INFINITY);
            for (int v = 0; v < vectors; v++) {
                Floats s = load(row + v * LANES) * scale;
                if (!is_whole)
                    for (int i = 0; i < LANES; i++) {
                        int position = start + v * LANES + i;
                        if (position < first[r] || position > last[r]) s[i] = -INFINITY;
                    }
                save(row + v * LANES, s);
                top = larger(top, s);
            }
            float highest = seen.largest[r];
            for (int i = 0; i < LANES; i++) highest = std::max(highest, top[i]);
            T* w = weights + r * KEYS;
            if (highest == -INFINITY) {  // nothing to see here yet
                for (int i = 0; i < vectors * LANES; i++) store(w + i, 0.0f);
                continue;
            }
            float shrink = std::exp(seen.largest[r] - highest);
            Floats sums = splat(0.0f);
            for (int v = 0; v < vectors; v++) {
                Floats e = exponential(load(row + v * LANES) - highest);
                sums += e;
                save(row + v * LANES, e);
            }
            for (int i = 0; i < vectors * LANES; i++) store(w + i, row[i]);
            seen.total[r] = seen.total[r] * shrink + sum(sums);
            if (shrink != 1.0f)
                for (int d = 0; d < dim; d += LANES) {
                    float* to_shrink = seen.values + r * dim + d;
                    save(to_shrink, load(to_shrink) * shrink);
                }
            seen.largest[r] = highest;
        }
        const int pairs = (count + P - 1) / P * P;
        for (int done = 0; done < pairs;) {
            int position = start + done, place = position % c.block_tokens;
            int run = std::min(pairs - done, c.block_tokens - place);
            const T* b = c.at(values, table[position / c.block_tokens], head) + long(place) * dim;
            product<T>(rows, weights + done, KEYS, b, long(P) * dim, long(LANES) * P, dim / LANES, run, seen.values,
                       dim, true);
            done += run;
        }
    }
}

template <typename T> void finish(const Seen& seen, int r, int dim, T* out) {
    float share = seen.total[r] > 0 ? 1 / seen.total[r] : 0;
    for (int d = 0; d < dim; d++) store(out + d, seen.values[r * dim + d] * share);
}

}  // namespace

extern "C" {

struct Attention {
    int32_t num_rows, num_heads, num_kv_heads, head_dim, block_tokens, table_stride, window, num_threads;
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
    Piece* pieces = new Piece[num_pieces];
    long n = 0;
    for (int r = 0; r < a.num_rows; r++) {
        int count = a.starts[r + 1] - a.starts[r];
        // The last queries see the most: they go first, so that no thread is left with them at the end.
        for (int end = count; end > 0; end -= step)
            for (int h = 0; h < a.num_kv_heads; h++) pieces[n++] = {r, h, std::max(0, end - step), end};
    }
#pragma omp parallel num_threads(a.num_threads)
    {
        Seen* seen = new Seen;
        alignas(64) T gathered[MAX_ROWS * MAX_DIM];
        int first[MAX_ROWS], last[MAX_ROWS];
#pragma omp for schedule(dynamic)
        for (long i = 0; i < num_pieces; i++) {
            const Piece& p = pieces[i];
            int start = a.starts[p.row], count = a.starts[p.row + 1] - start, length = a.lengths[p.row];
            int rows = 0;
            for (int q = p.begin; q < p.end; q++)
                for (int g = 0; g < group; g++, rows++) {
                    const T* query = queries + (long(start + q) * a.num_heads + p.head * group + g) * dim;
                    std::copy(query, query + dim, gathered + rows * dim);
                    last[rows] = length - count + q;
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
        delete seen;
    }
    delete[] pieces;
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

// A whole decoder's layers for few positions (a Llama, Mistral or Qwen2), in one parallel region: a small model then pays
// no call and no start of threads for each product. Weights stay where torch has them, [out][in] row by row, and each is
// read once for all positions.

extern "C" {

struct Layer {
    const float *input_norm, *post_norm;               // [C]
    const void *q, *k, *v, *o, *gate, *up, *down;      // [out][in]
    const float *q_bias, *k_bias, *v_bias;             // [out] or null
    void *keys, *values;                               // caches
};

struct Decoder {
    int32_t num_layers, width, inner, num_heads, num_kv_heads, head_dim, block_tokens, num_threads, window;
    float eps, scale;
    const Layer* layers;
};

struct Positions {
    int32_t num, table_stride;
    const int32_t* lengths;  // [num] how many positions each may see: its own place and one
    const int32_t* tables;   // [num][table_stride]
    const int64_t* slots;    // [num]
    const float *cos, *sin;  // [num][head_dim]
    float* hidden;           // [num][width], changed in place
};
}

namespace {

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
inline void linear(int rows, const T* a, const T* b, int k, int begin, int end, Give give) {
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

template <typename T> void rms_norm(const float* x, const float* weight, int width, float eps, T* out) {
    Floats squares = splat(0.0f);
    int i = 0;
    for (; i + LANES <= width; i += LANES) squares += load(x + i) * load(x + i);
    float total = sum(squares);
    for (; i < width; i++) total += x[i] * x[i];
    float share = 1 / std::sqrt(total / width + eps);
    for (i = 0; i < width; i++) store(out + i, x[i] * share * weight[i]);
}

struct Part {
    float largest, total;
    float* values;
};

template <typename T> void run_layers(const Decoder& d, const Positions& p) {
    const int num = p.num, width = d.width, inner = d.inner, dim = d.head_dim;
    const int q_width = d.num_heads * dim, kv_width = d.num_kv_heads * dim, group = d.num_heads / d.num_kv_heads;
    const int qkv_width = q_width + 2 * kv_width;
    const Cache cache{d.block_tokens, d.num_kv_heads, dim};
    // One long answer alone has to keep all threads busy: its positions are cut into parts, put together afterwards.
    int longest = *std::max_element(p.lengths, p.lengths + num);
    int num_parts = std::max(1, std::min((longest + 127) / 128, (4 * d.num_threads) / std::max(1, num * d.num_kv_heads)));
    T* normed = new T[size_t(num) * width];
    float* qkv = new float[size_t(num) * qkv_width];
    T* queries = new T[size_t(num) * q_width];
    T* attended = new T[size_t(num) * q_width];
    T* gated = new T[size_t(num) * inner];
    float* up = new float[size_t(num) * inner];
    const long num_pieces = long(num) * d.num_kv_heads * num_parts;
    float* part_values = new float[size_t(num_pieces) * group * dim];
    Part* parts = new Part[size_t(num_pieces) * group];
#pragma omp parallel num_threads(d.num_threads)
    {
        const int threads = omp_get_num_threads(), me = omp_get_thread_num();
        Seen* seen = new Seen;
        auto share = [&](long n, long& begin, long& end, long grain) {
            long grains = (n + grain - 1) / grain;
            begin = std::min(n, grains * me / threads * grain), end = std::min(n, grains * (me + 1) / threads * grain);
        };
        long begin, end;
        for (int l = 0; l < d.num_layers; l++) {
            const Layer& layer = d.layers[l];
            share(num, begin, end, 1);
            for (long m = begin; m < end; m++)
                rms_norm(p.hidden + m * width, layer.input_norm, width, d.eps, normed + m * width);
#pragma omp barrier
            struct Matrix {
                const void* weight;
                const float* bias;
                int columns, at;
            } matrices[3] = {{layer.q, layer.q_bias, q_width, 0},
                             {layer.k, layer.k_bias, kv_width, q_width},
                             {layer.v, layer.v_bias, kv_width, q_width + kv_width}};
            for (const Matrix& w : matrices) {
                share(w.columns, begin, end, 4);
                linear<T>(num, normed, (const T*)w.weight, width, int(begin), int(end), [&](int r, int c, float x) {
                    qkv[size_t(r) * qkv_width + w.at + c] = x + (w.bias ? w.bias[c] : 0);
                });
            }
#pragma omp barrier
            // Rotary embedding, Llama's halves: x cos + (-second, first) sin.
            share(long(num) * (d.num_heads + d.num_kv_heads), begin, end, 1);
            for (long i = begin; i < end; i++) {
                long m = i / (d.num_heads + d.num_kv_heads);
                int head = int(i % (d.num_heads + d.num_kv_heads)), half = dim / 2;
                const float *x = qkv + m * qkv_width + head * dim, *cos = p.cos + m * dim, *sin = p.sin + m * dim;
                float turned[MAX_DIM];
                for (int j = 0; j < half; j++) {
                    turned[j] = x[j] * cos[j] - x[j + half] * sin[j];
                    turned[j + half] = x[j + half] * cos[j + half] + x[j] * sin[j + half];
                }
                if (head < d.num_heads) {
                    for (int j = 0; j < dim; j++) store(queries + m * q_width + head * dim + j, turned[j]);
                    continue;
                }
                int kv_head = head - d.num_heads;
                long block = p.slots[m] / d.block_tokens;
                int place = int(p.slots[m] % d.block_tokens);
                bool is_last = m + 1 == num || p.slots[m + 1] != p.slots[m] + 1;
                write_key(cache, cache.at((T*)layer.keys, block, kv_head), place, turned);
                write_value(cache, cache.at((T*)layer.values, block, kv_head), place,
                            qkv + m * qkv_width + q_width + kv_width + kv_head * dim, is_last);
            }
#pragma omp barrier
#pragma omp for schedule(dynamic)
            for (long i = 0; i < num_pieces; i++) {
                long m = i / num_parts / d.num_kv_heads;
                int head = int(i / num_parts % d.num_kv_heads), part = int(i % num_parts);
                int length = p.lengths[m], low = d.window ? std::max(0, length - d.window) : 0;
                // A part is a whole number of KEYS, so that none looks at a vector that another looks at.
                int vectors = (length - low / LANES * LANES + KEYS - 1) / KEYS;
                int from = low / LANES * LANES + vectors * part / num_parts * KEYS;
                int to = std::min(length, low / LANES * LANES + vectors * (part + 1) / num_parts * KEYS);
                int first[MAX_ROWS], last[MAX_ROWS];
                std::fill(first, first + group, low);
                std::fill(last, last + group, length - 1);
                seen->begin(group, dim);
                if (from < to)
                    look<T>(cache, (const T*)layer.keys, (const T*)layer.values, p.tables + m * p.table_stride, head,
                            queries + m * q_width + head * group * dim, group, first, last, from, to, d.scale, *seen);
                for (int g = 0; g < group; g++) {
                    if (num_parts == 1) {
                        finish(*seen, g, dim, attended + m * q_width + (head * group + g) * dim);
                        continue;
                    }
                    float* kept = part_values + (i * group + g) * dim;
                    std::copy(seen->values + g * dim, seen->values + (g + 1) * dim, kept);
                    parts[i * group + g] = {seen->largest[g], seen->total[g], kept};
                }
            }
            if (num_parts > 1) {
#pragma omp for schedule(static)
                for (long i = 0; i < long(num) * d.num_heads; i++) {
                    long m = i / d.num_heads;
                    int head = int(i % d.num_heads) / group, g = int(i % d.num_heads) % group;
                    auto part_of = [&](int part) -> const Part& {
                        return parts[((m * d.num_kv_heads + head) * num_parts + part) * group + g];
                    };
                    float largest = -INFINITY, total = 0;
                    for (int part = 0; part < num_parts; part++) largest = std::max(largest, part_of(part).largest);
                    float merged[MAX_DIM] = {};
                    for (int part = 0; part < num_parts; part++) {
                        const Part& one = part_of(part);
                        if (one.total == 0) continue;
                        float weight = std::exp(one.largest - largest);
                        total += weight * one.total;
                        for (int j = 0; j < dim; j++) merged[j] += weight * one.values[j];
                    }
                    for (int j = 0; j < dim; j++) store(attended + i * dim + j, merged[j] / total);
                }
            }
            share(width, begin, end, 4);
            linear<T>(num, attended, (const T*)layer.o, q_width, int(begin), int(end),
                      [&](int r, int c, float x) { p.hidden[size_t(r) * width + c] += x; });
#pragma omp barrier
            share(num, begin, end, 1);
            for (long m = begin; m < end; m++)
                rms_norm(p.hidden + m * width, layer.post_norm, width, d.eps, normed + m * width);
#pragma omp barrier
            share(inner, begin, end, 4);
            linear<T>(num, normed, (const T*)layer.up, width, int(begin), int(end),
                      [&](int r, int c, float x) { up[size_t(r) * inner + c] = x; });
            linear<T>(num, normed, (const T*)layer.gate, width, int(begin), int(end), [&](int r, int c, float x) {
                size_t i = size_t(r) * inner + c;
                store(gated + i, x / (1 + std::exp(-x)) * up[i]);
            });
#pragma omp barrier
            share(width, begin, end, 4);
            linear<T>(num, gated, (const T*)layer.down, inner, int(begin), int(end),
                      [&](int r, int c, float x) { p.hidden[size_t(r) * width + c] += x; });
#pragma omp barrier
        }
        delete seen;
    }
    delete[] normed;
    delete[] qkv;
    delete[] queries;
    delete[] attended;
    delete[] gated;
    delete[] up;
    delete[] part_values;
    delete[] parts;
}

template <typename T> void run_head(const T* rows, const T* weight, int num, int width, int columns, float* out, int threads) {
#pragma omp parallel num_threads(threads)
    {
        long n = omp_get_num_threads(), me = omp_get_thread_num(), grains = (columns + 3) / 4;
        int begin = int(std::min<long>(columns, grains * me / n * 4));
        int end = int(std::min<long>(columns, grains * (me + 1) / n * 4));
        linear<T>(num, rows, weight, width, begin, end,
                  [&](int r, int c, float x) { out[size_t(r) * columns + c] = x; });
    }
}

}  // namespace

extern "C" {

// queries and out [N][heads][head_dim]; `kind` is 0 for float32 and 1 for bfloat16.
void llava_attend(int kind, const Attention* a, const void* queries, const void* keys, const void* values, void* out) {
    if (kind)
        attend<bf16>(*a, (const bf16*)queries, (const bf16*)keys, (const bf16*)values, (bf16*)out);
    else
        attend<float>(*a, (const float*)queries, (const float*)keys, (const float*)values, (float*)out);
}

// keys and values [num][kv heads][head_dim] into their slots (block * block_tokens + place).
void llava_store(int kind, int num, int num_kv_heads, int head_dim, int block_tokens, const void* keys,
                 const void* values, const int64_t* slots, void* key_cache, void* value_cache, int num_threads) {
    Cache cache{block_tokens, num_kv_heads, head_dim};
    if (kind)
        write<bf16>(cache, num, (const bf16*)keys, (const bf16*)values, slots, (bf16*)key_cache, (bf16*)value_cache,
                    num_threads);
    else
        write<float>(cache, num, (const float*)keys, (const float*)values, slots, (float*)key_cache,
                     (float*)value_cache, num_threads);
}

void llava_decode(int kind, const Decoder* decoder, const Positions* positions) {
    if (kind)
        run_layers<bf16>(*decoder, *positions);
    else
        run_layers<float>(*decoder, *positions);
}

// out [num][columns] = rows [num][width] . weight [columns][width]
void llava_linear(int kind, int num, int width, int columns, const void* rows, const void* weight, float* out,
                  int num_threads) {
    if (kind)
        run_head<bf16>((const bf16*)rows, (const bf16*)weight, num, width, columns, out, num_threads);
    else
        run_head<float>((const float*)rows, (const float*)weight, num, width, columns, out, num_threads);
}
}
