// The C interface of the engine's own kernels for CPUs: whole decode steps, and the operations between torch's matrix
// products in a prefill or a vision tower.
//
// Plain C++ without torch's headers: it compiles in seconds and is called with pointers (calls.py). Results are
// accumulated in float32 and rounded once. Every function returns a status, and no exception leaves one.

#include "vectors.h"

#include "attention.h"
#include "choose.h"
#include "decoder.h"
#include "elementwise.h"
#include "gemm_int8.h"
#include "gemv.h"

namespace {

enum Status { OK = 0, OUT_OF_MEMORY = 1, FAILED = 2 };  // abi.py has the same

// The bytes of the allocation that caused this thread's last OUT_OF_MEMORY; 0 if they are unknown.
thread_local uint64_t failed_bytes = 0;

template <typename T> struct Tag {
    using type = T;
};

template <typename F> int guard(F run) noexcept {
    try {
        run();
        return OK;
    } catch (const OutOfMemory& error) {
        failed_bytes = error.num_bytes;
        return OUT_OF_MEMORY;
    } catch (const std::bad_alloc&) {
        failed_bytes = 0;
        return OUT_OF_MEMORY;
    } catch (...) {
        return FAILED;
    }
}

// Calls run(Tag<T>) with the type T of `dtype`: 0 is float32, 1 bfloat16 (DTYPES in calls.py).
template <typename F> int with_dtype(int dtype, F run) noexcept {
    return guard([&] { dtype ? run(Tag<bf16>()) : run(Tag<float>()); });
}
#define TYPE(tag) typename decltype(tag)::type

}  // namespace

extern "C" {

uint64_t llava_failed_bytes() { return failed_bytes; }

// Whether this CPU has an instruction for int8 dot products, so that quantized products are faster than dense ones.
int llava_has_vnni() {
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
    return 1;
#else
    return 0;
#endif
}

int llava_attend(int dtype, const Attention* a, const void* queries, const void* keys, const void* values, void* out) {
    return with_dtype(dtype, [=](auto tag) {
        using T = TYPE(tag);
        attend(*a, (const T*)queries, (const T*)keys, (const T*)values, (T*)out);
    });
}

int llava_write_kv(int dtype, int num, int num_kv_heads, int head_dim, int block_tokens, const void* keys,
                   const void* values, const int64_t* slots, void* key_cache, void* value_cache, int num_threads) {
    return with_dtype(dtype, [=](auto tag) {
        using T = TYPE(tag);
        const KVLayout kv{block_tokens, num_kv_heads, head_dim};
        write_kv(kv, num, (const T*)keys, (const T*)values, slots, (T*)key_cache, (T*)value_cache, num_threads);
    });
}

// `dtype` of the products, `cache_dtype` of the queries and the caches.
int llava_apply_rope_and_write_kv(int dtype, int cache_dtype, const Heads* heads, const void* q, const void* k,
                                  const void* v, void* queries, void* key_cache, void* value_cache) {
    return with_dtype(dtype, [=](auto from) {
        auto run = [=](auto to) {
            using To = TYPE(to);
            apply_rope_and_write_kv<TYPE(from)>(*heads, q, k, v, (To*)queries, (To*)key_cache, (To*)value_cache);
        };
        cache_dtype ? run(Tag<bf16>()) : run(Tag<float>());
    });
}

int llava_choose(const Choosing* choosing) {
    return guard([=] { choose_tokens(*choosing); });
}

int llava_decode_layers(int dtype, const Decoder* decoder, const Batch* batch) {
    return with_dtype(dtype, [=](auto tag) { decode_layers<TYPE(tag)>(*decoder, *batch); });
}

int llava_gemv(int dtype, const Matrix* w, int num, const void* rows, float* out, int num_threads) {
    return with_dtype(dtype, [=](auto tag) { run_gemv(*w, num, (const TYPE(tag)*)rows, out, num_threads); });
}

int llava_gemm_int8(int dtype, const Matrix* w, int num, const void* rows, float* out, int num_threads) {
    return with_dtype(dtype, [=](auto tag) { run_gemm_int8(*w, num, (const TYPE(tag)*)rows, out, num_threads); });
}

int llava_quantize(int dtype, int bits, int rows, int columns, const void* weight, void* data, void* scales,
                   int num_threads) {
    return with_dtype(dtype, [=](auto tag) {
        quantize(bits, (const TYPE(tag)*)weight, rows, columns, (uint8_t*)data, scales, num_threads);
    });
}

int llava_dequantize(int dtype, const Matrix* w, void* out, int num_threads) {
    return with_dtype(dtype, [=](auto tag) { dequantize(*w, (TYPE(tag)*)out, num_threads); });
}

int llava_norm(int dtype, int num, int width, const float* x, const float* weight, const float* bias, float eps,
               void* out, int num_threads) {
    return with_dtype(dtype, [=](auto tag) {
        normalize_rows(num, width, x, weight, bias, eps, (TYPE(tag)*)out, num_threads);
    });
}

int llava_add(int dtype, int num, int width, const void* x, const float* bias, float* hidden, int num_threads) {
    return with_dtype(dtype, [=](auto tag) { add_rows(num, width, (const TYPE(tag)*)x, bias, hidden, num_threads); });
}

int llava_activate(int dtype, int activation, int num, int width, void* x, const float* bias, int num_threads) {
    return with_dtype(dtype, [=](auto tag) {
        auto* rows = (TYPE(tag)*)x;
        if (activation == QUICK_GELU) activate_rows<QUICK_GELU>(num, width, rows, bias, num_threads);
        if (activation == GELU) activate_rows<GELU>(num, width, rows, bias, num_threads);
        if (activation == GELU_TANH) activate_rows<GELU_TANH>(num, width, rows, bias, num_threads);
    });
}

int llava_gate(int dtype, long count, void* gates, const void* ups, int num_threads) {
    return with_dtype(dtype, [=](auto tag) {
        using T = TYPE(tag);
        multiply_gates(count, (T*)gates, (const T*)ups, num_threads);
    });
}
}
