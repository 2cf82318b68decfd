#pragma once

#include <atomic>
#include <cstdint>
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

// Work shared out in one region: each worker first takes a fixed contiguous part, then small pieces of a common tail,
// so that a worker that loses its CPU for a while does not hold up the others by its whole part.
class WorkQueue {
 public:
  void reset() { next_.store(0, std::memory_order_relaxed); }

  // Calls body(begin, end) for pieces of [0, total) until none is left. All workers must call it with equal arguments.
  // `tail_step` is the size of a tail piece.
  template <class Body>
  void share(int64_t total, int64_t tail_step, int worker, int num_workers, Body&& body) {
    const int64_t fixed = num_workers == 1 ? total : total * 3 / 4 / num_workers;  // part of each worker
    if (fixed > 0) body(fixed * worker, fixed * (worker + 1));
    take(fixed * num_workers, total, tail_step, body);
  }

  // As share(), but all of it in pieces of `step`.
  template <class Body>
  void take(int64_t begin, int64_t end, int64_t step, Body&& body) {
    if (step < 1) step = 1;
    for (;;) {
      const int64_t piece = begin + next_.fetch_add(step, std::memory_order_relaxed);
      if (piece >= end) return;
      body(piece, piece + step < end ? piece + step : end);
    }
  }

 private:
  alignas(64) std::atomic<int64_t> next_{0};
};

}  // namespace corral
