// What the engine computes in compiled code on a CPU: whole decoder steps of few positions, and between the products of
// torch all that a prompt's or a tile's positions need.
//
// Plain C++ with a C interface, no headers of torch: it compiles in seconds and is called with pointers (calls.py).
// Results are accumulated in float32 and rounded once.

#include "vectors.h"

#include "attention.h"
#include "matrix.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

// A whole decoder's layers for few positions (a Llama, Mistral or Qwen2), in one parallel region: a small model then pays
// no call and no start of threads for each product. Dense weights stay where torch has them; each is read once for all
// positions.

extern "C" {

struct Layer {
    const float *input_norm, *post_norm;     // [C]
    Matrix q, k, v, o, gate, up, down;       // [out][in]
    const float *q_bias, *k_bias, *v_bias;   // [out] or null
    void *keys, *values;                     // caches
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

// Rows that are multiplied next: kept as dense matrices take them, or for packed ones in float32 and then as integers.
template <typename T> struct Input {
    int columns;
    T* rows = nullptr;
    float* exact = nullptr;
    Quantized quantized;
    Input(int num, int columns, bool is_packed, Kept& numbers, Kept& integers) : columns(columns) {
        if (is_packed)
            exact = numbers.take<float>(size_t(num) * columns), quantized = Quantized(num, columns, integers);
        else
            rows = numbers.take<T>(size_t(num) * columns);
    }
    void put(long row, long column, Floats x, int count = LANES) {
        if (exact != nullptr)
            save(exact + row * columns + column, x, count);
        else
            save(rows + row * columns + column, x, count);
    }
    // After the last `put` of a row.
    void close(long row) {
        if (exact != nullptr) quantized.set(int(row), exact + row * columns, columns);
    }
};

inline float mean_of_squares(const float* x, int width) {
    Floats squares = splat(0.0f);
    for (int i = 0; i < width; i += LANES) {
        Floats v = load(x + i, width - i);
        squares += v * v;
    }
    return sum(squares) / width;
}

// Where threads of one team wait for each other. OpenMP's own puts them to sleep at once wherever the process has more
// threads than cores (each thread that calls in has its team), and waking one takes longer than most of a step's parts.
class Meeting {
    std::atomic<int> num_here{0}, num_met{0};

  public:
    void wait(int num_threads) {
        const int before = num_met.load(std::memory_order_relaxed);
        if (num_here.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads) {
            num_here.store(0, std::memory_order_relaxed);
            num_met.fetch_add(1, std::memory_order_release);
            return;
        }
        for (long i = 0; num_met.load(std::memory_order_acquire) == before; i++) {
#if defined(__x86_64__)
            _mm_pause();
#endif
            // Somebody else may need this core to get there; where threads share less than a core each, for long.
            if (i > 10000)
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            else if (i > 5000)
                std::this_thread::yield();
        }
    }
};

// A piece of attention: positions `from` to `to`, which `count` requests from `first` on look at together. It is part
// number `part` of what each of them sees.
struct Stretch {
    int first, count, from, to, part;
};

struct Stretches {
    std::vector<Stretch> all;
    std::vector<int> num_parts;  // of each request
    int most_parts = 1;
};

// Cuts what everybody sees into stretches: one long answer alone has to keep all threads busy, and requests that begin
// alike (questions about one picture, positions of one prompt) read their common beginning once.
inline Stretches cut(const Decoder& d, const Positions& p) {
    constexpr int WORTH = 128;
    struct Shared {
        int first, count, length;
    };
    std::vector<Shared> groups;
    auto common = [&](int m) {  // positions that begin request m as they begin m - 1
        const int32_t *a = p.tables + long(m - 1) * p.table_stride, *b = a + p.table_stride;
        const int shorter = std::min(p.lengths[m - 1], p.lengths[m]);
        int blocks = 0;
        while (blocks * d.block_tokens < shorter && a[blocks] == b[blocks]) blocks++;
        return std::min(blocks * d.block_tokens, shorter) / KEYS * KEYS;
    };
    long total = 0;
    for (int m = 0; m < p.num; m++) {
        const int length = m > 0 && d.window == 0 ? common(m) : 0;
        const bool fits = length >= WORTH && (groups.back().count + 1) * (d.num_heads / d.num_kv_heads) <= MAX_ROWS;
        if (fits && (groups.back().count == 1 || length >= groups.back().length / 2)) {
            Shared& group = groups.back();
            group.length = group.count == 1 ? length : std::min(group.length, length);
            group.count++;
        } else {
            groups.push_back({m, 1, 0});
        }
    }
    auto begin_of = [&](int m, const Shared& group) {
        return d.window ? std::max(0, p.lengths[m] - d.window) / LANES * LANES : group.length;
    };
    for (const Shared& group : groups) {
        total += group.length;
        for (int m = group.first; m < group.first + group.count; m++) total += p.lengths[m] - begin_of(m, group);
    }
    const long wanted = std::max<long>(WORTH, total * d.num_kv_heads / (4 * d.num_threads));
    Stretches out;
    out.num_parts.assign(p.num, 0);
    auto add = [&](int first, int count, int from, int to) {
        // A part is a whole number of KEYS, so that none looks at a vector that another looks at.
        const long parts = std::max<long>(1, (to - from) / wanted), units = (to - from + KEYS - 1) / KEYS;
        for (long i = 0; i < parts; i++)
            out.all.push_back({first, count, from + int(units * i / parts * KEYS),
                               std::min(to, from + int(units * (i + 1) / parts * KEYS)), out.num_parts[first] + int(i)});
        for (int m = first; m < first + count; m++) out.num_parts[m] += int(parts);
    };
    for (const Shared& group : groups)
        if (group.length > 0) add(group.first, group.count, 0, group.length);
    for (const Shared& group : groups)
        for (int m = group.first; m < group.first + group.count; m++)
            if (begin_of(m, group) < p.lengths[m]) add(m, 1, begin_of(m, group), p.lengths[m]);
    out.most_parts = *std::max_element(out.num_parts.begin(), out.num_parts.end());
    return out;
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
    const Stretches stretches = cut(d, p);
    const int most_parts = stretches.most_parts;
    const bool is_packed = d.layers[0].q.bits <= 8;
    static thread_local Kept kept[6];
    Input<T> normed(num, width, is_packed, kept[0], kept[1]), attended(num, q_width, is_packed, kept[2], kept[3]);
    Input<T> gated(num, inner, is_packed, kept[4], kept[5]);
    float* qkv = KEPT(float, size_t(num) * qkv_width);
    Worked<T>* queries = KEPT(Worked<T>, size_t(num) * q_width);
    float *gates = KEPT(float, size_t(num) * inner), *ups = KEPT(float, size_t(num) * inner);
    const long num_pieces = long(stretches.all.size()) * d.num_kv_heads, num_seen = long(num) * most_parts * d.num_heads;
    float* part_values = KEPT(float, size_t(num_seen) * dim);
    Part* parts = KEPT(Part, size_t(num_seen));
    Meeting meeting;
#pragma omp parallel num_threads(d.num_threads)
    {
        const int threads = omp_get_num_threads(), me = omp_get_thread_num();
        Seen* seen = KEPT(Seen, 1);
        Worked<T>* gathered = KEPT(Worked<T>, MAX_ROWS * MAX_DIM);
        auto share = [&](long n, long& begin, long& end, long grain) {
            long grains = (n + grain - 1) / grain;
            begin = std::min(n, grains * me / threads * grain), end = std::min(n, grains * (me + 1) / threads * grain);
        };
        long begin, end;
        const long grain = is_packed ? LANES : 4;
        auto normalize = [&](const float* weight) {
            share(num, begin, end, 1);
            for (long m = begin; m < end; m++) {
                const float* x = p.hidden + m * width;
                float by = 1 / std::sqrt(mean_of_squares(x, width) + d.eps);
                for (int i = 0; i < width; i += LANES)
                    normed.put(m, i, load(x + i, width - i) * by * load(weight + i, width - i), width - i);
                normed.close(m);
            }
        };
        auto close = [&](Input<T>& input) {
            if (!is_packed) return;
            share(num, begin, end, 1);
            for (long m = begin; m < end; m++) input.close(m);
            meeting.wait(threads);
        };
        for (int l = 0; l < d.num_layers; l++) {
            const Layer& layer = d.layers[l];
            normalize(layer.input_norm);
            meeting.wait(threads);
            struct {
                const Matrix& weight;
                const float* bias;
                int at;
            } matrices[3] = {{layer.q, layer.q_bias, 0},
                             {layer.k, layer.k_bias, q_width},
                             {layer.v, layer.v_bias, q_width + kv_width}};
            for (const auto& w : matrices) {
                share(w.weight.rows, begin, end, grain);
                multiply<T>(w.weight, num, normed.rows, &normed.quantized, int(begin), int(end),
                            [&](int r, int c, float x) {
                                qkv[size_t(r) * qkv_width + w.at + c] = x + (w.bias ? w.bias[c] : 0);
                            });
            }
            meeting.wait(threads);
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
                    for (int j = 0; j < dim; j += LANES) save(queries + m * q_width + head * dim + j, load(turned + j));
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
            meeting.wait(threads);
#pragma omp for schedule(dynamic) nowait
            for (long i = 0; i < num_pieces; i++) {
                const Stretch& piece = stretches.all[i / d.num_kv_heads];
                const int head = int(i % d.num_kv_heads), rows = piece.count * group;
                const Worked<T>* asking = queries + size_t(piece.first) * q_width + head * group * dim;
                if (piece.count > 1) {
                    for (int m = 0; m < piece.count; m++)
                        std::copy(asking + size_t(m) * q_width, asking + size_t(m) * q_width + group * dim,
                                  gathered + m * group * dim);
                    asking = gathered;
                }
                int first[MAX_ROWS], last[MAX_ROWS];
                std::fill(first, first + rows, d.window ? std::max(0, p.lengths[piece.first] - d.window) : 0);
                std::fill(last, last + rows, piece.to - 1);
                seen->begin(rows, dim);
                look<T>(cache, (const T*)layer.keys, (const T*)layer.values,
                        p.tables + long(piece.first) * p.table_stride, head, asking, rows, first, last, piece.from,
                        piece.to, d.scale, *seen);
                for (int r = 0; r < rows; r++) {
                    const int m = piece.first + r / group, own = head * group + r % group;
                    const float* values = seen->values + r * dim;
                    if (most_parts == 1) {
                        float share = seen->total[r] > 0 ? 1 / seen->total[r] : 0;
                        for (int j = 0; j < dim; j += LANES) attended.put(m, own * dim + j, load(values + j) * share);
                        continue;
                    }
                    const long at = (long(m) * most_parts + piece.part) * d.num_heads + own;
                    std::copy(values, values + dim, part_values + at * dim);
                    parts[at] = {seen->largest[r], seen->total[r], part_values + at * dim};
                }
            }
            meeting.wait(threads);
            if (most_parts > 1) {
#pragma omp for schedule(static) nowait
                for (long i = 0; i < long(num) * d.num_heads; i++) {
                    long m = i / d.num_heads;
                    const int num_parts = stretches.num_parts[m];
                    auto part_of = [&](int part) -> const Part& {
                        return parts[(m * most_parts + part) * d.num_heads + i % d.num_heads];
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
                    for (int j = 0; j < dim; j += LANES)
                        attended.put(m, i % d.num_heads * dim + j, load(merged + j) / total);
                }
                meeting.wait(threads);
            }
            close(attended);
            share(width, begin, end, grain);
            multiply<T>(layer.o, num, attended.rows, &attended.quantized, int(begin), int(end),
                        [&](int r, int c, float x) { p.hidden[size_t(r) * width + c] += x; });
            meeting.wait(threads);
            normalize(layer.post_norm);
            meeting.wait(threads);
            share(inner, begin, end, grain);
            multiply<T>(layer.up, num, normed.rows, &normed.quantized, int(begin), int(end),
                        [&](int r, int c, float x) { ups[size_t(r) * inner + c] = x; });
            multiply<T>(layer.gate, num, normed.rows, &normed.quantized, int(begin), int(end),
                        [&](int r, int c, float x) { gates[size_t(r) * inner + c] = x; });
            for (long m = 0; m < num; m++)
                for (long i = begin; i < end; i += LANES) {
                    const long at = m * inner + i;
                    const int count = int(std::min<long>(LANES, end - i));
                    gated.put(m, i, silu(load(gates + at, count)) * load(ups + at, count), count);
                }
            meeting.wait(threads);
            close(gated);
            share(width, begin, end, grain);
            multiply<T>(layer.down, num, gated.rows, &gated.quantized, int(begin), int(end),
                        [&](int r, int c, float x) { p.hidden[size_t(r) * width + c] += x; });
            meeting.wait(threads);
        }
    }
}

template <typename T>
void run_linear(const Matrix& w, int num, const T* rows, float* out, int num_threads) {
    static thread_local Kept kept;
    Quantized quantized;
    if (w.bits <= 8) quantized = Quantized(num, w.columns, kept);
#pragma omp parallel num_threads(num_threads)
    {
        if (w.bits <= 8) {
#pragma omp for schedule(static)
            for (int r = 0; r < num; r++) quantized.set(r, rows + size_t(r) * w.columns, w.columns);
        }
        long n = omp_get_num_threads(), me = omp_get_thread_num(), grains = (w.rows + LANES - 1) / LANES;
        int begin = int(std::min<long>(w.rows, grains * me / n * LANES));
        int end = int(std::min<long>(w.rows, grains * (me + 1) / n * LANES));
        multiply<T>(w, num, rows, &quantized, begin, end,
                    [&](int r, int c, float x) { out[size_t(r) * w.rows + c] = x; });
    }
}

template <typename T> void run_bytes(const Matrix& w, int num, const T* rows, float* out, int num_threads) {
    const int width = padded(w.columns, GROUP);
    int8_t* bytes = KEPT(int8_t, size_t(padded(num, TALL)) * width);
    float* scales = KEPT(float, num);
    int32_t* sums = KEPT(int32_t, num);
    for (int r = num; r < padded(num, TALL); r++)
        for (int k = 0; k < width; k += 4) std::memset(bytes + place_byte(r, k, width), 0, 4);
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int r = 0; r < num; r++)
        quantize_bytes(rows + size_t(r) * w.columns, r, w.columns, width, bytes, scales + r, sums + r);
    multiply_bytes(w, num, bytes, scales, sums, out, num_threads);
}

inline Floats through_each(Floats x, float (*f)(float)) {
    for (int i = 0; i < LANES; i++) x[i] = f(x[i]);
    return x;
}

// Through an activation: 0 none, 1 quick GELU, 2 GELU (its error function exact), 3 GELU (through tanh).
inline Floats activate(int activation, Floats x) {
    if (activation == 1) return silu(1.702f * x) * (1 / 1.702f);
    if (activation == 2) return 0.5f * x * (1.0f + through_each(x * 0.70710678f, std::erf));
    if (activation == 3) {
        // x / 2 * (1 + tanh(x * y)) is silu(2 x y) / (2 y), and y is never 0.
        const Floats y = 0.79788456f * (1.0f + 0.044715f * x * x);
        return silu(2.0f * x * y) / (2.0f * y);
    }
    return x;
}

}  // namespace

// Calls f with a null pointer of the type that `kind` says: 0 is float32, 1 bfloat16.
template <typename F> inline void as_kind(int kind, F f) { kind ? f((bf16*)nullptr) : f((float*)nullptr); }
#define KIND(pointer) std::remove_pointer_t<decltype(pointer)>

extern "C" {

// Whether products with packed matrices have instructions of their own here, and so are faster than dense ones.
int llava_has_quads() {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    return 1;
#else
    return 0;
#endif
}

// queries and out [N][heads][head_dim]
void llava_attend(int kind, const Attention* a, const void* queries, const void* keys, const void* values, void* out) {
    as_kind(kind, [&](auto t) {
        using T = KIND(t);
        attend<T>(*a, (const T*)queries, (const T*)keys, (const T*)values, (T*)out);
    });
}

// keys and values [num][kv heads][head_dim] into their slots (block * block_tokens + place).
void llava_store(int kind, int num, int num_kv_heads, int head_dim, int block_tokens, const void* keys,
                 const void* values, const int64_t* slots, void* key_cache, void* value_cache, int num_threads) {
    Cache cache{block_tokens, num_kv_heads, head_dim};
    as_kind(kind, [&](auto t) {
        using T = KIND(t);
        write<T>(cache, num, (const T*)keys, (const T*)values, slots, (T*)key_cache, (T*)value_cache, num_threads);
    });
}

void llava_decode(int kind, const Decoder* decoder, const Positions* positions) {
    as_kind(kind, [&](auto t) { run_layers<KIND(t)>(*decoder, *positions); });
}

// out [num][rows of w] = rows [num][columns of w] times w, for few rows.
void llava_linear(int kind, const Matrix* w, int num, const void* rows, float* out, int num_threads) {
    as_kind(kind, [&](auto t) { run_linear(*w, num, (const KIND(t)*)rows, out, num_threads); });
}

// The same for many rows and a packed matrix, in integers of 8 bits.
void llava_bytes(int kind, const Matrix* w, int num, const void* rows, float* out, int num_threads) {
    as_kind(kind, [&](auto t) { run_bytes(*w, num, (const KIND(t)*)rows, out, num_threads); });
}

void llava_pack(int kind, int bits, int rows, int columns, const void* weight, void* data, void* scales,
                int num_threads) {
    as_kind(kind, [&](auto t) { pack(bits, (const KIND(t)*)weight, rows, columns, (uint8_t*)data, scales, num_threads); });
}

void llava_unpack(int kind, const Matrix* w, void* out, int num_threads) {
    as_kind(kind, [&](auto t) { unpack(*w, (KIND(t)*)out, num_threads); });
}

// out [num][width] = x / rms(x) * weight, or with a bias layer norm: (x - mean) / deviation * weight + bias.
void llava_norm(int kind, int num, int width, const float* x, const float* weight, const float* bias, float eps,
                void* out, int num_threads) {
    as_kind(kind, [&](auto t) {
        using T = KIND(t);
#pragma omp parallel for num_threads(num_threads) schedule(static) if (num > 8)
        for (int r = 0; r < num; r++) {
            const float* row = x + size_t(r) * width;
            T* to = (T*)out + size_t(r) * width;
            float mean = 0, squares = 0;
            if (bias == nullptr) {
                squares = mean_of_squares(row, width);
            } else {
                Floats total = splat(0.0f), apart = splat(0.0f);
                for (int i = 0; i < width; i += LANES) total += load(row + i, width - i);
                mean = sum(total) / width;
                for (int i = 0; i < width; i += LANES) {
                    Floats from_mean = load(row + i, width - i) - mean;
                    apart += from_mean * from_mean;
                }
                // The lanes behind the end were zeros, and so were as far from it as it is from zero.
                squares = (sum(apart) - (padded(width, LANES) - width) * mean * mean) / width;
            }
            const float by = 1 / std::sqrt(squares + eps);
            for (int i = 0; i < width; i += LANES) {
                const int count = width - i;
                Floats scaled = (load(row + i, count) - mean) * by * load(weight + i, count);
                save(to + i, bias == nullptr ? scaled : scaled + load(bias + i, count), count);
            }
        }
    });
}

// hidden [num][width] += x + bias (or no bias), x of `kind`.
void llava_add(int kind, int num, int width, const void* x, const float* bias, float* hidden, int num_threads) {
    as_kind(kind, [&](auto t) {
        const auto* from = (const KIND(t)*)x;
#pragma omp parallel for num_threads(num_threads) schedule(static)
        for (int r = 0; r < num; r++)
            for (int i = 0; i < width; i += LANES) {
                const size_t at = size_t(r) * width + i;
                const int count = width - i;
                Floats x = load(from + at, count);
                if (bias != nullptr) x += load(bias + i, count);
                save(hidden + at, load(hidden + at, count) + x, count);
            }
    });
}

// x [num][width] = activation(x + bias), in place.
void llava_activate(int kind, int activation, int num, int width, void* x, const float* bias, int num_threads) {
    as_kind(kind, [&](auto t) {
        auto* all = (KIND(t)*)x;
#pragma omp parallel for num_threads(num_threads) schedule(static)
        for (int r = 0; r < num; r++)
            for (int i = 0; i < width; i += LANES) {
                auto* at = all + size_t(r) * width + i;
                save(at, activate(activation, load(at, width - i) + load(bias + i, width - i)), width - i);
            }
    });
}

// gate [count] = silu(gate) * up, in place.
void llava_gate(int kind, long count, void* gate, const void* up, int num_threads) {
    as_kind(kind, [&](auto t) {
        auto* to = (KIND(t)*)gate;
        const auto* with = (const KIND(t)*)up;
#pragma omp parallel for num_threads(num_threads) schedule(static)
        for (long i = 0; i < count; i += LANES) {
            const int left = int(std::min<long>(LANES, count - i));
            save(to + i, silu(load(to + i, left)) * load(with + i, left), left);
        }
    });
}

struct Heads {
    int32_t num, num_heads, num_kv_heads, head_dim, block_tokens, num_threads;
    const float *q_bias, *k_bias, *v_bias;  // or null
    const float *cos, *sin;                 // [num][head_dim], or null for no rotation
    const int64_t* slots;                   // [num]
};

// Queries, keys and values [num][heads * head_dim] of `kind` get their biases and are rotated (Llama's halves); queries
// [num][heads][head_dim] and what goes into the caches are of `cache_kind`.
void llava_spread(int kind, int cache_kind, const Heads* h, const void* q, const void* k, const void* v, void* queries,
                  void* key_cache, void* value_cache) {
    const Cache cache{h->block_tokens, h->num_kv_heads, h->head_dim};
    const int dim = h->head_dim, half = dim / 2, all = h->num_heads + h->num_kv_heads;
    as_kind(kind, [&](auto from) {
        as_kind(cache_kind, [&](auto to) {
            using From = KIND(from);
            using To = KIND(to);
#pragma omp parallel for num_threads(h->num_threads) schedule(static)
            for (long n = 0; n < h->num; n++) {
                float row[MAX_DIM], turned[MAX_DIM];
                auto read = [&](const void* rows, const float* bias, int heads, int head) {
                    const From* at = (const From*)rows + (n * heads + head) * dim;
                    for (int j = 0; j < dim; j += LANES)
                        save(row + j, load(at + j) + (bias ? load(bias + head * dim + j) : splat(0.0f)));
                };
                const long block = h->slots[n] / h->block_tokens;
                const int place = int(h->slots[n] % h->block_tokens);
                for (int head = 0; head < all; head++) {
                    const bool is_query = head < h->num_heads;
                    const int own = is_query ? head : head - h->num_heads;
                    if (is_query)
                        read(q, h->q_bias, h->num_heads, own);
                    else
                        read(k, h->k_bias, h->num_kv_heads, own);
                    const float* ready = row;
                    if (h->cos != nullptr) {
                        const float *cos = h->cos + n * dim, *sin = h->sin + n * dim;
                        for (int j = 0; j < half; j++) {
                            turned[j] = row[j] * cos[j] - row[j + half] * sin[j];
                            turned[j + half] = row[j + half] * cos[j + half] + row[j] * sin[j + half];
                        }
                        ready = turned;
                    }
                    if (is_query) {
                        To* at = (To*)queries + (n * h->num_heads + own) * dim;
                        for (int j = 0; j < dim; j += LANES) save(at + j, load(ready + j));
                    } else {
                        write_key(cache, cache.at((To*)key_cache, block, own), place, ready);
                    }
                }
                const bool is_last = n + 1 == h->num || h->slots[n + 1] != h->slots[n] + 1;
                for (int head = 0; head < h->num_kv_heads; head++) {
                    read(v, h->v_bias, h->num_kv_heads, head);
                    write_value(cache, cache.at((To*)value_cache, block, head), place, row, is_last);
                }
            }
        });
    });
}
}
