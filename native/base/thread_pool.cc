#include "base/thread_pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <optional>

namespace corral {
namespace {

constexpr int kSpinUs = 50;         // longer than a stage among running threads, shorter than a time slice
constexpr int kSpinsPerClock = 16;  // pauses between two looks at the clock

void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

long futex(std::atomic<uint32_t>* word, int operation, uint32_t value) {
  static_assert(sizeof(*word) == sizeof(uint32_t));
  return syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), operation | FUTEX_PRIVATE_FLAG, value, nullptr, nullptr,
                 0);
}

std::vector<int> allowed_cpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
  return cpus;
}

void pin_to(int cpu) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  CPU_SET(cpu, &mask);
  sched_setaffinity(0, sizeof(mask), &mask);  // a refusal only costs speed
}

// Pins the calling thread for its lifetime; puts the old mask back, which threads started later inherit.
class PinnedScope {
 public:
  explicit PinnedScope(int cpu) {
    restore_ = sched_getaffinity(0, sizeof(previous_), &previous_) == 0;
    if (restore_) pin_to(cpu);
  }
  ~PinnedScope() {
    if (restore_) sched_setaffinity(0, sizeof(previous_), &previous_);
  }
  PinnedScope(const PinnedScope&) = delete;
  PinnedScope& operator=(const PinnedScope&) = delete;

 private:
  cpu_set_t previous_;
  bool restore_ = false;
};

}  // namespace

void EventCount::advance() {
  // seq_cst on both sides: either the sleeper sees the new count, or we see the sleeper.
  count_.fetch_add(1, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) != 0) futex(&count_, FUTEX_WAKE, INT_MAX);
}

void EventCount::wait_past(uint32_t seen, int spin_us) {
  if (spin_us > 0) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(spin_us);
    do {
      for (int spin = 0; spin < kSpinsPerClock; ++spin) {
        if (current() != seen) return;
        cpu_pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  sleepers_.fetch_add(1, std::memory_order_seq_cst);
  while (count_.load(std::memory_order_seq_cst) == seen) futex(&count_, FUTEX_WAIT, seen);
  sleepers_.fetch_sub(1, std::memory_order_relaxed);
}

ThreadPool::ThreadPool(int num_threads, bool pin) : num_threads_(num_threads), spin_us_(kSpinUs) {
  cpus_ = allowed_cpus();
  const bool crowded = static_cast<int>(cpus_.size()) < num_threads;
  if (crowded) spin_us_ = 0;  // a spinning worker would keep the one it waits for off the CPU
  if (crowded || !pin) cpus_.clear();
  threads_.reserve(static_cast<size_t>(num_threads - 1));
  try {
    for (int worker = 1; worker < num_threads; ++worker) threads_.emplace_back([this, worker] { worker_loop(worker); });
  } catch (...) {  // the system has no more threads
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stopping_ = true;
  started_.advance();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run_region(Region region, void* context) {
  if (num_threads_ == 1) {
    region(context, 0);
    return;
  }
  region_ = region;
  context_ = context;
  started_.advance();
  std::optional<PinnedScope> pinned;
  if (!cpus_.empty()) pinned.emplace(cpus_[0]);
  region(context, 0);
  barrier();
}

void ThreadPool::barrier() {
  if (num_threads_ == 1) return;
  const uint32_t seen = passed_.current();
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
    arrived_.store(0, std::memory_order_relaxed);
    passed_.advance();
  } else {
    passed_.wait_past(seen, spin_us_);
  }
}

void ThreadPool::worker_loop(int worker) {
  pthread_setname_np(pthread_self(), "corral-worker");
  if (!cpus_.empty()) pin_to(cpus_[static_cast<size_t>(worker)]);
  for (uint32_t seen = 0;; ++seen) {
    started_.wait_past(seen, spin_us_);
    if (stopping_) return;
    region_(context_, worker);
    barrier();
  }
}

StageList::StageList(int64_t num_stages, int num_workers)
    : num_workers_(num_workers),
      counters_(std::make_unique<Counter[]>(static_cast<size_t>(num_stages * (num_workers + 1)))) {}

void StageList::reset(int64_t num_stages) {
  for (int64_t i = 0; i < num_stages * (num_workers_ + 1); ++i) {
    counters_[static_cast<size_t>(i)].value.store(0, std::memory_order_relaxed);
  }
}

void StageList::end_stage(std::atomic<int64_t>& done, int64_t value) {
  done.store(value, std::memory_order_release);
  if (num_workers_ > 1) progress_.advance();
}

void StageList::wait_for(const std::atomic<int64_t>& done, int64_t value) {
  while (done.load(std::memory_order_acquire) != value) {
    const uint32_t seen = progress_.current();
    if (done.load(std::memory_order_acquire) == value) return;
    progress_.wait_past(seen, kSpinUs);
  }
}

}  // namespace corral
