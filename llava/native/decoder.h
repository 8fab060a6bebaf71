// A decode step: all layers of a Llama, Mistral or Qwen2 decoder for a few positions, in one parallel region.
//
// One region for all layers means that a small model pays for no call and no thread start per product. Dense weights
// stay where torch has them, and each is read once for all positions. Threads share every phase and meet at a barrier
// where the next phase reads what other threads wrote:
//
//     phase                  a thread takes      and writes              the barrier after it protects
//     normalize (c)          rows                normed                  whole rows of normed
//     project_qkv            columns             qkv                     heads of qkv, which span two threads' columns
//     rotate_and_write_kv    heads of rows       queries, KV cache       all queries, keys and values of this step
//     attend_splits          KV splits           partials or attended    all partials of a head, or rows of attended
//     merge_partials (a)     heads of rows       attended                whole rows of attended
//     prepare (b, c)         rows                attended's integers     whole rows of them
//     add_product (W_o)      columns             hidden                  whole rows of hidden
//     normalize (c)          rows                normed                  whole rows of normed
//     project_gate_up        columns             gates, ups, gated       whole rows of gated
//     prepare (b, c)         rows                gated's integers        whole rows of them
//     add_product (W_down)   columns             hidden                  whole rows of hidden, for the next layer
//
//     (a) only where some request has several KV splits     (b) only with quantized weights
//     (c) at adapted positions they write `lowered`, too, to which the next product's updates are raised
//
// Each buffer is overwritten only after a barrier that follows its last reader: between project_qkv, which reads
// normed, and the normalize that overwrites it there are four barriers, or up to six with (a) and (b); between
// project_gate_up and the next normalize there are two, or three with (b). lowered is read by the product after the
// phase that writes it, and there is a barrier before and after each product.

#pragma once

#include "barrier.h"
#include "elementwise.h"
#include "flash_decoding.h"
#include "gemv.h"
#include "low_rank.h"

#include <initializer_list>

namespace {

// Rows that are multiplied next: in T for dense weights; for quantized ones in float32, and then as integers.
template <typename T> struct Activations {
    int columns;
    T* rows = nullptr;
    float* exact = nullptr;
    QuantizedRows quantized;

    Activations(int num, int columns, bool is_quantized, ScratchBuffer& numbers, ScratchBuffer& integers)
        : columns(columns) {
        if (is_quantized)
            exact = numbers.reserve<float>(num, columns), quantized = QuantizedRows(num, columns, integers);
        else
            rows = numbers.reserve<T>(num, columns);
    }
    void put(long row, long column, Floats x, int count = LANES) {
        if (exact != nullptr)
            store(exact + row * columns + column, x, count);
        else
            store(rows + row * columns + column, x, count);
    }
    // Both after the last `put` of a row.
    void quantize(long row) {
        if (exact != nullptr) quantized.set(int(row), exact + row * columns, columns);
    }
    void lower(long row, const LowRank& update, float* to) const {
        if (update.rank == 0) return;
        if (exact != nullptr)
            ::lower<T>(update, exact + row * columns, columns, to);
        else
            ::lower<T>(update, rows + row * columns, columns, to);
    }
};

// The largest rank of a decoder's updates; 0 if there are none.
inline int find_max_rank(const Decoder& d) {
    int rank = 0;
    for (int l = 0; l < d.num_layers; l++) {
        const Layer& layer = d.layers[l];
        for (const LowRank* update : {&layer.of_q, &layer.of_k, &layer.of_v, &layer.of_o, &layer.of_gate,
                                      &layer.of_up, &layer.of_down})
            rank = std::max(rank, int(update->rank));
    }
    return rank;
}

struct DecoderScratch {
    ScratchBuffer normed[2], attended[2], gated[2], qkv, queries, gates, ups;
    ScratchBuffer partials, partial_values, states, gathered, lowered;
};

template <typename T> class DecodeStep {
    using C = ComputeType<T>;
    const Decoder& d;
    const Batch& batch;
    const int num, dim, group, q_width, kv_width, qkv_width;
    const KVLayout kv;
    const KVSplitPlan plan;
    const bool is_quantized;
    Activations<T> normed, attended, gated;  // [num][hidden_size], [num][q_width], [num][intermediate_size]
    float *qkv, *gates, *ups;                // [num][qkv_width], [num][intermediate_size]
    C* queries;                              // [num][q_width]
    Partial* partials;                       // [num][max_splits][num_heads]
    float* partial_values;                   // the same with [head_dim]
    const int max_rank;                      // of the updates; 0 where no position is adapted
    float* lowered;                          // [num][3][max_rank] for up to three matrices of a product
    PerThread<OnlineSoftmax> states;
    PerThread<C> gathered;
    Barrier barrier;

  public:
    // Reserves all memory: an exception must not leave the parallel region.
    DecodeStep(const Decoder& d, const Batch& batch, DecoderScratch& s)
        : d(d), batch(batch), num(batch.num), dim(d.head_dim), group(d.num_heads / d.num_kv_heads),
          q_width(d.num_heads * dim), kv_width(d.num_kv_heads * dim), qkv_width(q_width + 2 * kv_width),
          kv{d.block_tokens, d.num_kv_heads, dim}, plan(plan_kv_splits(d, batch)),
          is_quantized(d.layers[0].q.bits <= 8),
          normed(num, d.hidden_size, is_quantized, s.normed[0], s.normed[1]),
          attended(num, q_width, is_quantized, s.attended[0], s.attended[1]),
          gated(num, d.intermediate_size, is_quantized, s.gated[0], s.gated[1]),
          qkv(s.qkv.reserve<float>(num, qkv_width)), gates(s.gates.reserve<float>(num, d.intermediate_size)),
          ups(s.ups.reserve<float>(num, d.intermediate_size)), queries(s.queries.reserve<C>(num, q_width)),
          partials(s.partials.reserve<Partial>(size_t(num) * plan.max_splits, d.num_heads)),
          partial_values(s.partial_values.reserve<float>(size_t(num) * plan.max_splits, q_width)),
          max_rank(batch.adapted == nullptr ? 0 : find_max_rank(d)),
          lowered(s.lowered.reserve<float>(size_t(num) * 3, max_rank)), states(s.states, d.num_threads),
          gathered(s.gathered, d.num_threads, MAX_ROWS * MAX_DIM) {}

    void run() {
#pragma omp parallel num_threads(d.num_threads)
        {
            const Worker worker{omp_get_thread_num(), omp_get_num_threads()};
            for (int l = 0; l < d.num_layers; l++) run_layer(d.layers[l], worker);
        }
    }

  private:
    // The drawing above, line by line.
    void run_layer(const Layer& layer, const Worker& worker) {
        normalize(layer.input_norm, {&layer.of_q, &layer.of_k, &layer.of_v}, worker);
        barrier.wait(worker);
        project_qkv(layer, worker);
        barrier.wait(worker);
        rotate_and_write_kv(layer, worker);
        barrier.wait(worker);
        attend_splits(layer, worker);
        barrier.wait(worker);
        if (plan.max_splits > 1) {
            merge_partials();
            barrier.wait(worker);
        }
        prepare(attended, layer.of_o, worker);
        add_product(layer.o, layer.of_o, attended, worker);
        barrier.wait(worker);
        normalize(layer.post_norm, {&layer.of_gate, &layer.of_up}, worker);
        barrier.wait(worker);
        project_gate_up(layer, worker);
        barrier.wait(worker);
        prepare(gated, layer.of_down, worker);
        add_product(layer.down, layer.of_down, gated, worker);
        barrier.wait(worker);
    }

    // A thread's columns of a product with this matrix.
    Range columns(const Matrix& w, const Worker& worker) const {
        return worker.share(w.rows, is_quantized ? LANES : 4);
    }

    bool is_adapted(long m) const { return max_rank > 0 && batch.adapted[m]; }
    float* lowered_row(long m, int index) const { return lowered + (m * 3 + index) * max_rank; }

    // out [num][stride] += an update, in a thread's columns of a product with w, from what was lowered as `index`.
    void add_update(const Matrix& w, const LowRank& update, int index, float* out, size_t stride, Range own) const {
        if (update.rank == 0) return;
        for (long m = 0; m < num; m++)
            if (is_adapted(m)) raise<T>(update, lowered_row(m, index), w.rows, own, out + m * stride);
    }

    // normed = RMS norm of hidden, lowered for the updates of the next products.
    void normalize(const float* weight, std::initializer_list<const LowRank*> updates, const Worker& worker) {
        const Range rows = worker.share(num);
        const int width = d.hidden_size;
        for (long m = rows.begin; m < rows.end; m++) {
            const float* x = batch.hidden + m * width;
            const float scale = 1 / std::sqrt(mean_of_squares(x, width) + d.eps);
            for (int i = 0; i < width; i += LANES)
                normed.put(m, i, load(x + i, width - i) * scale * load(weight + i, width - i), width - i);
            normed.quantize(m);
            if (!is_adapted(m)) continue;
            int index = 0;
            for (const LowRank* update : updates) normed.lower(m, *update, lowered_row(m, index++));
        }
    }

    void project_qkv(const Layer& layer, const Worker& worker) {
        auto project = [&](const Matrix& w, const float* bias, int offset, const LowRank& update, int index) {
            float* out = qkv + offset;
            const size_t stride = qkv_width;
            const Range own = columns(w, worker);
            gemv<T>(w, num, normed.rows, normed.quantized, own,
                    [=](int r, int c, float x) { out[r * stride + c] = x + (bias ? bias[c] : 0); });
            add_update(w, update, index, out, stride, own);
        };
        project(layer.q, layer.q_bias, 0, layer.of_q, 0);
        project(layer.k, layer.k_bias, q_width, layer.of_k, 1);
        project(layer.v, layer.v_bias, q_width + kv_width, layer.of_v, 2);
    }

    void rotate_and_write_kv(const Layer& layer, const Worker& worker) {
        const int num_heads = d.num_heads + d.num_kv_heads;  // values come with their keys
        const Range heads = worker.share(long(num) * num_heads);
        for (long i = heads.begin; i < heads.end; i++) {
            const long m = i / num_heads;
            const int head = int(i % num_heads), kv_head = head - d.num_heads;
            const float* row = qkv + m * qkv_width;
            float rotated[MAX_DIM];
            apply_rope(row + head * dim, batch.cos + m * dim, batch.sin + m * dim, dim, rotated);
            if (kv_head < 0) {
                C* query = queries + m * q_width + head * dim;
                for (int j = 0; j < dim; j += LANES) store(query + j, load(rotated + j));
            } else {
                write_key(kv, (T*)layer.keys, batch.slots[m], kv_head, rotated);
                write_value(kv, (T*)layer.values, batch.slots[m], kv_head, row + q_width + kv_width + kv_head * dim,
                            ends_run(batch.slots, m, num));
            }
        }
    }

    void attend_splits(const Layer& layer, const Worker& worker) {
        OnlineSoftmax& state = *states.of(worker.thread);
        const long num_tasks = long(plan.splits.size()) * d.num_kv_heads;
#pragma omp for schedule(dynamic) nowait
        for (long i = 0; i < num_tasks; i++) {
            const KVSplit& split = plan.splits[i / d.num_kv_heads];
            const int head = int(i % d.num_kv_heads);
            attend_split(layer, split, head, gathered.of(worker.thread), state);
            keep_result(split, head, state);
        }
    }

    void attend_split(const Layer& layer, const KVSplit& split, int head, C* gathered, OnlineSoftmax& state) {
        const int rows = split.count * group;
        const C* asked = queries + size_t(split.first) * q_width + head * group * dim;
        if (split.count > 1) {
            for (int m = 0; m < split.count; m++)
                std::copy(asked + size_t(m) * q_width, asked + size_t(m) * q_width + group * dim,
                          gathered + m * group * dim);
            asked = gathered;
        }
        int first[MAX_ROWS], last[MAX_ROWS];
        std::fill(first, first + rows, d.window ? std::max(0, batch.lengths[split.first] - d.window) : 0);
        std::fill(last, last + rows, split.to - 1);
        const int32_t* table = batch.tables + long(split.first) * batch.table_stride;
        state.reset(rows, dim);
        const T *keys = (const T*)layer.keys, *values = (const T*)layer.values;
        attend_chunk<T>({kv, keys, values, table, head, asked, rows, first, last, d.scale}, split.from, split.to,
                        state);
    }

    // Attention over one split: the result itself where no request has several splits, else a partial one.
    void keep_result(const KVSplit& split, int head, const OnlineSoftmax& state) {
        for (int r = 0; r < split.count * group; r++) {
            const int m = split.first + r / group, own = head * group + r % group;
            if (plan.max_splits == 1) {
                state.finish(r, dim, [&](int j, Floats x) { attended.put(m, own * dim + j, x); });
                continue;
            }
            const long at = (long(m) * plan.max_splits + split.index) * d.num_heads + own;
            const float* values = state.values + r * dim;
            std::copy(values, values + dim, partial_values + at * dim);
            partials[at] = {state.running_max[r], state.running_sum[r], partial_values + at * dim};
        }
    }

    // attended = the partials of each head, rescaled to their common maximum.
    void merge_partials() {
#pragma omp for schedule(static) nowait
        for (long i = 0; i < long(num) * d.num_heads; i++) {
            const long m = i / d.num_heads, head = i % d.num_heads;
            const int num_splits = plan.num_splits[m];
            const Partial* of_head = partials + m * plan.max_splits * d.num_heads + head;
            float max = -INFINITY, total = 0, merged[MAX_DIM] = {};
            for (int s = 0; s < num_splits; s++) max = std::max(max, of_head[long(s) * d.num_heads].max);
            for (int s = 0; s < num_splits; s++) {
                const Partial& partial = of_head[long(s) * d.num_heads];
                if (partial.sum == 0) continue;
                const float rescale = std::exp(partial.max - max);
                total += rescale * partial.sum;
                for (int j = 0; j < dim; j++) merged[j] += rescale * partial.values[j];
            }
            for (int j = 0; j < dim; j += LANES) attended.put(m, head * dim + j, load(merged + j) / total);
        }
    }

    // Rows as integers, where the weights are, and lowered, where they are adapted; with the barrier that this takes.
    void prepare(Activations<T>& rows, const LowRank& update, const Worker& worker) {
        if (!is_quantized && max_rank == 0) return;
        const Range own = worker.share(num);
        for (long m = own.begin; m < own.end; m++) {
            rows.quantize(m);
            if (is_adapted(m)) rows.lower(m, update, lowered_row(m, 0));
        }
        barrier.wait(worker);
    }

    // hidden += rows times w: the residual connection.
    void add_product(const Matrix& w, const LowRank& update, const Activations<T>& rows, const Worker& worker) {
        float* hidden = batch.hidden;
        const size_t stride = d.hidden_size;
        const Range own = columns(w, worker);
        gemv<T>(w, num, rows.rows, rows.quantized, own,
                [=](int r, int c, float x) { hidden[r * stride + c] += x; });
        add_update(w, update, 0, hidden, stride, own);
    }

    // gated = silu(normed times gate) * (normed times up). A thread's columns of both are its own until the barrier.
    void project_gate_up(const Layer& layer, const Worker& worker) {
        const Range own = columns(layer.gate, worker);
        const size_t stride = d.intermediate_size;
        auto project = [&](const Matrix& w, float* out, const LowRank& update, int index) {
            gemv<T>(w, num, normed.rows, normed.quantized, own,
                    [=](int r, int c, float x) { out[r * stride + c] = x; });
            add_update(w, update, index, out, stride, own);
        };
        project(layer.up, ups, layer.of_up, 1);
        project(layer.gate, gates, layer.of_gate, 0);
        for (long m = 0; m < num; m++)
            for (long i = own.begin; i < own.end; i += LANES) {
                const size_t at = m * stride + i;
                const int count = int(std::min<long>(LANES, own.end - i));
                gated.put(m, i, silu_pieces(load(gates + at, count)) * load(ups + at, count), count);
            }
    }
};

template <typename T> void decode_layers(const Decoder& d, const Batch& batch) {
    static thread_local DecoderScratch scratch;
    DecodeStep<T>(d, batch, scratch).run();
}

}  // namespace
