#pragma once

#include <cstdint>

#include "quant/row_block.h"
#include "quant/tile_format.h"

namespace corral {

// Writes one of the 16 columns of a tile that begins as zeros; block.chunks says how long the tile is.
void write_tile_column(const TileFormat& format, int column, const RowBlock& block, uint8_t* tile);

// The inverse; reads block.chunks chunks.
void read_tile_column(const TileFormat& format, int column, const uint8_t* tile, RowBlock& block);

}  // namespace corral
