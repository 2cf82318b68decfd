#include "quant/tile_codec.h"

#include <cstring>

namespace corral {
namespace {

// Four codes are handled as the bytes of one word.
uint32_t load_quad(const uint8_t* p) {
  uint32_t quad;
  std::memcpy(&quad, p, sizeof quad);
  return quad;
}

void store_quad(uint8_t* p, uint32_t quad) { std::memcpy(p, &quad, sizeof quad); }

uint32_t low_mask(int bits) { return 0x01010101u * ((1u << bits) - 1); }

// Vector and shift of k-quad b in a plane of `bits` (see tile_format.h).
int plane_vector(int bits, int b) { return bits == 8 ? b : bits == 4 ? b % 4 : bits == 2 ? b / 4 : 0; }
int plane_shift(int bits, int b) { return bits == 8 ? 0 : bits == 4 ? b / 4 * 4 : bits == 2 ? b % 4 * 2 : b; }

// Merges the 32 codes of a column, shifted right by `drop`, into a plane that begins as zeros.
void write_plane(uint8_t* plane, int bits, int column, const uint8_t* code, int drop) {
  for (int b = 0; b < 8; ++b) {
    uint8_t* p = plane + plane_vector(bits, b) * 64 + column * 4;
    const uint32_t quad = (load_quad(code + 4 * b) >> drop) & low_mask(bits);
    store_quad(p, load_quad(p) | (quad << plane_shift(bits, b)));
  }
}

void read_plane(const uint8_t* plane, int bits, int column, uint8_t* code, int drop) {
  for (int b = 0; b < 8; ++b) {
    const uint8_t* p = plane + plane_vector(bits, b) * 64 + column * 4;
    const uint32_t quad = (load_quad(p) >> plane_shift(bits, b)) & low_mask(bits);
    store_quad(code + 4 * b, load_quad(code + 4 * b) | (quad << drop));
  }
}

// Where the integer scale and min of sub-block s and a column lie in a K-quant tile.
int scale_offset(const TileFormat& format, int s, int column) {
  const bool paired = format.has_min && format.sub_size == 16;
  return kTileHeaderD + (paired ? s / 2 * 32 + column * 2 + s % 2 : s * 16 + column);
}
int min_offset(int s, int column) { return kTileHeaderD + 128 + s / 2 * 32 + column * 2 + s % 2; }

void write_header(const TileFormat& format, int column, const RowBlock& block, uint8_t* tile) {
  if (!format.k_quant) {
    const int stride = format.has_min ? 64 : 32;
    for (int c = 0; c < block.chunks; ++c) {
      std::memcpy(tile + c * stride + column * 2, &block.d[c], 2);
      if (format.has_min) std::memcpy(tile + c * stride + 32 + column * 2, &block.m[c], 2);
    }
    return;
  }
  std::memcpy(tile + column * 2, &block.d[0], 2);
  std::memcpy(tile + 32 + column * 2, &block.m[0], 2);
  for (int s = 0; s < kTileK / format.sub_size; ++s) {
    uint8_t& scale = tile[scale_offset(format, s, column)];
    scale = static_cast<uint8_t>(block.scale[s]);
    if (!format.has_min) continue;
    if (format.sub_size == 16) {
      scale = static_cast<uint8_t>(scale | (block.min[s] << 4));
    } else {
      tile[min_offset(s, column)] = block.min[s];
    }
  }
}

void read_header(const TileFormat& format, int column, const uint8_t* tile, RowBlock& block) {
  if (!format.k_quant) {
    const int stride = format.has_min ? 64 : 32;
    for (int c = 0; c < block.chunks; ++c) {
      std::memcpy(&block.d[c], tile + c * stride + column * 2, 2);
      if (format.has_min) std::memcpy(&block.m[c], tile + c * stride + 32 + column * 2, 2);
    }
    return;
  }
  std::memcpy(&block.d[0], tile + column * 2, 2);
  std::memcpy(&block.m[0], tile + 32 + column * 2, 2);
  for (int s = 0; s < kTileK / format.sub_size; ++s) {
    const uint8_t scale = tile[scale_offset(format, s, column)];
    const bool paired = format.has_min && format.sub_size == 16;
    block.scale[s] = static_cast<int8_t>(paired ? scale & 0xF : scale);
    if (format.has_min) block.min[s] = paired ? scale >> 4 : tile[min_offset(s, column)];
  }
}

}  // namespace

void write_tile_column(const TileFormat& format, int column, const RowBlock& block, uint8_t* tile) {
  write_header(format, column, block, tile);
  uint8_t* chunk = tile + format.header_bytes(block.chunks);
  for (int c = 0; c < block.chunks; ++c, chunk += format.chunk_bytes()) {
    const uint8_t* code = block.code + c * kChunkK;
    if (format.high_bits) write_plane(chunk, format.high_bits, column, code, format.low_bits);
    write_plane(chunk + 64 * format.high_bits, format.low_bits, column, code, 0);
  }
}

void read_tile_column(const TileFormat& format, int column, const uint8_t* tile, RowBlock& block) {
  read_header(format, column, tile, block);
  const uint8_t* chunk = tile + format.header_bytes(block.chunks);
  for (int c = 0; c < block.chunks; ++c, chunk += format.chunk_bytes()) {
    uint8_t* code = block.code + c * kChunkK;
    if (format.high_bits) read_plane(chunk, format.high_bits, column, code, format.low_bits);
    read_plane(chunk + 64 * format.high_bits, format.low_bits, column, code, 0);
  }
}

}  // namespace corral
