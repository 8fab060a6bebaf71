// The structures that cross the C interface. abi.py declares the same ones for ctypes, field by field.

#pragma once

#include <cstdint>

extern "C" {

// A weight matrix [rows][columns], in any of the forms that quantized.h describes.
struct Matrix {
    int32_t bits;  // 32 or 16: dense, in the dtype that the caller computes in; 8 or 4: quantized
    int32_t rows, columns;
    const void* data;
    const void* scales;  // 8 bits: float32 [strips][16]; 4 bits: bfloat16 [strips][columns / 32][16]
};

// A low-rank update of a matrix, which is added at some positions only: scaling * (down times a row) times up.
struct LowRank {
    int32_t rank;  // 0: none
    float scaling;
    const void *down, *up;  // [rank][in], [rank][out], in the dtype that the caller computes in
};

// A layer of a Llama, Mistral or Qwen2 decoder.
struct Layer {
    const float *input_norm, *post_norm;     // [hidden_size]
    Matrix q, k, v, o, gate, up, down;       // [out][in]
    const float *q_bias, *k_bias, *v_bias;   // [out] or null
    void *keys, *values;                     // KV cache, kv_cache.h
    LowRank of_q, of_k, of_v, of_o, of_gate, of_up, of_down;  // the matrices' updates
};

struct Decoder {
    int32_t num_layers, hidden_size, intermediate_size, num_heads, num_kv_heads, head_dim, block_tokens, num_threads;
    int32_t window;  // how many positions up to its own a query sees; 0 for all
    float eps, scale;
    const Layer* layers;
};

// The positions of one decode step. Positions of the same request follow each other.
struct Batch {
    int32_t num, table_stride;
    const int32_t* lengths;  // [num] how many positions each sees, itself included
    const int32_t* tables;   // [num][table_stride] block tables
    const int64_t* slots;    // [num] block * block_tokens + offset
    const float *cos, *sin;  // [num][head_dim]
    float* hidden;           // [num][hidden_size], changed in place
    const uint8_t* adapted;  // [num] whether the matrices' updates are added to a position; null: to none
};

// Attention of a prefill or of a vision tower.
struct Attention {
    int32_t num_rows, num_heads, num_kv_heads, head_dim, block_tokens, table_stride, window, num_threads;
    int32_t is_bidirectional;  // a query sees the positions after its own, too
    float scale;
    const int32_t* starts;   // [rows + 1] where each request's queries begin
    const int32_t* lengths;  // [rows] its positions; these queries are the last of them
    const int32_t* tables;   // [rows][table_stride]
};

// How the products of the q, k and v matrices become queries and cache entries: biases, RoPE, slots.
struct Heads {
    int32_t num, num_heads, num_kv_heads, head_dim, block_tokens, num_threads;
    const float *q_bias, *k_bias, *v_bias;  // or null
    const float *cos, *sin;                 // [num][head_dim], or null for no RoPE
    const int64_t* slots;                   // [num]
};

// Choosing the next token of each row of float32 logits, and the likeliest tokens of some. Rows are given by address.
struct Choosing {
    int32_t num, num_tokens, num_threads, most_best;
    const int64_t *logits, *originals;  // [num] addresses of rows; originals: before masks and penalties
    const double *temperatures, *top_ps, *min_ps, *uniforms;  // [num] as in engine/choose.py
    const int32_t *top_ks, *num_best;  // [num] how many of the likeliest tokens are wanted; below 0 for nothing
    int64_t* tokens;                   // [num] the results from here on
    float* highest;                    // [num] where it is not finite, nothing else is
    int32_t* best;                     // [num][most_best] the likeliest tokens, the likeliest first
    double* log_sums;                  // [num] logarithms of the sum of e**logit over all tokens
};
}
