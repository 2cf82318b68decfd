#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace corral {

// A 32-bit event count that threads wait on: a bounded spin, then a sleep in the kernel. Waking costs a system call
// only if somebody sleeps.
class EventCount {
 public:
  uint32_t current() const { return count_.load(std::memory_order_acquire); }
  void advance();
  // Returns once current() != seen.
  void wait_past(uint32_t seen, int spin_us);

 private:
  alignas(64) std::atomic<uint32_t> count_{0};
  std::atomic<uint32_t> sleepers_{0};
};

// Persistent threads that run one function together. The calling thread is worker 0, so a pool of one starts none.
// Idle workers sleep and take no CPU. A pool runs one region at a time: run() must not be entered twice at once.
class ThreadPool {
 public:
  // With `pin`, worker i runs on the i-th CPU of the caller's affinity mask (worker 0 only while in run()); not done
  // when there are fewer CPUs than workers.
  ThreadPool(int num_threads, bool pin);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(worker) on every worker, returns when all have returned. `body` must not throw.
  template <class Body>
  void run(Body&& body) {
    using Function = std::remove_reference_t<Body>;
    run_region([](void* context, int worker) { (*static_cast<Function*>(context))(worker); },
               const_cast<void*>(static_cast<const void*>(&body)));
  }

  // Inside run(): returns once every worker has called it. Memory written before is seen after.
  void barrier();

 private:
  using Region = void (*)(void* context, int worker);

  void run_region(Region region, void* context);
  void worker_loop(int worker);
  void stop();

  const int num_threads_;
  std::vector<int> cpus_;  // CPU of each worker; empty if not pinned
  int spin_us_;
  Region region_ = nullptr;
  void* context_ = nullptr;
  bool stopping_ = false;
  EventCount started_;
  EventCount passed_;
  alignas(64) std::atomic<int> arrived_{0};
  std::vector<std::thread> threads_;
};

// Pieces of [0, total), handed out one after the other to whoever asks.
class WorkQueue {
 public:
  // Calls body(begin, end) for pieces of `step` (at least 1) until none is left.
  template <class Body>
  void take(int64_t total, int64_t step, Body&& body) {
    for (;;) {
      const int64_t piece = next_.fetch_add(step, std::memory_order_relaxed);
      if (piece >= total) return;
      body(piece, piece + step < total ? piece + step : total);
    }
  }

 private:
  alignas(64) std::atomic<int64_t> next_{0};
};

// The stages of one region, in order. A stage ends when its work is done, not when all workers have come by: a worker
// that lost its CPU or still sleeps holds nobody up, the others do its share and it skips what is finished.
class StageList {
 public:
  StageList(int64_t num_stages, int num_workers);

  // Makes the first `num_stages` open again, all that the next region runs; not while a region runs.
  void reset(int64_t num_stages);

  // Calls body(begin, end) for pieces of [0, total), then waits until all of them are done, whoever did them. Each
  // worker begins with a contiguous part of its own and then helps with what others have left, in pieces that shrink
  // from at most `max_step` to 1 towards the end of a part. Whoever ends the last piece calls tail() before the others
  // go on. Every worker must call it for every stage, with equal arguments; memory written before is seen after. With a
  // total of 0 nothing is called.
  template <class Body, class Tail>
  void run(int64_t stage, int64_t total, int64_t max_step, int worker, Body&& body, Tail&& tail) {
    if (total < 1) return;
    Counter* counters = counters_.get() + stage * (num_workers_ + 1);
    int64_t finished = 0;
    for (int turn = 0; turn < num_workers_; ++turn) {
      const int part = (worker + turn) % num_workers_;
      const int64_t part_begin = total * part / num_workers_;
      const int64_t length = total * (part + 1) / num_workers_ - part_begin;
      std::atomic<int64_t>& taken = counters[1 + part].value;
      for (int64_t first = taken.load(std::memory_order_relaxed); first < length;) {
        const int64_t step = piece_size(length - first, max_step);
        if (!taken.compare_exchange_weak(first, first + step, std::memory_order_relaxed)) continue;
        body(part_begin + first, part_begin + first + step);
        finished += step;
        first = taken.load(std::memory_order_relaxed);
      }
    }
    std::atomic<int64_t>& done = counters[0].value;
    if (finished > 0 && done.fetch_add(finished, std::memory_order_acq_rel) + finished == total) {
      tail();
      end_stage(done, total + 1);
    } else {
      wait_for(done, total + 1);
    }
  }
  template <class Body>
  void run(int64_t stage, int64_t total, int64_t step, int worker, Body&& body) {
    run(stage, total, step, worker, body, [] {});
  }

 private:
  struct alignas(64) Counter {  // a cache line each: workers count their own parts at the same time
    std::atomic<int64_t> value{0};
  };

  // Half of what is left, by powers of two: each piece begins at a multiple of its size from the part's begin.
  static int64_t piece_size(int64_t left, int64_t max_step) {
    const int64_t step = left < 2 * max_step ? left / 2 : max_step;
    return step < 2 ? 1 : static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(step)));
  }

  void end_stage(std::atomic<int64_t>& done, int64_t value);
  void wait_for(const std::atomic<int64_t>& done, int64_t value);

  const int num_workers_;
  std::unique_ptr<Counter[]> counters_;  // of a stage: pieces done, then the taken part of each worker
  EventCount progress_;                  // advances when a stage ends
};

}  // namespace corral
