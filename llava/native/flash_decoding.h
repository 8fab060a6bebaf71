// Flash-decoding: the positions that a few queries see are cut into KV splits, so that one long request alone keeps all
// threads busy. Each split leaves a partial result, and a second pass merges the partials of each query.
//
// Source: Dao et al. 2023 (flash-decoding); Juravsky et al. 2024 (Hydragen: a shared prefix is attended to together).

#pragma once

#include "attention.h"

namespace {

// Positions `from` to `to`, which `count` requests from `first` on attend to together. It is split number `index` of
// each of them.
struct KVSplit {
    int first, count, from, to, index;
};

// A query's partial result of one split: an online softmax's state, whose values lie elsewhere.
struct Partial {
    float max, sum;
    float* values;  // [head_dim]
};

constexpr int MIN_SPLIT = 128;  // positions: a smaller split, or a shorter shared prefix, costs more than it gains

// Requests first to first + count - 1 share the blocks of their first `length` positions.
struct PrefixGroup {
    int first, count, length;
};

struct KVSplitPlan {
    std::vector<KVSplit> splits;
    std::vector<int> num_splits;  // of each request
    int max_splits = 1;

    // A split is a whole number of KV tiles, so that no two read the same vector.
    void add(int first, int count, int from, int to, long wanted) {
        const long parts = std::max<long>(1, (to - from) / wanted), tiles = (to - from + KV_TILE - 1) / KV_TILE;
        for (long i = 0; i < parts; i++)
            splits.push_back({first, count, from + int(tiles * i / parts * KV_TILE),
                              std::min(to, from + int(tiles * (i + 1) / parts * KV_TILE)), num_splits[first] + int(i)});
        for (int m = first; m < first + count; m++) num_splits[m] += int(parts);
    }
};

// How many positions, in whole KV tiles, request m shares with request m - 1.
inline int shared_prefix(const Decoder& d, const Batch& batch, int m) {
    const int32_t *a = batch.tables + long(m - 1) * batch.table_stride, *b = a + batch.table_stride;
    const int shorter = std::min(batch.lengths[m - 1], batch.lengths[m]);
    int blocks = 0;
    while (blocks * d.block_tokens < shorter && a[blocks] == b[blocks]) blocks++;
    return std::min(blocks * d.block_tokens, shorter) / KV_TILE * KV_TILE;
}

// Groups neighbours with a common prefix (questions about one image, positions of one prompt), as long as their queries
// fit into one attention task and the prefix does not become much shorter.
inline std::vector<PrefixGroup> group_by_prefix(const Decoder& d, const Batch& batch) {
    std::vector<PrefixGroup> groups;
    for (int m = 0; m < batch.num; m++) {
        const int length = m > 0 && d.window == 0 ? shared_prefix(d, batch, m) : 0;
        const bool fits = length >= MIN_SPLIT && (groups.back().count + 1) * (d.num_heads / d.num_kv_heads) <= MAX_ROWS;
        if (fits && (groups.back().count == 1 || length >= groups.back().length / 2)) {
            PrefixGroup& group = groups.back();
            group.length = group.count == 1 ? length : std::min(group.length, length);
            group.count++;
        } else {
            groups.push_back({m, 1, 0});
        }
    }
    return groups;
}

//     request 0   |======= shared prefix =======|---- own ----|            splits:  ===A=== ===B===  --C--
//     request 1   |=============================|-- own --|                A and B are read once for both requests
inline KVSplitPlan plan_kv_splits(const Decoder& d, const Batch& batch) {
    const std::vector<PrefixGroup> groups = group_by_prefix(d, batch);
    auto own_from = [&](int m, const PrefixGroup& group) {  // where the positions that m attends to alone begin
        return d.window ? std::max(0, batch.lengths[m] - d.window) / LANES * LANES : group.length;
    };
    long total = 0;
    for (const PrefixGroup& group : groups) {
        total += group.length;
        for (int m = group.first; m < group.first + group.count; m++) total += batch.lengths[m] - own_from(m, group);
    }
    const long wanted = std::max<long>(MIN_SPLIT, total * d.num_kv_heads / (4L * d.num_threads));
    KVSplitPlan plan;
    plan.num_splits.assign(batch.num, 0);
    for (const PrefixGroup& group : groups)
        if (group.length > 0) plan.add(group.first, group.count, 0, group.length, wanted);
    for (const PrefixGroup& group : groups)
        for (int m = group.first; m < group.first + group.count; m++)
            if (own_from(m, group) < batch.lengths[m]) plan.add(m, 1, own_from(m, group), batch.lengths[m], wanted);
    plan.max_splits = *std::max_element(plan.num_splits.begin(), plan.num_splits.end());
    return plan;
}

}  // namespace
