#pragma once

#include <cstdint>

namespace corral {

// Tensor types of GGUF files that Corral computes with; the values are ggml's ids.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
};

// Weights in a block of one row, and the bytes of that block in the file; 0 for an unknown type.
int64_t block_size(TensorType type);
int64_t block_bytes(TensorType type);

}  // namespace corral
