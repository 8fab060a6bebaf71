// The barrier between phases that one team of threads runs, and each thread's share of a phase.

#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

struct Range {
    long begin, end;
};

// A thread and the size of its team.
struct Worker {
    int thread, num_threads;
    // Its share of n things, in whole grains.
    Range share(long n, long grain = 1) const {
        const long grains = (n + grain - 1) / grain;
        return {std::min(n, grains * thread / num_threads * grain),
                std::min(n, grains * (thread + 1) / num_threads * grain)};
    }
};

// A spinning barrier. OpenMP's own puts threads to sleep at once wherever the process has more threads than cores (each
// thread that calls in has its team), and waking one takes longer than most phases of a decode step.
class alignas(64) Barrier {
    std::atomic<int> num_arrived{0}, generation{0};

  public:
    void wait(const Worker& worker) {
        const int before = generation.load(std::memory_order_relaxed);
        if (num_arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == worker.num_threads) {
            num_arrived.store(0, std::memory_order_relaxed);
            generation.fetch_add(1, std::memory_order_release);
            return;
        }
        for (long spins = 0; generation.load(std::memory_order_acquire) == before; spins++) {
#if defined(__x86_64__)
            _mm_pause();
#endif
            // The last thread may need this core to arrive: yield, then sleep if threads share less than a core each.
            if (spins > 10000)
                std::this_thread::sleep_for(std::chrono::microseconds(50));
            else if (spins > 5000)
                std::this_thread::yield();
        }
    }
};

}  // namespace
