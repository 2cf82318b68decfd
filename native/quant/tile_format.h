#pragma once

#include <cstdint>

#include "quant/tensor_type.h"

// The packed form of the quantised types: what pack.cc writes and every kernel reads.
//
// A tile holds 16 columns x up to 256 k, header first, then one chunk of planes per 32 k.
//   header, 32-block types: per chunk d f16[16], and m f16[16] if the type has mins; padded to 64 bytes.
//   header, K-quants:       d f16[16] | dmin f16[16] (zeros without mins) | integer scales:
//       sub-blocks of 32, mins (Q4_K, Q5_K): scale u8[8][16], min u8[4][16][2]
//       sub-blocks of 16, mins (Q2_K):       (scale | min << 4) u8[8][16][2]
//       no mins (Q3_K, Q6_K, IQ4_XS):        scale i8[256 / sub_size][16]
//   chunk: the plane of high bits, then the plane of low bits. Vectors are [16 columns][4 k]; the 8 k-quads of a
//       chunk share them: 8 bits: vector b; 4 bits: vector b % 4, shift 4 * (b / 4); 2 bits: vector b / 4,
//       shift 2 * (b % 4); 1 bit: shift b.
namespace corral {

// Names the layout of packed matrices, of float types too, in files that outlive the process. Whoever changes a byte of
// what pack_groups writes raises it: files of another layout are then packed anew.
inline constexpr int kPackedLayout = 1;

inline constexpr int kTileK = 256;
inline constexpr int kChunkK = 32;
inline constexpr int kTileHeaderD = 64;  // d and dmin of a K-quant tile

struct TileFormat {
  int low_bits = 0;       // 2, 4 or 8
  int high_bits = 0;      // 0, 1 or 2
  int sub_size = 0;       // weights that share a scale: 16 or 32
  bool k_quant = false;   // integer scales under one f16 scale per 256; else one f16 scale per 32
  bool has_min = false;   // value = d * code + m (32-blocks), d * code - m (K-quants)
  bool codebook = false;  // value = d * kCodebook[code]
  int offset = 0;         // value = d * (code - offset)

  constexpr int chunk_bytes() const { return 64 * (low_bits + high_bits); }

  constexpr int header_bytes(int chunks) const {
    if (k_quant) return kTileHeaderD + (sub_size == 16 || has_min ? 256 : 128);
    return (chunks * (has_min ? 64 : 32) + 63) / 64 * 64;
  }

  constexpr int tile_bytes(int chunks) const { return header_bytes(chunks) + chunks * chunk_bytes(); }
};

// low_bits == 0 for the float types.
constexpr TileFormat tile_format(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return {4, 0, 32, false, false, false, 8};
    case TensorType::kQ4_1:
      return {4, 0, 32, false, true, false, 0};
    case TensorType::kQ5_0:
      return {4, 1, 32, false, false, false, 16};
    case TensorType::kQ5_1:
      return {4, 1, 32, false, true, false, 0};
    case TensorType::kQ8_0:
      return {8, 0, 32, false, false, false, 128};
    case TensorType::kIQ4_NL:
      return {4, 0, 32, false, false, true, 0};
    case TensorType::kQ2_K:
      return {2, 0, 16, true, true, false, 0};
    case TensorType::kQ3_K:
      return {2, 1, 16, true, false, false, 4};
    case TensorType::kQ4_K:
      return {4, 0, 32, true, true, false, 0};
    case TensorType::kQ5_K:
      return {4, 1, 32, true, true, false, 0};
    case TensorType::kQ6_K:
      return {4, 2, 16, true, false, false, 32};
    case TensorType::kIQ4_XS:
      return {4, 0, 32, true, false, true, 0};
    case TensorType::kF32:
    case TensorType::kF16:
    case TensorType::kBF16:
      break;
  }
  return {};
}

// The non-linear 4-bit values of IQ4_NL and IQ4_XS.
inline constexpr int8_t kCodebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

}  // namespace corral
