#include "bench/measure.h"

#include <time.h>

#include <algorithm>
#include <map>
#include <thread>

#include "bench/machine_peak.h"

namespace corral::bench {
namespace {

constexpr double kPeakSeconds = 0.02;
constexpr double kReadSeconds = 0.05;
constexpr double kLeastPeak = 0.9;  // of the best peak seen, beside a repetition that counts
constexpr int kAttempts = 4;        // per repetition that is asked for

// CPU time of the calling thread: other jobs on the machine distort it less than the clock on the wall.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Repeat {
  double rate;
  double peak;
  double read;
};

Figure summary(const std::vector<Repeat>& repeats, int rejected) {
  std::vector<double> rates, peaks, reads;
  for (const Repeat& repeat : repeats) {
    rates.push_back(repeat.rate);
    peaks.push_back(repeat.peak);
    reads.push_back(repeat.read);
  }
  const auto [lowest, highest] = std::minmax_element(rates.begin(), rates.end());
  return {.rate = median(rates),
          .lowest = *lowest,
          .highest = *highest,
          .peak = median(peaks),
          .read = median(reads),
          .repeats = static_cast<int>(repeats.size()),
          .rejected = rejected};
}

}  // namespace

double rate(int threads, double seconds, const std::function<void(int, int64_t)>& work) {
  std::vector<double> rates(static_cast<size_t>(threads));
  const auto loop = [&](int thread) {
    work(thread, 0);
    const double begin = thread_seconds();
    double used = 0;
    int64_t rounds = 0;
    while (used < seconds) {
      work(thread, ++rounds);
      used = thread_seconds() - begin;
    }
    rates[static_cast<size_t>(thread)] = static_cast<double>(rounds) / used;
  };
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(loop, t);
  loop(0);
  for (std::thread& other : others) other.join();
  double sum = 0;
  for (const double r : rates) sum += r;
  return sum;
}

double int8_peak(int threads) {
  const double ops = int8_burst_ops();
  return ops == 0.0 ? 0.0 : ops * rate(threads, kPeakSeconds, [](int, int64_t) { int8_burst(); });
}

double read_bandwidth(const uint8_t* memory, size_t bytes, int threads) {
  const size_t slice = size_t{16} << 20, share = bytes / static_cast<size_t>(threads);
  volatile uint64_t sink = 0;
  return static_cast<double>(slice) * rate(threads, kReadSeconds, [&](int thread, int64_t round) {
           const size_t offset = static_cast<size_t>(round) * slice % (share - slice);
           sink = read_all(memory + (share * static_cast<size_t>(thread) + offset) / 256 * 256, slice);
         });
}

Figure measure(const uint8_t* memory, size_t bytes, int threads, int repeats, const std::function<double()>& once) {
  static std::map<int, double> best_peaks;  // by number of threads
  double& best = best_peaks[threads];
  std::vector<Repeat> counted, all;
  double before = int8_peak(threads);
  for (int attempt = 0; attempt < kAttempts * repeats && static_cast<int>(counted.size()) < repeats; ++attempt) {
    const double read = read_bandwidth(memory, bytes, threads), value = once(), after = int8_peak(threads);
    best = std::max({best, before, after});
    all.push_back({value, (before + after) / 2, read});
    if (std::min(before, after) >= kLeastPeak * best) counted.push_back(all.back());
    before = after;
  }
  const int rejected = static_cast<int>(all.size() - counted.size());
  return summary(counted.empty() ? all : counted, rejected);
}

}  // namespace corral::bench
