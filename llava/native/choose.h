// Choosing the next token of each row of logits, exactly as engine/choose.py defines it, and the likeliest tokens.
//
// The highest logit of every span of 64 tokens is found first. It tells where the likeliest tokens are, so that top-k
// and most nuclei of top-p are decided within a short list of tokens, in the order of their ids. Where the nucleus is
// larger, a sample of the tokens tells between which logits it ends, and only the tokens between them are listed.
//
// A logit x is scaled to s = (x - highest) / temperature, whose weight is e**s. Sums are in double, in an order that
// depends on the row alone.

#pragma once

#include "abi.h"
#include "scratch.h"
#include "doubles.h"

#include <functional>
#include <limits>

namespace {

constexpr int SPAN = 64;             // tokens
constexpr int SHORT_LIST = 256;      // from how many spans the short list is, at least
constexpr int NUM_SAMPLED = 64;      // spans
constexpr int NUM_BUCKETS = 1024;
constexpr double NUM_DEVIATIONS = 4; // within so many standard deviations the sample is trusted
constexpr double MIN_P_SLACK = 1.0 / (1 << 25);

// Which tokens are kept: those with at least `least`, but after the token `last_tie` those with at least `above`.
struct Kept {
    float least = -INFINITY, above = -INFINITY;
    int last_tie = INT32_MAX;
    bool has(float scaled, int token) const { return scaled >= (token <= last_tie ? least : above); }
};

struct Weighted {
    float scaled, weight;
};

// What one thread works with, for `count` tokens.
struct Workplace {
    float *maxima, *ranked;  // [spans] the highest logit of each
    double* sums;            // [spans] of the weights
    int32_t* tokens;         // a list of tokens in the order of their ids
    float *scaled, *weights; // of the list
    Weighted *items, *parts[3];  // a list without order, and room for parts of it

    static size_t round(size_t count) { return (count + SPAN - 1) / SPAN * SPAN; }
    static size_t num_bytes(size_t count) {
        return round(count) * (sizeof(int32_t) + 2 * sizeof(float) + 4 * sizeof(Weighted)) +
               round(count) / SPAN * (2 * sizeof(float) + sizeof(double));
    }
    Workplace(uint8_t* memory, size_t count) {
        const size_t rounded = round(count), num_spans = rounded / SPAN;
        sums = reinterpret_cast<double*>(memory);
        items = reinterpret_cast<Weighted*>(sums + num_spans);
        for (int i = 0; i < 3; i++) parts[i] = items + (i + 1) * rounded;
        tokens = reinterpret_cast<int32_t*>(parts[2] + rounded);
        scaled = reinterpret_cast<float*>(tokens + rounded);
        weights = scaled + rounded;
        maxima = weights + rounded;
        ranked = maxima + num_spans;
    }
};

// One row of logits and its sampling parameters.
class TokenChoice {
    const float* x;
    const int count, num_spans;
    Workplace& work;
    double inverse = 1;  // of the temperature
    int num_listed = 0;

  public:
    float highest = 0;

    TokenChoice(const float* logits, int count, Workplace& work)
        : x(logits), count(count), num_spans((count + SPAN - 1) / SPAN), work(work) {
        NarrowFloats invalid = {};
        for (int span = 0; span < num_spans; span++) work.maxima[span] = find_maximum(span, invalid);
        highest = *std::max_element(work.maxima, work.maxima + num_spans);
        for (int i = 0; i < NARROW_LANES; i++)
            if (invalid[i] != 0) highest = NAN;
    }

    int argmax() const {
        const int span = std::find(work.maxima, work.maxima + num_spans, highest) - work.maxima;
        return std::find(x + span * SPAN, x + count, highest) - x;
    }

    int draw(double temperature, int top_k, double top_p, double min_p, double uniform) {
        inverse = std::min(1 / temperature, std::numeric_limits<double>::max());
        Kept kept;
        bool is_listed = top_k > 0 && top_k < count, is_summed = false;
        if (is_listed) {
            kept.least = kept.above = find_ranked(top_k);
            list(kept.least);
            if (top_p < 1) end_nucleus(0, weigh_list() * top_p, kept);
        } else if (top_p < 1) {
            is_listed = find_nucleus(top_p, kept);
            is_summed = !is_listed;
        }
        const float least = min_p > 0 ? float(std::log(min_p) - MIN_P_SLACK) : -INFINITY;
        if (least > kept.least) {
            kept.least = least, kept.above = std::max(kept.above, least);
            is_summed = false;
        }
        if (is_listed) return draw_listed(kept, uniform);
        if (!is_summed) sum_all(kept);
        return draw_from_sums(kept, uniform);
    }

    // The `num` likeliest tokens, the likeliest first, and the logarithm of the sum of e**x over all tokens.
    double rank(int num, int32_t* best) {
        inverse = 1;
        num = std::min(num, count);
        if (num > 0) {
            list(find_ranked(num));
            std::partial_sort_copy(work.tokens, work.tokens + num_listed, best, best + num,
                                   [this](int a, int b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
        }
        return highest + std::log(sum_all(Kept()));
    }

  private:
    float scale(float logit) const { return float((double(logit) - highest) * inverse); }
    int length(int span) const { return std::min(SPAN, count - span * SPAN); }

    // Lanes of `invalid` become 1 where a number is NaN.
    float find_maximum(int span, NarrowFloats& invalid) const {
        const float* from = x + span * SPAN;
        if (length(span) < SPAN) {
            float top = -INFINITY;
            for (int i = 0; i < length(span); i++) {
                if (std::isnan(from[i])) invalid[0] = 1;
                top = std::max(top, from[i]);
            }
            return top;
        }
        NarrowFloats top = load_narrow(from);
        for (int i = 0; i < SPAN; i += NARROW_LANES) {
            const NarrowFloats v = load_narrow(from + i);
            top = v > top ? v : top;
            invalid = v == v ? invalid : NarrowFloats{} + 1;
        }
        float most = top[0];
        for (int i = 1; i < NARROW_LANES; i++) most = std::max(most, top[i]);
        return most;
    }

    // The number of rank `rank`, 1 for the highest, in the order that this makes.
    static float select(float* numbers, int num, int rank) {
        std::nth_element(numbers, numbers + rank - 1, numbers + num, std::greater<float>());
        return numbers[rank - 1];
    }

    // Lists at least the tokens with the `rank` highest logits, few more where those are spread over all spans. The
    // least scaled logit that is listed.
    float list_likeliest(int rank) {
        std::copy(work.maxima, work.maxima + num_spans, work.ranked);
        const float least = scale(rank > num_spans ? -INFINITY : select(work.ranked, num_spans, rank));
        list(least);
        return least;
    }

    // The scaled logit of rank `rank`, 1 for the highest. Overwrites the list.
    float find_ranked(int rank) {
        list_likeliest(rank);
        std::copy(work.scaled, work.scaled + num_listed, work.weights);
        return select(work.weights, num_listed, rank);
    }

    // Lists the tokens with at least `least`.
    void list(float least) {
        num_listed = 0;
        alignas(64) float padded[SPAN], scaled[NARROW_LANES];
        for (int span = 0; span < num_spans; span++) {
            if (scale(work.maxima[span]) < least) continue;
            const float* from = pad(span, padded);
            for (int i = 0; i < SPAN; i += NARROW_LANES) {
                const NarrowFloats s = scale_narrow(from + i);
                const uint32_t bits = bits_of(s >= least);
                if (bits == 0) continue;
                store_narrow(scaled, s);
                append(scaled, scaled, bits, span * SPAN + i);
            }
        }
    }

    // Appends tokens to the list: those lanes whose bit is set, of which lane 0 is the token `first`.
    void append(const float* scaled, const float* weights, uint32_t bits, int first) {
        for (; bits != 0; bits &= bits - 1) {
            const int lane = __builtin_ctz(bits);
            if (first + lane >= count) return;
            work.tokens[num_listed] = first + lane;
            work.scaled[num_listed] = scaled[lane];
            work.weights[num_listed++] = weights[lane];
        }
    }

    double weigh_list() {
        double total = 0;
        for (int i = 0; i < num_listed; i += NARROW_LANES)
            store_narrow(work.weights + i, exp_nonpositive(load_narrow(work.scaled + i)));
        for (int i = 0; i < num_listed; i++) total += work.weights[i];
        return total;
    }

    // A span's logits, in `padded` if it is not full.
    const float* pad(int span, float* padded) const {
        const float* from = x + span * SPAN;
        if (length(span) == SPAN) return from;
        std::fill(std::copy(from, from + length(span), padded), padded + SPAN, -INFINITY);
        return padded;
    }

    // The scaled logits and the weights of a span, 0 for tokens that are not kept; their sum. Where they need not be
    // exact, the last bit of a scaled logit may be another one, but their order is the same.
    template <bool IS_EXACT = true> double weigh_span(int span, const Kept& kept, float* scaled, float* weights) const {
        const int first = span * SPAN;
        alignas(64) float padded[SPAN];
        const float* from = pad(span, padded);
        const bool is_mixed = first <= kept.last_tie && kept.last_tie < first + SPAN - 1;
        const float least = first > kept.last_tie || is_mixed ? kept.above : kept.least;
        const float factor = float(inverse);
        NarrowFloats sum = {};
        for (int i = 0; i < SPAN; i += NARROW_LANES) {
            const NarrowFloats s = IS_EXACT ? scale_narrow(from + i) : (load_narrow(from + i) - highest) * factor;
            const NarrowFloats weight = exp_nonpositive(s), w = s >= least ? weight : NarrowFloats{};
            store_narrow(scaled + i, s);
            store_narrow(weights + i, w);
            sum += w;
        }
        double total = add_lanes(sum);
        if (is_mixed && kept.least < kept.above) {
            const float weight = exp_nonpositive(NarrowFloats{} + kept.least)[0];
            for (int i = 0; i <= kept.last_tie - first; i++)
                if (scaled[i] == kept.least) total += weights[i] = weight;
        }
        return total;
    }
    Doubles scale(Doubles logits) const { return (logits - double(highest)) * inverse; }
    NarrowFloats scale_narrow(const float* from) const {
        return narrow(scale(widen(from)), scale(widen(from + NARROW_LANES / 2)));
    }

    // Whether scaled logits can be computed in float32, a third faster.
    bool is_tame() const { return inverse > 1e-30 && inverse < 1e30; }

    double sum_all(const Kept& kept) {
        alignas(64) float scaled[SPAN], weights[SPAN];
        const bool is_exact = kept.least > -INFINITY || !is_tame();
        double total = 0;
        for (int span = 0; span < num_spans; span++)
            total += work.sums[span] = is_exact ? weigh_span(span, kept, scaled, weights)
                                                : weigh_span<false>(span, kept, scaled, weights);
        return total;
    }

    int draw_from_sums(const Kept& kept, double uniform) const {
        double target = 0, sum = 0;
        for (int span = 0; span < num_spans; span++) target += work.sums[span];
        target *= uniform;
        int span = 0;
        while (span < num_spans - 1 && sum + work.sums[span] <= target) sum += work.sums[span++];
        while (span > 0 && work.sums[span] == 0) span--;
        alignas(64) float scaled[SPAN], weights[SPAN];
        weigh_span(span, kept, scaled, weights);
        return span * SPAN + pick(weights, SPAN, target, sum);
    }

    int draw_listed(const Kept& kept, double uniform) {
        weigh_list();
        double total = 0;
        for (int i = 0; i < num_listed; i++) {
            if (!kept.has(work.scaled[i], work.tokens[i])) work.weights[i] = 0;
            total += work.weights[i];
        }
        return work.tokens[pick(work.weights, num_listed, total * uniform, 0)];
    }

    // The first place where the sum of the weights exceeds `target`; where rounding left none, the last with a weight.
    static int pick(const float* weights, int num, double target, double sum) {
        int last = 0;
        for (int i = 0; i < num; i++) {
            if (weights[i] == 0) continue;
            sum += weights[i];
            last = i;
            if (sum > target) break;
        }
        return last;
    }

    // Restricts `kept` to top-p's nucleus, which ends in the list. `before`: the sum of all higher weights.
    void end_nucleus(double before, double enough, Kept& kept) {
        for (int i = 0; i < num_listed; i++) work.items[i] = {work.scaled[i], work.weights[i]};
        End end = find_end(num_listed, before, enough);
        kept.least = end.scaled;
        kept.above = std::nextafter(end.scaled, INFINITY);
        for (int i = 0; end.num_ties > 0; i++)
            if (work.scaled[i] == end.scaled && --end.num_ties == 0) kept.last_tie = work.tokens[i];
    }

    // Finds top-p's nucleus among all tokens. True where it is within the list afterwards; else the sums are its own.
    bool find_nucleus(double top_p, Kept& kept) {
        const float least = list_likeliest(std::min(SHORT_LIST, num_spans));
        const double listed = weigh_list();
        Sample sample;
        sample_below(least, sample);
        if (listed >= 0.9 * top_p * (listed + sample.sum * sample.stride)) {
            const double enough = sum_all(kept) * top_p;
            if (listed >= enough) {
                end_nucleus(0, enough, kept);
                return true;
            }
        }
        float lower = -INFINITY, upper = least;
        find_bounds(sample, listed / sample.stride, top_p, lower, upper);
        if (!end_nucleus_between(lower, upper, top_p, kept)) end_nucleus_between(-INFINITY, INFINITY, top_p, kept);
        return false;
    }

    struct Bucket {
        double sum, squares;  // of the weights
    };
    struct Sample {
        double stride;  // of how many spans one was taken
        double sum;     // of the weights
        float width;    // of a bucket
        Bucket buckets[NUM_BUCKETS];
    };

    // A sample of the tokens below `least`, in buckets of their scaled logits, the highest first.
    void sample_below(float least, Sample& sample) {
        const int stride = std::max(1, num_spans / NUM_SAMPLED);
        int num = 0;
        float lowest = 0;
        alignas(64) float scaled[SPAN], weights[SPAN];
        for (int span = 0; span < num_spans; span += stride) {
            weigh_span(span, Kept(), scaled, weights);
            for (int i = 0; i < SPAN; i++) {
                work.items[num] = {scaled[i], weights[i]};
                const bool is_counted = scaled[i] < least && weights[i] > 0;
                lowest = is_counted ? std::min(lowest, scaled[i]) : lowest;
                num += is_counted;
            }
        }
        sample = {double(stride), 0, std::max(1e-30f, -lowest / (NUM_BUCKETS - 1)), {}};
        for (int i = 0; i < num; i++) {
            const double weight = work.items[i].weight;
            Bucket& bucket = sample.buckets[std::min(NUM_BUCKETS - 1, int(-work.items[i].scaled / sample.width))];
            sample.sum += weight, bucket.sum += weight, bucket.squares += weight * weight;
        }
    }

    // Between which scaled logits the nucleus ends by the sample; `before`: the sum of higher weights in its unit.
    static void find_bounds(const Sample& sample, double before, double top_p, float& lower, float& upper) {
        const double enough = top_p * (before + sample.sum);
        double squares = 0, sum = before;
        for (const Bucket& bucket : sample.buckets) {
            squares += bucket.squares * std::pow(sum < enough ? 1 - top_p : top_p, 2);
            sum += bucket.sum;
        }
        const double error = NUM_DEVIATIONS * std::sqrt(squares);
        sum = before;
        for (int i = 0; i < NUM_BUCKETS; i++) {
            sum += sample.buckets[i].sum;
            if (sum < enough - error) upper = std::min(upper, -float(i) * sample.width);
            if (sum >= enough + error) {
                lower = -float(i + 2) * sample.width;
                return;
            }
        }
    }

    // Restricts `kept` to top-p's nucleus and sums it; false where it does not end between the bounds.
    bool end_nucleus_between(float lower, float upper, double top_p, Kept& kept) {
        alignas(64) float scaled[SPAN], weights[SPAN];
        double total = 0, before = 0;
        num_listed = 0;
        for (int span = 0; span < num_spans; span++) {
            total += is_tame() ? weigh_span<false>(span, Kept(), scaled, weights)
                               : weigh_span(span, Kept(), scaled, weights);
            NarrowFloats higher = {};
            for (int i = 0; i < SPAN; i += NARROW_LANES) {
                const NarrowFloats s = load_narrow(scaled + i), w = load_narrow(weights + i);
                higher += s >= upper ? w : NarrowFloats{};
                append(scaled + i, weights + i, bits_of((s >= lower) & (s < upper)), span * SPAN + i);
            }
            before += work.sums[span] = add_lanes(higher);
        }
        for (int i = 0; i < num_listed; i++) work.scaled[i] = scale(x[work.tokens[i]]);
        const double listed = weigh_list(), enough = total * top_p;
        if (num_listed == 0 || before >= enough || (before + listed < enough && lower > -INFINITY)) return false;
        end_nucleus(before, enough, kept);
        for (int i = 0; i < num_listed; i++)
            if (kept.has(work.scaled[i], work.tokens[i])) work.sums[work.tokens[i] / SPAN] += work.weights[i];
        return true;
    }

    static double add_lanes(NarrowFloats x) {
        const Doubles pairs = widen_low(x) + widen_high(x);
        double total = 0;
        for (int i = 0; i < NARROW_LANES / 2; i++) total += pairs[i];
        return total;
    }

    struct End {
        float scaled;
        int num_ties;
    };

    // The least scaled logit of the items before which the sum of the weights, from the highest down, is not `enough`
    // yet; and of how many of the items with it that is true. `before`: the sum of what is higher than all items.
    End find_end(int num, double before, double enough) const {
        const Weighted* items = work.items;
        Weighted *higher = work.parts[0], *lower = work.parts[1], *spare = work.parts[2];
        while (true) {
            const Weighted pivot = find_pivot(items, num);
            int num_higher = 0, num_lower = 0;
            for (int i = 0; i < num; i++) {  // without branches, which would be mispredicted
                const Weighted item = items[i];
                higher[num_higher] = lower[num_lower] = item;
                num_higher += item.scaled > pivot.scaled;
                num_lower += item.scaled < pivot.scaled;
            }
            const double sum = before + add_weights(higher, num_higher);
            const int num_equal = num - num_higher - num_lower;
            const double most = (enough - sum) / pivot.weight;
            const bool is_higher = sum >= enough && num_higher > 0;
            if (!is_higher && (num_equal >= most || num_lower == 0))
                return {pivot.scaled, most < num_equal ? std::max(1, int(std::ceil(most))) : num_equal};
            num = is_higher ? num_higher : num_lower;
            if (!is_higher) before = sum + num_equal * double(pivot.weight);
            // The chosen part is read next, so it must not be overwritten.
            Weighted*& chosen = is_higher ? higher : lower;
            items = chosen;
            std::swap(chosen, spare);
        }
    }

    static double add_weights(const Weighted* items, int num) {
        double sums[4] = {};
        int i = 0;
        for (; i + 4 <= num; i += 4)
            for (int j = 0; j < 4; j++) sums[j] += items[i + j].weight;
        for (; i < num; i++) sums[0] += items[i].weight;
        return (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }

    // The median of three items, one of each third, at places that look random.
    static Weighted find_pivot(const Weighted* items, int num) {
        const int third = num / 3;
        if (third == 0) return items[0];
        const uint32_t place = (uint32_t(num) * 2654435761u >> 8) % third;
        Weighted a = items[place], b = items[third + place], c = items[2 * third + place];
        if (a.scaled > b.scaled) std::swap(a, b);
        return c.scaled > b.scaled ? b : c.scaled < a.scaled ? a : c;
    }
};

void choose_tokens(const Choosing& c) {
    static thread_local ScratchBuffer buffer;
    const int num_threads = std::max(1, std::min(c.num_threads, c.num));
    const PerThread<uint8_t> memory(buffer, num_threads, Workplace::num_bytes(c.num_tokens));
#pragma omp parallel for num_threads(num_threads) schedule(dynamic) if (num_threads > 1)
    for (int i = 0; i < c.num; i++) {
        Workplace work(memory.of(omp_get_thread_num()), c.num_tokens);
        TokenChoice row(reinterpret_cast<const float*>(c.logits[i]), c.num_tokens, work);
        c.highest[i] = row.highest;
        c.tokens[i] = 0;
        if (!std::isfinite(row.highest)) continue;
        c.tokens[i] = c.temperatures[i] > 0
                          ? row.draw(c.temperatures[i], c.top_ks[i], c.top_ps[i], c.min_ps[i], c.uniforms[i])
                          : row.argmax();
        if (c.num_best == nullptr || c.num_best[i] < 0) continue;
        TokenChoice original(reinterpret_cast<const float*>(c.originals[i]), c.num_tokens, work);
        c.log_sums[i] = original.rank(c.num_best[i], c.best + size_t(i) * c.most_best);
    }
}

}  // namespace
