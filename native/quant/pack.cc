#include "quant/pack.h"

#include <cstring>

#include "quant/row_block.h"
#include "quant/tile_codec.h"

namespace corral {
namespace {

int chunks_at(int64_t k, int64_t cols) { return static_cast<int>((cols - k < kTileK ? cols - k : kTileK) / kChunkK); }

// Position of weight k of a column in a group of a float type: [k][16], and [k / 2][16][2] for bf16.
int64_t float_offset(TensorType type, int64_t k, int64_t column) {
  if (type == TensorType::kF32) return (k * kTileColumns + column) * 4;
  if (type == TensorType::kF16) return (k * kTileColumns + column) * 2;
  return ((k / 2 * kTileColumns + column) * 2 + k % 2) * 2;
}

void pack_float_row(TensorType type, int64_t cols, const uint8_t* src, int64_t column, uint8_t* group) {
  const size_t width = static_cast<size_t>(block_bytes(type));
  for (int64_t k = 0; k < cols; ++k) {
    std::memcpy(group + float_offset(type, k, column), src + k * static_cast<int64_t>(width), width);
  }
}

void pack_quantised_row(TensorType type, int64_t cols, const uint8_t* src, int column, uint8_t* group) {
  const TileFormat format = tile_format(type);
  for (int64_t k = 0; k < cols; k += kTileK) {
    RowBlock block;
    read_row_block(type, src + k / block_size(type) * block_bytes(type), chunks_at(k, cols), block);
    write_tile_column(format, column, block, group);
    group += format.tile_bytes(block.chunks);
  }
}

}  // namespace

int64_t packed_group_bytes(TensorType type, int64_t cols) {
  const int64_t size = block_size(type);
  if (size == 0 || cols <= 0 || cols % size != 0) return 0;
  if (type == TensorType::kF32) return cols * 64;
  if (type == TensorType::kF16 || type == TensorType::kBF16) return (cols + 1) / 2 * 64;
  const TileFormat format = tile_format(type);
  const int tail_chunks = static_cast<int>(cols % kTileK / kChunkK);
  return cols / kTileK * format.tile_bytes(8) + (tail_chunks ? format.tile_bytes(tail_chunks) : 0);
}

size_t packed_bytes(TensorType type, int64_t rows, int64_t cols) {
  const int64_t groups = (rows + kTileColumns - 1) / kTileColumns;
  return static_cast<size_t>(groups * packed_group_bytes(type, cols));
}

void pack_groups(TensorType type, int64_t rows, int64_t cols, const uint8_t* src, uint8_t* dst, int64_t group_begin,
                 int64_t group_end) {
  const int64_t group_bytes = packed_group_bytes(type, cols);
  const int64_t row_bytes = cols / block_size(type) * block_bytes(type);
  const bool is_float = tile_format(type).low_bits == 0;
  for (int64_t g = group_begin; g < group_end; ++g) {
    uint8_t* group = dst + g * group_bytes;
    std::memset(group, 0, static_cast<size_t>(group_bytes));
    for (int64_t column = 0; column < kTileColumns && g * kTileColumns + column < rows; ++column) {
      const uint8_t* row = src + (g * kTileColumns + column) * row_bytes;
      if (is_float) {
        pack_float_row(type, cols, row, column, group);
      } else {
        pack_quantised_row(type, cols, row, static_cast<int>(column), group);
      }
    }
  }
}

void unpack_range(const PackedMatrix& matrix, int64_t row, int64_t begin, int64_t length, float* out) {
  const uint8_t* group = matrix.data + row / kTileColumns * matrix.group_bytes;
  const int column = static_cast<int>(row % kTileColumns);
  const TileFormat format = tile_format(matrix.type);
  if (format.low_bits == 0) {
    for (int64_t k = 0; k < length; ++k) {
      dequantize_row(matrix.type, group + float_offset(matrix.type, begin + k, column), 1, out + k);
    }
    return;
  }
  group += begin / kTileK * format.tile_bytes(8);
  for (int64_t k = begin; k < begin + length; k += kTileK) {
    RowBlock block;
    block.chunks = chunks_at(k, matrix.cols);
    read_tile_column(format, column, group, block);
    row_block_to_floats(format, block, out + k - begin);
    group += format.tile_bytes(block.chunks);
  }
}

void unpack_row(const PackedMatrix& matrix, int64_t row, float* out) { unpack_range(matrix, row, 0, matrix.cols, out); }

}  // namespace corral
