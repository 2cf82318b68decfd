#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/tensor_type.h"

namespace corral {

// Columns (= outputs, rows of the GGUF tensor) that share one interleaved tile.
inline constexpr int64_t kTileColumns = 16;

inline constexpr size_t kPackedAlignment = 64;  // of PackedMatrix::data

// A weight matrix [rows = outputs, cols = K] packed into 16-column interleaved tiles, order [row group][k block].
// `data` is aligned to kPackedAlignment; rows are padded to a multiple of 16 with zero scales.
struct PackedMatrix {
  TensorType type{};
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group_bytes = 0;  // bytes of one group of 16 rows: group g begins at data + g * group_bytes
  const uint8_t* data = nullptr;

  int64_t num_groups() const { return (rows + kTileColumns - 1) / kTileColumns; }
};

// Bytes that a packed matrix of this type and shape takes; 0 if cols is no multiple of the type's block.
size_t packed_bytes(TensorType type, int64_t rows, int64_t cols);

// Bytes of one group of 16 rows.
int64_t packed_group_bytes(TensorType type, int64_t cols);

// Packs row groups [group_begin, group_end) of a GGUF tensor `src` ([rows][row bytes], unaligned) into `dst`.
// Disjoint ranges may run on different threads.
void pack_groups(TensorType type, int64_t rows, int64_t cols, const uint8_t* src, uint8_t* dst, int64_t group_begin,
                 int64_t group_end);

// Writes row `row` of a packed matrix as floats: out[cols]. Equal, bit for bit, to dequantising the GGUF row.
void unpack_row(const PackedMatrix& matrix, int64_t row, float* out);

// The same for weights [begin, begin + length) of the row; begin is a multiple of 256, and so is length unless the
// range ends with the row.
void unpack_range(const PackedMatrix& matrix, int64_t row, int64_t begin, int64_t length, float* out);

// Dequantises a GGUF row in file layout (the scalar oracle of every unpacker): out[cols].
void dequantize_row(TensorType type, const uint8_t* src, int64_t cols, float* out);

}  // namespace corral
