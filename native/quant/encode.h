#pragma once

#include <cstdint>

#include "quant/tensor_type.h"

namespace corral {

// Whether encode_row knows the type: Q4_0, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K.
bool can_encode(TensorType type);

// Quantises `cols` finite weights of one row, a multiple of block_size(type), into GGUF blocks:
// cols / block_size(type) * block_bytes(type) bytes.
void encode_row(TensorType type, const float* row, int64_t cols, uint8_t* out);

}  // namespace corral
