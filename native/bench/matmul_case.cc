#include "bench/matmul_case.h"

#include <algorithm>
#include <cstring>

#include "kernels/matmul.h"
#include "tests/random_tensor.h"

namespace corral::bench {
namespace {

constexpr double kSeconds = 0.06;  // of a repetition
constexpr size_t kAlignment = 64;
constexpr int kCallsInCache = 64;  // between two looks at the clock, which take as long as a call of a microsecond

size_t round_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

std::vector<PackedMatrix> fill_with_copies(TensorType type, int64_t rows, int64_t cols, const VirtualMemory& memory) {
  const std::vector<uint8_t> source = testing::make_tensor(type, rows, cols, testing::Fill::kRandom, 1);
  const size_t bytes = round_up(packed_bytes(type, rows, cols));
  std::vector<PackedMatrix> copies;
  for (size_t offset = 0; offset + bytes <= memory.size(); offset += bytes) {
    if (offset == 0) {
      pack_groups(type, rows, cols, source.data(), memory.data(), 0, (rows + kTileColumns - 1) / kTileColumns);
    } else {
      std::memcpy(memory.data() + offset, memory.data(), bytes);
    }
    copies.push_back({type, rows, cols, packed_group_bytes(type, cols), memory.data() + offset});
  }
  return copies;
}

Figure measure_matmul(const std::vector<PackedMatrix>& copies, const VirtualMemory& memory, int64_t m, int threads,
                      int repeats) {
  const PackedMatrix& first = copies.front();
  const MatmulKernels& kernels = matmul_kernels();
  const ActForm form = act_form(first.type);
  std::vector<float> x(static_cast<size_t>(m * first.cols));
  testing::Random random{3};
  for (float& value : x) value = random.uniform();
  const testing::GuardedBuffer scratch(std::max(activation_bytes(form, m, first.cols), kAlignment));
  const Activations act =
      make_activations(form, m, first.cols, form == ActForm::kF32 ? x.data() : static_cast<void*>(scratch.data()));
  kernels.quantize(x.data(), first.cols, act, 0, m);
  const testing::GuardedBuffer out(round_up(static_cast<size_t>(m * first.rows) * sizeof(float)));
  float* y = reinterpret_cast<float*>(out.data());

  const int64_t groups = first.num_groups();
  const int calls = copies.size() == 1 ? kCallsInCache : 1;
  std::vector<size_t> next(static_cast<size_t>(threads));  // the copy of each thread's next round
  return measure(memory.data(), memory.size(), threads, repeats, [&] {
    const auto multiply = [&](int thread, int64_t) {
      size_t& copy = next[static_cast<size_t>(thread)];
      for (int call = 0; call < calls; ++call) {
        const PackedMatrix& w = copies[copy++ % copies.size()];
        kernels.matmul(w, act, y, first.rows, groups * thread / threads, groups * (thread + 1) / threads);
      }
    };
    return calls * rate(threads, kSeconds, multiply) / threads;
  });
}

}  // namespace corral::bench
