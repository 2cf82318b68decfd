// Matmul kernels per type, batch size and thread count, beside the read bandwidth and the vpdpbusd peak measured just
// before and after. Weights are cycled through enough copies that they come from memory.
//   matmul_bench [type|all] [rows] [cols] [isa]
//   matmul_bench peaks       read bandwidth and int8 peak alone, for 1 and 2 threads
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/cpu_features.h"
#include "bench/machine_peak.h"
#include "kernels/matmul.h"
#include "tests/random_tensor.h"

namespace corral::bench {
namespace {

using testing::GuardedBuffer;

constexpr size_t kFootprint = size_t{400} << 20;  // bytes of weights in the cycle
constexpr double kSeconds = 0.25;                 // of each measurement

// CPU time of the calling thread: other jobs on the machine distort it less than the clock on the wall.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Calls work(thread, round) on `threads` threads until the time is over; returns rounds of all threads per second.
double rate(int threads, const std::function<void(int, int64_t)>& work) {
  std::vector<double> rates(static_cast<size_t>(threads));
  const auto loop = [&](int thread) {
    work(thread, 0);
    const double begin = thread_seconds();
    double seconds = 0;
    int64_t rounds = 0;
    while (seconds < kSeconds) {
      work(thread, ++rounds);
      seconds = thread_seconds() - begin;
    }
    rates[static_cast<size_t>(thread)] = static_cast<double>(rounds) / seconds;
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(loop, t);
  loop(0);
  for (std::thread& other : others) other.join();
  double sum = 0;
  for (const double r : rates) sum += r;
  return sum;
}

double read_bandwidth(const GuardedBuffer& memory, int threads) {
  const size_t slice = size_t{32} << 20, share = kFootprint / static_cast<size_t>(threads);
  volatile uint64_t sink = 0;
  return static_cast<double>(slice) * rate(threads, [&](int thread, int64_t round) {
           const size_t offset = static_cast<size_t>(round) * slice % (share - slice);
           sink = read_all(memory.data() + share * static_cast<size_t>(thread) + offset / 256 * 256, slice);
         });
}

double int8_peak(int threads) {
  return int8_burst_ops() * rate(threads, [](int, int64_t) { int8_burst(); });
}

// Copies of one random matrix, back to back.
struct Weights {
  Weights(TensorType type, int64_t rows, int64_t cols, const GuardedBuffer& memory) {
    const std::vector<uint8_t> source = testing::make_tensor(type, rows, cols, testing::Fill::kRandom, 1);
    const size_t bytes = packed_bytes(type, rows, cols);
    for (size_t offset = 0; offset + bytes <= kFootprint; offset += bytes) {
      if (offset == 0) {
        pack_groups(type, rows, cols, source.data(), memory.data(), 0, (rows + kTileColumns - 1) / kTileColumns);
      } else {
        std::memcpy(memory.data() + offset, memory.data(), bytes);
      }
      copies.push_back({type, rows, cols, packed_group_bytes(type, cols), memory.data() + offset});
    }
  }
  std::vector<PackedMatrix> copies;
};

void run_case(const Weights& weights, const GuardedBuffer& memory, int64_t m, int threads) {
  const PackedMatrix& first = weights.copies.front();
  const MatmulKernels& kernels = matmul_kernels();
  const ActForm form = act_form(first.type);
  std::vector<float> x(static_cast<size_t>(m * first.cols));
  testing::Random random{3};
  for (float& value : x) value = random.uniform();
  const GuardedBuffer scratch(std::max<size_t>(activation_bytes(form, m, first.cols), 64));
  const Activations act =
      make_activations(form, m, first.cols, form == ActForm::kF32 ? x.data() : static_cast<void*>(scratch.data()));
  kernels.quantize(x.data(), first.cols, act, 0, m);
  std::vector<float> y(static_cast<size_t>(m * first.rows));

  const double peak_before = int8_peak(threads), read_before = read_bandwidth(memory, threads);
  const int64_t groups = first.num_groups();
  const double matrices =
      rate(threads,
           [&](int thread, int64_t round) {
             const PackedMatrix& w = weights.copies[static_cast<size_t>(round) % weights.copies.size()];
             kernels.matmul(w, act, y.data(), first.rows, groups * thread / threads, groups * (thread + 1) / threads);
           }) /
      threads;
  const double peak = (peak_before + int8_peak(threads)) / 2,
               read = (read_before + read_bandwidth(memory, threads)) / 2;

  const double bytes = static_cast<double>(packed_bytes(first.type, first.rows, first.cols));
  const double ops = 2.0 * static_cast<double>(m * first.rows * first.cols);
  std::printf("%-7s %-7s M=%-4lld threads=%d  %7.2f GB/s (%4.2f of read %6.2f)  %8.1f GOPS (%5.3f of peak %7.1f)\n",
              kernels.name, testing::type_name(first.type), static_cast<long long>(m), threads, matrices * bytes * 1e-9,
              matrices * bytes / read, read * 1e-9, matrices * ops * 1e-9, peak > 0 ? matrices * ops / peak : 0.0,
              peak * 1e-9);
  std::fflush(stdout);
}

bool choose_isa(const char* name) {
  for (const Isa isa : available_isas()) {
    if (isa_name(isa) == name) return select_isa(isa);
  }
  std::fprintf(stderr, "matmul_bench: ISA '%s' is not available here\n", name);
  return false;
}

int print_peaks() {
  const GuardedBuffer memory(kFootprint);
  std::memset(memory.data(), 1, kFootprint);  // pages of zeros that nobody wrote are all the same page
  for (int threads = 1; threads <= std::min(2, usable_cpus()); ++threads) {
    std::printf("threads=%d  read %.2f GB/s  int8 %.1f GOPS\n", threads, read_bandwidth(memory, threads) * 1e-9,
                int8_peak(threads) * 1e-9);
    std::fflush(stdout);
  }
  return 0;
}

int run(int argc, char** argv) {
  const std::string type_name = argc > 1 ? argv[1] : "all";
  if (type_name == "peaks") return print_peaks();
  const int64_t rows = argc > 2 ? std::atoll(argv[2]) : 8960, cols = argc > 3 ? std::atoll(argv[3]) : 1536;
  if (argc > 4 && !choose_isa(argv[4])) return 2;
  const GuardedBuffer memory(kFootprint);
  bool found = false;
  for (const TensorType type : testing::kAllTypes) {
    if (type_name != "all" && type_name != testing::type_name(type)) continue;
    found = true;
    const size_t bytes = packed_bytes(type, rows, cols);
    if (bytes == 0 || bytes > kFootprint) {
      std::fprintf(stderr, "matmul_bench: %s cannot be %lld x %lld here\n", testing::type_name(type),
                   static_cast<long long>(rows), static_cast<long long>(cols));
      return 2;
    }
    const Weights weights(type, rows, cols, memory);
    const int max_threads = std::min(2, usable_cpus());
    for (int threads = 1; threads <= max_threads; ++threads) {
      for (const int64_t m : {1, 2, 4, 8, 16, 32, 128, 512}) run_case(weights, memory, m, threads);
    }
  }
  if (!found) std::fprintf(stderr, "matmul_bench: unknown type '%s'\n", type_name.c_str());
  return found ? 0 : 2;
}

}  // namespace
}  // namespace corral::bench

int main(int argc, char** argv) { return corral::bench::run(argc, argv); }
