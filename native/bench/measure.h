#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

// How the micro-benchmarks measure: CPU time of each thread, medians of short repetitions, and beside each of them what
// the machine can do at that moment. Repetitions in which the machine could do less are taken again.
namespace corral::bench {

// Calls work(thread, round) on `threads` threads until each has used `seconds` of CPU time; returns the rounds per
// second of all threads together.
double rate(int threads, double seconds, const std::function<void(int, int64_t)>& work);

// Operations per second (2 per multiply-add) of vpdpbusd on registers; 0 on a CPU without it.
double int8_peak(int threads);

// Bytes per second of reading `memory` (64-byte aligned).
double read_bandwidth(const uint8_t* memory, size_t bytes, int threads);

struct Figure {
  double rate = 0;  // rounds per second: the median, and the lowest and highest that count
  double lowest = 0;
  double highest = 0;
  double peak = 0;  // medians of what was measured beside them
  double read = 0;
  int repeats = 0;   // that count
  int rejected = 0;  // the int8 peak beside them had fallen below 0.9 of the best seen
};

// `repeats` repetitions of `once`, which returns rounds per second of all threads.
Figure measure(const uint8_t* memory, size_t bytes, int threads, int repeats, const std::function<double()>& once);

}  // namespace corral::bench
