#pragma once

#include <cstdint>

#include "quant/tensor_type.h"
#include "quant/tile_format.h"

namespace corral {

// Up to 256 consecutive weights of one row as integers: the form between GGUF blocks and packed tiles.
struct RowBlock {
  int chunks = 8;          // 32 weights each; fewer than 8 only at the end of a row of a 32-block type
  uint8_t code[kTileK]{};  // unsigned codes, before offset or codebook
  uint16_t d[8]{};         // f16 bits: per chunk, or d[0] for K-quants
  uint16_t m[8]{};         // f16 bits: mins, or m[0] = dmin for K-quants
  int8_t scale[16]{};      // K-quants: integer scale per sub-block
  uint8_t min[16]{};       // K-quants: integer min per sub-block
};

// Reads `chunks` * 32 weights of a quantised type in file layout.
void read_row_block(TensorType type, const uint8_t* src, int chunks, RowBlock& block);

// out[chunks * 32], with the float operations of the GGUF definition in its order.
void row_block_to_floats(const TileFormat& format, const RowBlock& block, float* out);

}  // namespace corral
