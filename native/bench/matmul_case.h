#pragma once

#include <vector>

#include "base/virtual_memory.h"
#include "bench/measure.h"
#include "quant/pack.h"

namespace corral::bench {

// Copies of one random packed matrix, back to back, as many as fit into `memory`.
std::vector<PackedMatrix> fill_with_copies(TensorType type, int64_t rows, int64_t cols, const VirtualMemory& memory);

// One matrix multiplied by m rows of activations of their own, `threads` threads sharing the columns. Rounds are whole
// matrices; each takes the next copy, so that many copies come from memory and one from the caches.
Figure measure_matmul(const std::vector<PackedMatrix>& copies, const VirtualMemory& memory, int64_t m, int threads,
                      int repeats);

}  // namespace corral::bench
