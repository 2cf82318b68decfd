#include "quant/tensor_type.h"

namespace corral {
namespace {

struct BlockShape {
  int64_t size = 0;   // weights
  int64_t bytes = 0;  // in the file
};

BlockShape block_shape(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return {1, 4};
    case TensorType::kF16:
      return {1, 2};
    case TensorType::kBF16:
      return {1, 2};
    case TensorType::kQ4_0:
      return {32, 18};
    case TensorType::kQ4_1:
      return {32, 20};
    case TensorType::kQ5_0:
      return {32, 22};
    case TensorType::kQ5_1:
      return {32, 24};
    case TensorType::kQ8_0:
      return {32, 34};
    case TensorType::kIQ4_NL:
      return {32, 18};
    case TensorType::kQ2_K:
      return {256, 84};
    case TensorType::kQ3_K:
      return {256, 110};
    case TensorType::kQ4_K:
      return {256, 144};
    case TensorType::kQ5_K:
      return {256, 176};
    case TensorType::kQ6_K:
      return {256, 210};
    case TensorType::kIQ4_XS:
      return {256, 136};
  }
  return {};
}

}  // namespace

int64_t block_size(TensorType type) { return block_shape(type).size; }

int64_t block_bytes(TensorType type) { return block_shape(type).bytes; }

}  // namespace corral
