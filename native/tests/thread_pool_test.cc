// The pool: every worker runs, barriers separate, shared work is done once, idle workers sleep.
#include "base/thread_pool.h"

#include <sched.h>
#include <time.h>

#include <atomic>
#include <vector>

#include "base/virtual_memory.h"
#include "tests/check.h"

namespace corral {
namespace {

void test_regions_and_barriers(int num_threads, bool pin) {
  ThreadPool pool(num_threads, pin);
  CHECK(pool.num_threads() == num_threads, "%d", pool.num_threads());
  std::vector<int> written(static_cast<size_t>(num_threads));
  for (int region = 0; region < 200; ++region) {
    pool.run([&](int worker) {
      for (int round = 1; round <= 5; ++round) {
        written[static_cast<size_t>(worker)] = region * 10 + round;
        pool.barrier();
        for (const int value : written) CHECK(value == region * 10 + round, "region %d round %d", region, round);
        pool.barrier();
      }
    });
  }
}

void test_queue_hands_out_each_piece_once(int num_threads) {
  ThreadPool pool(num_threads, false);
  for (const int64_t total : {0, 1, 7, 1001}) {
    std::vector<std::atomic<int>> done(static_cast<size_t>(total));
    WorkQueue queue;
    pool.run([&](int) {
      queue.take(total, 3, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) done[static_cast<size_t>(i)].fetch_add(1);
      });
    });
    for (const auto& count : done) CHECK(count.load() == 1, "%d", count.load());
  }
}

// Each stage adds one to what the stage before left: wrong if a stage begins before the last one has ended.
void test_stages_follow_each_other(int num_threads) {
  ThreadPool pool(num_threads, false);
  constexpr int64_t kStages = 50;
  StageList stages(kStages, num_threads);
  for (const int64_t total : {0, 1, 2, 3, 7, 100, 1001}) {
    for (const int64_t step : {0, 1, 3, 2000}) {
      std::vector<int64_t> values(static_cast<size_t>(total));
      std::vector<int64_t> next(values);
      stages.reset(kStages);
      pool.run([&](int worker) {
        for (int64_t stage = 0; stage < kStages; ++stage) {
          const bool even = stage % 2 == 0;
          stages.run(stage, total, step, worker, [&](int64_t begin, int64_t end) {
            CHECK(begin < end && end <= total, "[%ld, %ld)", static_cast<long>(begin), static_cast<long>(end));
            for (int64_t i = begin; i < end; ++i) {  // from the mirrored place, which another worker wrote
              const std::vector<int64_t>& from = even ? values : next;
              (even ? next : values)[static_cast<size_t>(i)] = from[static_cast<size_t>(total - 1 - i)] + 1;
            }
          });
        }
      });
      for (const int64_t value : values) CHECK(value == kStages, "%ld", static_cast<long>(value));
    }
  }
}

// The tail runs once, after all pieces of its stage and before any of the next, and may use memory without atomics.
void test_tail_ends_a_stage(int num_threads) {
  ThreadPool pool(num_threads, false);
  constexpr int64_t kStages = 40;
  StageList stages(kStages, num_threads);
  for (const int64_t total : {1, 2, 5, 300}) {
    std::vector<int64_t> values(static_cast<size_t>(total));
    std::vector<int64_t> sums;
    stages.reset(kStages);
    pool.run([&](int worker) {
      for (int64_t stage = 0; stage < kStages; ++stage) {
        const auto body = [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            values[static_cast<size_t>(i)] += static_cast<int64_t>(sums.size()) == stage ? 1 : 1000;
          }
        };
        stages.run(stage, total, 16, worker, body, [&] {
          int64_t sum = 0;
          for (const int64_t value : values) sum += value;
          sums.push_back(sum);
        });
      }
    });
    CHECK(static_cast<int64_t>(sums.size()) == kStages, "%zu tails", sums.size());
    for (int64_t stage = 0; stage < kStages; ++stage) {
      CHECK(sums[static_cast<size_t>(stage)] == total * (stage + 1), "stage %ld", static_cast<long>(stage));
    }
  }
}

// A worker that comes late does not hold the others up: worker 0 does all stages while the others wait for it.
void test_a_late_worker_holds_nobody_up() {
  ThreadPool pool(3, false);
  StageList stages(20, 3);
  EventCount first_is_through;
  std::atomic<int> done{0};
  pool.run([&](int worker) {
    if (worker != 0) first_is_through.wait_past(0, 0);
    for (int64_t stage = 0; stage < 20; ++stage) {
      stages.run(stage, 30, 4, worker, [&](int64_t begin, int64_t end) {
        CHECK(worker == 0, "worker %d found work", worker);
        done.fetch_add(static_cast<int>(end - begin));
      });
    }
    if (worker == 0) first_is_through.advance();
  });
  CHECK(done.load() == 600, "%d", done.load());
}

double process_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// The workers end their spin after a bounded CPU time: a second of wall time costs them next to nothing.
void test_idle_workers_sleep() {
  ThreadPool pool(4, false);
  pool.run([](int) {});
  const double before = process_cpu_seconds();
  const timespec one_second{1, 0};
  nanosleep(&one_second, nullptr);
  const double used = process_cpu_seconds() - before;
  CHECK(used < 0.05, "idle workers took %g s", used);
}

void test_the_caller_keeps_its_cpus() {
  cpu_set_t before, after;
  CHECK(sched_getaffinity(0, sizeof(before), &before) == 0, "affinity");
  ThreadPool pool(2, true);
  pool.run([](int) {});
  CHECK(sched_getaffinity(0, sizeof(after), &after) == 0, "affinity");
  CHECK(CPU_EQUAL(&before, &after), "the mask changed");
}

void test_virtual_memory() {
  VirtualMemory memory(size_t{8} << 20);
  CHECK(reinterpret_cast<uintptr_t>(memory.data()) % (size_t{2} << 20) == 0, "alignment");
  CHECK(memory.resident_bytes() == 0, "%zu", memory.resident_bytes());
  memory.data()[0] = 1;
  memory.data()[memory.size() - 1] = 2;
  CHECK(memory.resident_bytes() > 0, "%zu", memory.resident_bytes());
  memory.release(1, memory.size() - 1);  // the first page holds a byte that is kept
  CHECK(memory.data()[0] == 1 && memory.data()[memory.size() - 1] == 0, "release");
  const VirtualMemory moved = std::move(memory);
  CHECK(moved.data()[0] == 1 && memory.data() == nullptr && memory.size() == 0, "move");
  CHECK(VirtualMemory(0).data() == nullptr, "empty");
}

}  // namespace
}  // namespace corral

int main() {
  using namespace corral;
  for (const int num_threads : {1, 2, 3, 5}) {
    test_regions_and_barriers(num_threads, false);
    test_regions_and_barriers(num_threads, true);
    test_queue_hands_out_each_piece_once(num_threads);
    test_stages_follow_each_other(num_threads);
    test_tail_ends_a_stage(num_threads);
  }
  test_a_late_worker_holds_nobody_up();
  test_idle_workers_sleep();
  test_the_caller_keeps_its_cpus();
  test_virtual_memory();
  return 0;
}
