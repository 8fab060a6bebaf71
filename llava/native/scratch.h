// Scratch buffers: memory that outlives a call, because touching fresh pages costs more than computing in them.

#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace {

constexpr size_t PAGE_BYTES = 4096;

// An allocation that failed. kernels.cpp turns it into a status: no exception crosses the C interface.
struct OutOfMemory : std::bad_alloc {
    size_t num_bytes;
    explicit OutOfMemory(size_t num_bytes) : num_bytes(num_bytes) {}
};

// One buffer, which grows and never shrinks. Its owners are `thread_local`: each thread that calls the library has its
// own. It must not grow inside a parallel region, which no exception may leave.
class ScratchBuffer {
    void* memory = nullptr;
    size_t capacity = 0;

  public:
    ScratchBuffer() = default;
    ScratchBuffer(const ScratchBuffer&) = delete;
    ~ScratchBuffer() { std::free(memory); }

    // Room for [rows][columns] of T, uninitialized and aligned to a page. It overwrites what was reserved before.
    template <typename T> T* reserve(size_t rows, size_t columns = 1) {
        size_t count, num_bytes;
        if (__builtin_mul_overflow(rows, columns, &count) || __builtin_mul_overflow(count, sizeof(T), &num_bytes) ||
            num_bytes > SIZE_MAX - PAGE_BYTES)
            throw OutOfMemory(SIZE_MAX);
        if (num_bytes > capacity) {
            std::free(memory);
            memory = nullptr, capacity = 0;
            num_bytes = (num_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
            memory = std::aligned_alloc(PAGE_BYTES, num_bytes);
            if (memory == nullptr) throw OutOfMemory(num_bytes);
            capacity = num_bytes;
        }
        return static_cast<T*>(memory);
    }
};

// Room for `count` of T for each thread of a team, reserved before the team starts. Slices begin on pages of their own,
// so that no two threads write to one cache line.
template <typename T> class PerThread {
    uint8_t* slices;
    size_t stride;

  public:
    PerThread(ScratchBuffer& buffer, int num_threads, size_t count = 1)
        : stride((count * sizeof(T) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES) {
        slices = buffer.reserve<uint8_t>(size_t(num_threads), stride);
    }
    T* of(int thread) const { return reinterpret_cast<T*>(slices + thread * stride); }
};

}  // namespace
