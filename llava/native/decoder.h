// A decode step: all layers of a Llama, Mistral or Qwen2 decoder for a few positions, in one parallel region.
//
// One region for all layers means that a small model pays for no call and no thread start per product. Dense weights
// stay where torch has them, and each is read once for all positions. Threads share every phase and meet at a barrier
// where the next phase reads what other threads wrote:
//
//     phase                  a thread takes      and writes              the barrier after it protects
//     normalize (a)          rows                normed                  whole rows of normed
//     lower (b)              rows of matrices    lowered                 all of lowered
//     project_qkv            columns             qkv                     heads of qkv, which span two threads' columns
//     rotate_and_write_kv (a) heads of rows      queries, KV cache       all queries, keys and values of this step
//     attend_splits          KV splits           partials or attended    all partials of a head, or rows of attended
//     merge_partials (a, c)  heads of rows       attended                whole rows of attended
//     prepare (a, d)         rows                attended's integers     whole rows of them
//     lower (b)              rows of matrices    lowered                 all of lowered
//     add_product (W_o)      columns             hidden                  whole rows of hidden
//     normalize (a)          rows                normed                  whole rows of normed
//     lower (b)              rows of matrices    lowered                 all of lowered
//     project_gate_up        columns             gates, ups, gated       whole rows of gated
//     prepare (a, d)         rows                gated's integers        whole rows of them
//     lower (b)              rows of matrices    lowered                 all of lowered
//     add_product (W_down)   columns             hidden                  whole rows of hidden, for the next layer
//
//     (a) no barrier follows in a step of one position: every thread does it for itself, into a copy of its own,
//         which takes less time than waiting for another thread; queries are then rotated by who attends with them
//     (b) only where positions are adapted; the next product raises what was lowered, to the columns that it writes
//     (c) only where some request has several KV splits, or in a step of one position
//     (d) only with quantized weights
//
// Each buffer is overwritten only after a barrier that follows its last reader. In a step of one position there are
// three barriers between two writes of hidden, and two between those of qkv, of gated and of the partials. lowered is
// read by the product after the phase that writes it, and there is a barrier before and after each product.

#pragma once

#include "barrier.h"
#include "elementwise.h"
#include "flash_decoding.h"
#include "gemv.h"
#include "low_rank.h"

#include <initializer_list>

namespace {

// Rows that are multiplied next: in T for dense weights and for updates; for quantized weights in float32, and then as
// integers.
template <typename T> struct Activations {
    int columns;
    T* rows = nullptr;
    float* exact = nullptr;
    QuantizedRows quantized;

    Activations(int num, int columns, bool is_quantized, bool is_adapted, ScratchBuffer (&buffers)[3])
        : columns(columns) {
        if (!is_quantized || is_adapted) rows = buffers[0].reserve<T>(num, columns);
        if (!is_quantized) return;
        exact = buffers[1].reserve<float>(num, columns);
        quantized = QuantizedRows(num, columns, buffers[2]);
    }
    void put(long row, long column, Floats x, int count = LANES) {
        if (exact != nullptr) store(exact + row * columns + column, x, count);
        if (rows != nullptr) store(rows + row * columns + column, x, count);
    }
    // After the last `put` of a row: the integers of row `to`.
    void quantize(long row, long to) {
        if (exact != nullptr) quantized.set(int(to), exact + row * columns, columns);
    }
    const T* from(long row) const { return rows == nullptr ? nullptr : rows + row * columns; }
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
    ScratchBuffer normed[3], attended[3], gated[3], qkv, queries, gates, ups;
    ScratchBuffer partials, partial_values, states, gathered, lowered;
};

template <typename T> class DecodeStep {
    using C = ComputeType<T>;
    const Decoder& d;
    const Batch& batch;
    const int num, dim, group, q_width, kv_width, qkv_width;
    const KVLayout kv;
    const KVSplitPlan plan;
    const bool is_quantized, is_alone;       // is_alone: there is one position
    const int max_rank;                      // of the updates; 0 where no position is adapted
    const int num_copies;                    // of rows: of a position that is alone each thread has its own
    Activations<T> normed, attended, gated;  // [num_copies][hidden_size], [..][q_width], [num][intermediate_size]
    float *qkv, *gates, *ups;                // [num][qkv_width], [num][intermediate_size]
    C* queries;                              // [num][q_width]
    Partial* partials;                       // [num][max_splits][num_heads]
    float* partial_values;                   // the same with [head_dim]
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
          is_quantized(d.layers[0].q.bits <= 8), is_alone(num == 1),
          max_rank(batch.adapted == nullptr ? 0 : find_max_rank(d)), num_copies(is_alone ? d.num_threads : num),
          normed(num_copies, d.hidden_size, is_quantized, max_rank > 0, s.normed),
          attended(num_copies, q_width, is_quantized, max_rank > 0, s.attended),
          gated(num_copies, d.intermediate_size, is_quantized, max_rank > 0, s.gated),
          qkv(s.qkv.reserve<float>(num, qkv_width)), gates(s.gates.reserve<float>(num, d.intermediate_size)),
          ups(s.ups.reserve<float>(num, d.intermediate_size)), queries(s.queries.reserve<C>(num, q_width)),
          partials(s.partials.reserve<Partial>(size_t(num) * plan.max_splits, d.num_heads)),
          partial_values(s.partial_values.reserve<float>(size_t(num) * plan.max_splits, q_width)),
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
        normalize(layer.input_norm, worker);
        share_rows(worker);
        lower(normed, own_copy(worker), {&layer.of_q, &layer.of_k, &layer.of_v}, worker);
        project_qkv(layer, worker);
        barrier.wait(worker);
        rotate_and_write_kv(layer, worker);
        share_rows(worker);
        attend_splits(layer, worker);
        barrier.wait(worker);
        if (keeps_partials()) {
            merge_partials(worker);
            share_rows(worker);
        }
        prepare(attended, own_copy(worker), worker);
        lower(attended, own_copy(worker), {&layer.of_o}, worker);
        add_product(layer.o, layer.of_o, attended, own_copy(worker), worker);
        barrier.wait(worker);
        normalize(layer.post_norm, worker);
        share_rows(worker);
        lower(normed, own_copy(worker), {&layer.of_gate, &layer.of_up}, worker);
        project_gate_up(layer, worker);
        barrier.wait(worker);
        prepare(gated, 0, worker);
        lower(gated, 0, {&layer.of_down}, worker);
        add_product(layer.down, layer.of_down, gated, 0, worker);
        barrier.wait(worker);
    }

    // Where a thread finds the first row that it multiplies.
    long own_copy(const Worker& worker) const { return is_alone ? worker.thread : 0; }
    // The rows that a thread prepares.
    Range own_rows(const Worker& worker) const { return is_alone ? Range{0, 1} : worker.share(num); }
    // The barrier after phases in which threads share the rows, where they do.
    void share_rows(const Worker& worker) {
        if (!is_alone) barrier.wait(worker);
    }
    bool keeps_partials() const { return is_alone || plan.max_splits > 1; }

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

    // lowered = rows from `first` on, lowered for the updates of the next product: the team shares the matrices' rows.
    // With the barrier that this takes.
    void lower(const Activations<T>& rows, long first, std::initializer_list<const LowRank*> updates,
               const Worker& worker) {
        if (max_rank == 0) return;
        long num_rows = 0, begin = 0;
        for (const LowRank* update : updates) num_rows += update->rank;
        const Range own = worker.share(num_rows, 4);
        int index = 0;
        for (const LowRank* update : updates) {
            const Range part = {std::max(0L, own.begin - begin), std::min<long>(update->rank, own.end - begin)};
            ::lower<T>(*update, num, rows.from(first), rows.columns, part, lowered_row(0, index++), 3L * max_rank);
            begin += update->rank;
        }
        barrier.wait(worker);
    }

    // normed = RMS norm of hidden.
    void normalize(const float* weight, const Worker& worker) {
        const Range rows = own_rows(worker);
        const int width = d.hidden_size;
        for (long m = rows.begin; m < rows.end; m++) {
            const long to = m + own_copy(worker);
            const float* x = batch.hidden + m * width;
            const float scale = 1 / std::sqrt(mean_of_squares(x, width) + d.eps);
            for (int i = 0; i < width; i += LANES)
                normed.put(to, i, load(x + i, width - i) * scale * load(weight + i, width - i), width - i);
            normed.quantize(to, to);
        }
    }

    void project_qkv(const Layer& layer, const Worker& worker) {
        auto project = [&](const Matrix& w, const float* bias, int offset, const LowRank& update, int index) {
            float* out = qkv + offset;
            const size_t stride = qkv_width;
            const Range own = columns(w, worker);
            multiply(w, normed, own_copy(worker), own, worker,
                     [=](int r, int c, float x) { out[r * stride + c] = x + (bias ? bias[c] : 0); });
            add_update(w, update, index, out, stride, own);
        };
        project(layer.q, layer.q_bias, 0, layer.of_q, 0);
        project(layer.k, layer.k_bias, q_width, layer.of_k, 1);
        project(layer.v, layer.v_bias, q_width + kv_width, layer.of_v, 2);
    }

    void rotate_and_write_kv(const Layer& layer, const Worker& worker) {
        if (is_alone) return;
        const int num_heads = d.num_heads + d.num_kv_heads;  // values come with their keys
        const Range heads = worker.share(long(num) * num_heads);
        for (long i = heads.begin; i < heads.end; i++) {
            const long m = i / num_heads;
            const int head = int(i % num_heads);
            if (head < d.num_heads)
                rotate_query(m, head, queries + m * q_width + head * dim);
            else
                write_head(layer, m, head - d.num_heads);
        }
    }

    void rotate_query(long m, int head, C* to) const {
        float rotated[MAX_DIM];
        apply_rope(qkv + m * qkv_width + head * dim, batch.cos + m * dim, batch.sin + m * dim, dim, rotated);
        for (int j = 0; j < dim; j += LANES) store(to + j, load(rotated + j));
    }

    // Writes a key and a value of this step into the KV cache.
    void write_head(const Layer& layer, long m, int head) const {
        const float *key = qkv + m * qkv_width + q_width + head * dim, *value = key + kv_width;
        float rotated[MAX_DIM];
        apply_rope(key, batch.cos + m * dim, batch.sin + m * dim, dim, rotated);
        write_key(kv, (T*)layer.keys, batch.slots[m], head, rotated);
        write_value(kv, (T*)layer.values, batch.slots[m], head, value, ends_run(batch.slots, m, num));
    }

    void attend_splits(const Layer& layer, const Worker& worker) {
        OnlineSoftmax& state = *states.of(worker.thread);
        const long num_tasks = long(plan.splits.size()) * d.num_kv_heads;
#pragma omp for schedule(dynamic) nowait
        for (long i = 0; i < num_tasks; i++) {
            const KVSplit& split = plan.splits[i / d.num_kv_heads];
            const int head = int(i % d.num_kv_heads);
            const C* asked = find_queries(split, head, gathered.of(worker.thread));
            // Nobody else reads the only position of this step: the last split ends with it.
            if (is_alone && split.to == batch.lengths[0]) write_head(layer, 0, head);
            attend_split(layer, split, head, asked, state);
            keep_result(split, head, state);
        }
    }

    // The queries [rows of the split][head_dim] under a KV head: where they lie, or gathered.
    const C* find_queries(const KVSplit& split, int head, C* gathered) const {
        if (is_alone) {
            for (int i = 0; i < group; i++) rotate_query(0, head * group + i, gathered + i * dim);
            return gathered;
        }
        const C* asked = queries + size_t(split.first) * q_width + head * group * dim;
        if (split.count == 1) return asked;
        for (int m = 0; m < split.count; m++)
            std::copy(asked + size_t(m) * q_width, asked + size_t(m) * q_width + group * dim,
                      gathered + m * group * dim);
        return gathered;
    }

    void attend_split(const Layer& layer, const KVSplit& split, int head, const C* asked, OnlineSoftmax& state) {
        const int rows = split.count * group;
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
            if (!keeps_partials()) {
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
    void merge_partials(const Worker& worker) {
        const Range heads = is_alone ? Range{0, d.num_heads} : worker.share(long(num) * d.num_heads);
        for (long i = heads.begin; i < heads.end; i++) {
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
            for (int j = 0; j < dim; j += LANES) 
                attended.put(m + own_copy(worker), head * dim + j, load(merged + j) / total);
        }
    }

    // Rows as integers, where the weights are.
    void prepare(Activations<T>& rows, long first, const Worker& worker) {
        if (!is_quantized) return;
        const Range own = own_rows(worker);
        for (long m = own.begin; m < own.end; m++) rows.quantize(m + first, m + own_copy(worker));
        share_rows(worker);
    }

    // emit(row, column, product) of rows from `first` on with a thread's columns of w.
    template <typename Emit>
    void multiply(const Matrix& w, const Activations<T>& rows, long first, Range own, const Worker& worker,
                  Emit emit) const {
        gemv<T>(w, num, rows.from(first), rows.quantized.from(own_copy(worker)), own, emit);
    }

    // hidden += rows from `first` on times w: the residual connection.
    void add_product(const Matrix& w, const LowRank& update, const Activations<T>& rows, long first,
                     const Worker& worker) {
        float* hidden = batch.hidden;
        const size_t stride = d.hidden_size;
        const Range own = columns(w, worker);
        multiply(w, rows, first, own, worker, [=](int r, int c, float x) { hidden[r * stride + c] += x; });
        add_update(w, update, 0, hidden, stride, own);
    }

    // gated = silu(normed times gate) * (normed times up). A thread's columns of both are its own until the barrier.
    void project_gate_up(const Layer& layer, const Worker& worker) {
        const Range own = columns(layer.gate, worker);
        const size_t stride = d.intermediate_size;
        auto project = [&](const Matrix& w, float* out, const LowRank& update, int index) {
            multiply(w, normed, own_copy(worker), own, worker,
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
