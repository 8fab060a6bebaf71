// Norms, activations and residual sums: the operations between the matrix products of a layer.

#pragma once

#include "vectors.h"

namespace {

inline float mean_of_squares(const float* x, int width) {
    Floats squares = broadcast(0.0f);
    for (int i = 0; i < width; i += LANES) {
        Floats v = load(x + i, width - i);
        squares += v * v;
    }
    return reduce_sum(squares) / width;
}

inline float mean_of(const float* x, int width) {
    Floats total = broadcast(0.0f);
    for (int i = 0; i < width; i += LANES) total += load(x + i, width - i);
    return reduce_sum(total) / width;
}

inline float variance_of(const float* x, float mean, int width) {
    Floats squares = broadcast(0.0f);
    for (int i = 0; i < width; i += LANES) {
        Floats deviation = load(x + i, width - i) - mean;
        squares += deviation * deviation;
    }
    // The padding lanes were zeros, whose deviation is the mean.
    const int num_padding = (width + LANES - 1) / LANES * LANES - width;
    return (reduce_sum(squares) - num_padding * mean * mean) / width;
}

// out [num][width] = RMS norm of x, or with a bias its layer norm.
template <typename T>
void normalize_rows(int num, int width, const float* x, const float* weight, const float* bias, float eps, T* out,
                    int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static) if (num > 8)
    for (int r = 0; r < num; r++) {
        const float* row = x + size_t(r) * width;
        T* to = out + size_t(r) * width;
        const float mean = bias == nullptr ? 0 : mean_of(row, width);
        const float squares = bias == nullptr ? mean_of_squares(row, width) : variance_of(row, mean, width);
        const float scale = 1 / std::sqrt(squares + eps);
        for (int i = 0; i < width; i += LANES) {
            const int count = width - i;
            Floats scaled = (load(row + i, count) - mean) * scale * load(weight + i, count);
            store(to + i, bias == nullptr ? scaled : scaled + load(bias + i, count), count);
        }
    }
}

// hidden [num][width] += x + bias, which may be null.
template <typename T>
void add_rows(int num, int width, const T* x, const float* bias, float* hidden, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int r = 0; r < num; r++)
        for (int i = 0; i < width; i += LANES) {
            const size_t at = size_t(r) * width + i;
            const int count = width - i;
            Floats sum = load(x + at, count);
            if (bias != nullptr) sum += load(bias + i, count);
            store(hidden + at, load(hidden + at, count) + sum, count);
        }
}

enum Activation { QUICK_GELU = 1, GELU = 2, GELU_TANH = 3 };  // ACTIVATIONS in calls.py

inline Floats map(Floats x, float (*f)(float)) {
    for (int i = 0; i < LANES; i++) x[i] = f(x[i]);
    return x;
}

inline Floats activate(int activation, Floats x) {
    if (activation == QUICK_GELU) return silu(1.702f * x) * (1 / 1.702f);
    if (activation == GELU) return 0.5f * x * (1.0f + map(x * 0.70710678f, std::erf));
    if (activation == GELU_TANH) {
        // x / 2 * (1 + tanh(x * y)) is silu(2 x y) / (2 y), and y is never 0.
        const Floats y = 0.79788456f * (1.0f + 0.044715f * x * x);
        return silu(2.0f * x * y) / (2.0f * y);
    }
    return x;
}

// x [num][width] = activation(x + bias), in place; the bias may be null.
template <typename T>
void activate_rows(int activation, int num, int width, T* x, const float* bias, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int r = 0; r < num; r++)
        for (int i = 0; i < width; i += LANES) {
            T* at = x + size_t(r) * width + i;
            Floats sum = load(at, width - i);
            if (bias != nullptr) sum += load(bias + i, width - i);
            store(at, activate(activation, sum), width - i);
        }
}

// gates [count] = silu(gates) * ups, in place.
template <typename T> void multiply_gates(long count, T* gates, const T* ups, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long i = 0; i < count; i += LANES) {
        const int left = int(std::min<long>(LANES, count - i));
        store(gates + i, silu(load(gates + i, left)) * load(ups + i, left), left);
    }
}

}  // namespace
