// The paged KV cache's layout, RoPE, and the functions that write keys and values.
//
// Both caches hold, per layer, block and KV head, numbers in the order in which attention reads them. Neighbours
// of the summed dimension ("depth": 2 for bfloat16, 1 for float32) lie together, as DotStep multiplies them:
//
//     keys    [block_tokens / 16][head_dim / depth][16 lanes][depth]   a vector is one dimension (pair) of 16 positions
//     values  [block_tokens / depth][head_dim][depth]                  a vector is 16 dimensions of one position (pair)

#pragma once

#include "abi.h"
#include "vectors.h"

namespace {

constexpr int MAX_DIM = 256;  // of a head

struct KVLayout {
    int block_tokens, num_kv_heads, head_dim;
    template <typename T> T* at(T* cache, long block, int head) const {
        return cache + (block * num_kv_heads + head) * long(block_tokens) * head_dim;
    }
};

template <typename T> void write_key(const KVLayout& kv, T* keys, int64_t slot, int head, const float* key) {
    constexpr int DEPTH = DotStep<T>::DEPTH;
    const int offset = int(slot % kv.block_tokens);
    T* to = kv.at(keys, slot / kv.block_tokens, head);
    to += long(offset / LANES) * LANES * kv.head_dim + (offset % LANES) * DEPTH;
    for (int d = 0; d < kv.head_dim; d++) store(to + long(d / DEPTH) * LANES * DEPTH + d % DEPTH, key[d]);
}

// `is_last`: the next slot is not written in this step. Its half of a pair is then cleared: attention multiplies it by
// zero, and zero times a NaN that another request left is NaN.
template <typename T>
void write_value(const KVLayout& kv, T* values, int64_t slot, int head, const float* value, bool is_last) {
    constexpr int DEPTH = DotStep<T>::DEPTH;
    const int offset = int(slot % kv.block_tokens);
    T* to = kv.at(values, slot / kv.block_tokens, head);
    to += long(offset / DEPTH) * DEPTH * kv.head_dim + offset % DEPTH;
    for (int d = 0; d < kv.head_dim; d++) store(to + long(d) * DEPTH, value[d]);
    if (DEPTH == 2 && offset % 2 == 0 && is_last)
        for (int d = 0; d < kv.head_dim; d++) store(to + long(d) * DEPTH + 1, 0.0f);
}

// Whether slot i of `num` ends a run of neighbouring slots.
inline bool ends_run(const int64_t* slots, long i, long num) { return i + 1 == num || slots[i + 1] != slots[i] + 1; }

// out = RoPE of one head x [head_dim], in Llama's convention: number j is rotated with number j + head_dim / 2.
inline void apply_rope(const float* x, const float* cos, const float* sin, int head_dim, float* out) {
    const int half = head_dim / 2;
    for (int j = 0; j < half; j++) {
        out[j] = x[j] * cos[j] - x[j + half] * sin[j];
        out[j + half] = x[j + half] * cos[j + half] + x[j] * sin[j + half];
    }
}

// Writes keys and values [num][kv heads][head_dim] into their slots.
template <typename T>
void write_kv(const KVLayout& kv, int num, const T* keys, const T* values, const int64_t* slots, T* key_cache,
              T* value_cache, int num_threads) {
    const int heads = kv.num_kv_heads, dim = kv.head_dim;
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long i = 0; i < long(num) * heads; i++) {
        const long n = i / heads;
        const int head = int(i % heads);
        float row[MAX_DIM];
        for (int d = 0; d < dim; d++) row[d] = to_float(keys[i * dim + d]);
        write_key(kv, key_cache, slots[n], head, row);
        for (int d = 0; d < dim; d++) row[d] = to_float(values[i * dim + d]);
        write_value(kv, value_cache, slots[n], head, row, ends_run(slots, n, num));
    }
}

// row = head number `head` of position n of a product [num][heads * head_dim], plus its bias.
template <typename From>
void load_head(const void* product, const float* bias, long n, int num_heads, int head, int dim, float* row) {
    const From* from = static_cast<const From*>(product) + (n * num_heads + head) * dim;
    for (int j = 0; j < dim; j += LANES)
        store(row + j, load(from + j) + (bias ? load(bias + head * dim + j) : broadcast(0.0f)));
}

// Adds the biases to the products q, k and v [num][heads * head_dim] and applies RoPE. Queries go to `queries`
// [num][heads][head_dim], keys and values to their slots.
template <typename From, typename To>
void apply_rope_and_write_kv(const Heads& h, const void* q, const void* k, const void* v, To* queries, To* key_cache,
                             To* value_cache) {
    const KVLayout kv{h.block_tokens, h.num_kv_heads, h.head_dim};
    const int dim = h.head_dim;
#pragma omp parallel for num_threads(h.num_threads) schedule(static)
    for (long n = 0; n < h.num; n++) {
        float row[MAX_DIM], rotated[MAX_DIM];
        const float* ready = h.cos != nullptr ? rotated : row;
        for (int head = 0; head < h.num_heads; head++) {
            load_head<From>(q, h.q_bias, n, h.num_heads, head, dim, row);
            if (h.cos != nullptr) apply_rope(row, h.cos + n * dim, h.sin + n * dim, dim, rotated);
            To* to = queries + (n * h.num_heads + head) * dim;
            for (int j = 0; j < dim; j += LANES) store(to + j, load(ready + j));
        }
        for (int head = 0; head < h.num_kv_heads; head++) {
            load_head<From>(k, h.k_bias, n, h.num_kv_heads, head, dim, row);
            if (h.cos != nullptr) apply_rope(row, h.cos + n * dim, h.sin + n * dim, dim, rotated);
            write_key(kv, key_cache, h.slots[n], head, ready);
            load_head<From>(v, h.v_bias, n, h.num_kv_heads, head, dim, row);
            write_value(kv, value_cache, h.slots[n], head, row, ends_run(h.slots, n, h.num));
        }
    }
}

}  // namespace
