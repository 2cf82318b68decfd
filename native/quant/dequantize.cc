#include <cstring>

#include "quant/float16.h"
#include "quant/pack.h"
#include "quant/row_block.h"

namespace corral {
namespace {

void dequantize_float(TensorType type, const uint8_t* src, int64_t cols, float* out) {
  if (type == TensorType::kF32) {
    std::memcpy(out, src, static_cast<size_t>(cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < cols; ++i) {
    uint16_t bits;
    std::memcpy(&bits, src + 2 * i, sizeof bits);
    out[i] = type == TensorType::kF16 ? half_to_float(bits) : bfloat_to_float(bits);
  }
}

}  // namespace

void dequantize_row(TensorType type, const uint8_t* src, int64_t cols, float* out) {
  const TileFormat format = tile_format(type);
  if (format.low_bits == 0) return dequantize_float(type, src, cols, out);
  for (int64_t k = 0; k < cols; k += kTileK) {
    const int chunks = static_cast<int>((cols - k < kTileK ? cols - k : kTileK) / kChunkK);
    RowBlock block;
    read_row_block(type, src + k / block_size(type) * block_bytes(type), chunks, block);
    row_block_to_floats(format, block, out + k);
  }
}

}  // namespace corral
