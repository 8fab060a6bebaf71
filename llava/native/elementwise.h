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
        for (int i = 0; i < width; i += REGISTER_LANES) {
            const size_t at = size_t(r) * width + i;
            const int count = width - i;
            RegisterFloats sum = load_register(x + at, count);
            if (bias != nullptr) sum += load_register(bias + i, count);
            store_register(hidden + at, load_register(hidden + at, count) + sum, count);
        }
}

enum Activation { QUICK_GELU = 1, GELU = 2, GELU_TANH = 3 };  // ACTIVATIONS in calls.py

inline RegisterFloats map(RegisterFloats x, float (*f)(float)) {
    for (int i = 0; i < REGISTER_LANES; i++) x[i] = f(x[i]);
    return x;
}

inline RegisterFloats activate(int activation, RegisterFloats x) {
    if (activation == QUICK_GELU) return silu<RegisterFloats>(1.702f * x) * (1 / 1.702f);
    if (activation == GELU) return 0.5f * x * (1.0f + map(x * 0.70710678f, std::erf));
    if (activation == GELU_TANH) {
        // x / 2 * (1 + tanh(x * y)) is silu(2 x y) / (2 y), and y is never 0.
        const RegisterFloats y = 0.79788456f * (1.0f + 0.044715f * x * x);
        return silu<RegisterFloats>(2.0f * x * y) / (2.0f * y);
    }
    return x;
}

// x [num][width] = ACTIVATION(x + bias), in place; the bias may be null.
template <int ACTIVATION, typename T> void activate_rows(int num, int width, T* x, const float* bias, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (int r = 0; r < num; r++)
        for (int i = 0; i < width; i += REGISTER_LANES) {
            T* at = x + size_t(r) * width + i;
            RegisterFloats sum = load_register(at, width - i);
            if (bias != nullptr) sum += load_register(bias + i, width - i);
            store_register(at, activate(ACTIVATION, sum), width - i);
        }
}

// gates [count] = silu(gates) * ups, in place.
template <typename T> void multiply_gates(long count, T* gates, const T* ups, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
    for (long i = 0; i < count; i += REGISTER_LANES) {
        const int left = int(std::min<long>(REGISTER_LANES, count - i));
        const RegisterFloats gate = load_register(gates + i, left);
        store_register(gates + i, silu<RegisterFloats>(gate) * load_register(ups + i, left), left);
    }
}

}  // namespace
