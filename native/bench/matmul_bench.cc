// Matmul kernels per type, batch size and thread count, beside the read bandwidth and the vpdpbusd peak measured around
// each repetition. Weights are cycled through enough copies that they come from memory.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "bench/matmul_case.h"
#include "kernels/matmul.h"
#include "tests/random_tensor.h"

namespace corral::bench {
namespace {

constexpr const char* kUsage =
    "matmul_bench [type|all] [rows] [cols] [isa] [--m=1,2,8] [--threads=1,2] [--repeats=5] [--l1] [--json]\n"
    "  --m, --threads  lists; without them 1,2,4,8,16,32,128,512 rows, and 1 and 2 threads\n"
    "  --repeats       repetitions of each case; the median counts\n"
    "  --l1            add the kernel with operands in the first cache, on one thread\n"
    "  --json          one JSON object a line\n"
    "matmul_bench peaks  read bandwidth and int8 peak alone, for 1 and 2 threads\n";

constexpr size_t kFootprint = size_t{512} << 20;  // bytes of weights in the cycle
constexpr int64_t kInL1Cols = 512, kInL1Rows = 24;
constexpr int64_t kInL1FloatCols = 256, kInL1FloatRows = 12;

struct Options {
  std::string type = "all";
  int64_t rows = 8960;
  int64_t cols = 1536;
  std::string isa;
  std::vector<int64_t> m = {1, 2, 4, 8, 16, 32, 128, 512};
  std::vector<int64_t> threads;
  int repeats = 5;
  bool in_l1 = false;
  bool json = false;
};

// "1,2,8"; empty if anything is not a positive number.
std::vector<int64_t> parse_list(const std::string& text) {
  std::vector<int64_t> values;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    values.push_back(std::atoll(text.substr(begin, end - begin).c_str()));
    if (values.back() <= 0) return {};
    begin = end + 1;
  }
  return values;
}

bool parse_option(const std::string& argument, Options& options) {
  const size_t equals = std::min(argument.find('='), argument.size());
  const std::string name = argument.substr(0, equals);
  const std::string value = equals < argument.size() ? argument.substr(equals + 1) : "";
  if (name == "--json") return options.json = true;
  if (name == "--l1") return options.in_l1 = true;
  const std::vector<int64_t> list = parse_list(value);
  if (list.empty()) return false;
  if (name == "--m") options.m = list;
  if (name == "--threads") options.threads = list;
  if (name == "--repeats") options.repeats = static_cast<int>(list.front());
  return name == "--m" || name == "--threads" || name == "--repeats";
}

bool parse(int argc, char** argv, Options& options) {
  int position = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("--")) {
      if (!parse_option(argument, options)) return false;
      continue;
    }
    const int64_t number = std::atoll(argv[i]);
    if ((position == 1 || position == 2) && number <= 0) return false;
    if (position == 0) options.type = argument;
    if (position == 1) options.rows = number;
    if (position == 2) options.cols = number;
    if (position == 3) options.isa = argument;
    if (++position > 4) return false;
  }
  for (int64_t t = 1; options.threads.empty() && t <= std::min(2, usable_cpus()); ++t) options.threads.push_back(t);
  return true;
}

bool choose_isa(const std::string& name) {
  for (const Isa isa : available_isas()) {
    if (isa_name(isa) == name) return select_isa(isa);
  }
  std::fprintf(stderr, "matmul_bench: ISA '%s' is not available here\n", name.c_str());
  return false;
}

void print(const PackedMatrix& w, int64_t m, int64_t threads, bool in_l1, bool json, const Figure& figure) {
  const double bytes = static_cast<double>(packed_bytes(w.type, w.rows, w.cols)) * figure.rate;
  const double ops = 2.0 * static_cast<double>(m * w.rows * w.cols) * figure.rate;
  const double spread = (figure.highest - figure.lowest) / figure.rate;
  const double of_peak = figure.peak > 0 ? ops / figure.peak : 0.0;
  const long long rows = static_cast<long long>(m), threads_used = static_cast<long long>(threads);
  if (json) {
    std::printf(
        "{\"isa\": \"%s\", \"type\": \"%s\", \"rows\": %lld, \"cols\": %lld, \"m\": %lld, \"threads\": %lld, "
        "\"in_l1\": %s, "
        "\"gb_s\": %.3f, \"read_gb_s\": %.3f, \"gops\": %.2f, \"peak_gops\": %.2f, \"spread\": %.3f, \"repeats\": %d, "
        "\"rejected\": %d}\n",
        matmul_kernels().name, testing::type_name(w.type), static_cast<long long>(w.rows),
        static_cast<long long>(w.cols), rows, threads_used, in_l1 ? "true" : "false", bytes * 1e-9, figure.read * 1e-9,
        ops * 1e-9, figure.peak * 1e-9, spread, figure.repeats, figure.rejected);
  } else {
    std::printf(
        "%-7s %-7s M=%-4lld threads=%lld%s  %7.2f GB/s (%4.2f of read %6.2f)  %8.1f GOPS (%5.3f of peak %7.1f)  "
        "spread %.2f, rejected %d\n",
        matmul_kernels().name, testing::type_name(w.type), rows, threads_used, in_l1 ? " L1" : "", bytes * 1e-9,
        bytes / figure.read, figure.read * 1e-9, ops * 1e-9, of_peak, figure.peak * 1e-9, spread, figure.rejected);
  }
  std::fflush(stdout);
}

bool run_type(TensorType type, const Options& options, const VirtualMemory& memory) {
  const size_t bytes = packed_bytes(type, options.rows, options.cols);
  if (bytes == 0 || bytes > kFootprint) {
    std::fprintf(stderr, "matmul_bench: %s cannot be %lld x %lld here\n", testing::type_name(type),
                 static_cast<long long>(options.rows), static_cast<long long>(options.cols));
    return false;
  }
  if (options.in_l1) {
    const bool floats = act_form(type) == ActForm::kF32;
    std::vector<PackedMatrix> copies =
        fill_with_copies(type, kTileColumns, floats ? kInL1FloatCols : kInL1Cols, memory);
    copies.resize(1);
    const int64_t m = floats ? kInL1FloatRows : kInL1Rows;
    print(copies.front(), m, 1, true, options.json, measure_matmul(copies, memory, m, 1, options.repeats));
  }
  const std::vector<PackedMatrix> copies = fill_with_copies(type, options.rows, options.cols, memory);
  for (const int64_t threads : options.threads) {
    for (const int64_t m : options.m) {
      const Figure figure = measure_matmul(copies, memory, m, static_cast<int>(threads), options.repeats);
      print(copies.front(), m, threads, false, options.json, figure);
    }
  }
  return true;
}

// Medians of a second or so for each number of threads.
int print_peaks() {
  constexpr int kRepeats = 9;
  const VirtualMemory memory(kFootprint);
  memory.advise_huge_pages(true);
  std::memset(memory.data(), 1, kFootprint);  // pages of zeros that nobody wrote are all the same page
  for (int threads = 1; threads <= std::min(2, usable_cpus()); ++threads) {
    const Figure figure = measure(memory.data(), kFootprint, threads, kRepeats, [] { return 1.0; });
    std::printf("threads=%d  read %.2f GB/s  int8 %.1f GOPS\n", threads, figure.read * 1e-9, figure.peak * 1e-9);
    std::fflush(stdout);
  }
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fprintf(stderr, "%s", kUsage);
    return 2;
  }
  if (options.type == "peaks") return print_peaks();
  if (!options.isa.empty() && !choose_isa(options.isa)) return 2;
  const VirtualMemory memory(kFootprint);
  memory.advise_huge_pages(true);  // as packed files are mapped
  bool found = false;
  for (const TensorType type : testing::kAllTypes) {
    if (options.type != "all" && options.type != testing::type_name(type)) continue;
    found = true;
    if (!run_type(type, options, memory)) return 2;
  }
  if (!found) std::fprintf(stderr, "matmul_bench: unknown type '%s'\n", options.type.c_str());
  return found ? 0 : 2;
}

}  // namespace
}  // namespace corral::bench

int main(int argc, char** argv) { return corral::bench::run(argc, argv); }
