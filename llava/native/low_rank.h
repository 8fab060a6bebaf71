// Low-rank updates of matrices (abi.h): a row is lowered to `rank` numbers, which are then raised to the columns of the
// matrix's product. Sums are in float32.

#pragma once

#include "gemv.h"

namespace {

// to [num][stride] = scaling * (rows [num][columns] times some rows of `down`).
template <typename T>
inline void lower(const LowRank& update, int num, const T* rows, int columns, Range own, float* to, long stride) {
    const float scaling = update.scaling;
    gemv_dense<T>(num, rows, static_cast<const T*>(update.down), columns, int(own.begin), int(own.end),
                  [=](int r, int c, float x) { to[r * stride + c] = scaling * x; });
}

// out += lowered [rank] times up, in these columns of `width`.
template <typename T>
inline void raise(const LowRank& update, const float* lowered, int width, Range columns, float* out) {
    constexpr int AT_ONCE = 4;  // registers of columns
    const T* up = static_cast<const T*>(update.up);
    for (long c = columns.begin; c < columns.end; c += AT_ONCE * REGISTER_LANES) {
        RegisterFloats sums[AT_ONCE];
        const int count = int(columns.end - c);
#pragma GCC unroll 4
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = i * REGISTER_LANES;
            sums[i] = at < count ? load_register(out + c + at, count - at) : RegisterFloats{};
        }
        for (int r = 0; r < update.rank; r++)
#pragma GCC unroll 4
            for (int i = 0; i < AT_ONCE; i++) {
                const int at = i * REGISTER_LANES;
                if (at < count) sums[i] += lowered[r] * load_register(up + long(r) * width + c + at, count - at);
            }
#pragma GCC unroll 4
        for (int i = 0; i < AT_ONCE; i++) {
            const int at = i * REGISTER_LANES;
            if (at < count) store_register(out + c + at, sums[i], count - at);
        }
    }
}

}  // namespace
