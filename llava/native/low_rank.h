// Low-rank updates of matrices (abi.h): a row is lowered to `rank` numbers, which are then raised to the columns of the
// matrix's product. Sums are in float32.

#pragma once

#include "barrier.h"
#include "vectors.h"

namespace {

// to [rank] = scaling * (down times x), for a row x [columns].
template <typename T, typename X> inline void lower(const LowRank& update, const X* x, int columns, float* to) {
    constexpr int AT_ONCE = 4;  // rows of `down`, so that as many sums do not depend on one another
    const T* down = static_cast<const T*>(update.down);
    for (int first = 0; first < update.rank; first += AT_ONCE) {
        const int count = std::min(AT_ONCE, update.rank - first);
        RegisterFloats sums[AT_ONCE] = {};
        for (int i = 0; i < columns; i += REGISTER_LANES) {
            const RegisterFloats part = load_register(x + i, columns - i);
#pragma GCC unroll 4
            for (int r = 0; r < AT_ONCE; r++) {
                const long row = first + std::min(r, count - 1);
                sums[r] += load_register(down + row * columns + i, columns - i) * part;
            }
        }
        for (int r = 0; r < count; r++) {
            float total = 0;
            for (int i = 0; i < REGISTER_LANES; i++) total += sums[r][i];
            to[first + r] = update.scaling * total;
        }
    }
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
