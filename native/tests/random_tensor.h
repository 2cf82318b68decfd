#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "quant/tensor_type.h"

namespace corral::testing {

inline constexpr TensorType kAllTypes[] = {
    TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ4_0,   TensorType::kQ4_1,
    TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ2_K,   TensorType::kQ3_K,
    TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kIQ4_NL, TensorType::kIQ4_XS,
};

const char* type_name(TensorType type);

// splitmix64: a small generator that gives the same numbers everywhere.
struct Random {
  uint64_t state;
  uint64_t next();
  float uniform();  // [-1, 1)
};

enum class Fill {
  kRandom,   // any bit pattern of codes and integer scales; float scales of either sign around 0.01
  kAllOnes,  // every bit of codes and integer scales set; float scales 1
  kAllZero,  // codes and integer scales 0; float scales 1
  kNoScale,  // random codes and integer scales; float scales 0
};

// `rows` rows of a GGUF tensor in file layout.
std::vector<uint8_t> make_tensor(TensorType type, int64_t rows, int64_t cols, Fill fill, uint64_t seed);

// Memory that ends at a page no one may touch, aligned to 64 bytes.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t bytes);
  ~GuardedBuffer();
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  uint8_t* data() const { return data_; }

 private:
  uint8_t* map_ = nullptr;
  size_t map_bytes_ = 0;
  uint8_t* data_ = nullptr;
};

}  // namespace corral::testing
