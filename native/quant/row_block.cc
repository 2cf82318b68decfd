#include "quant/row_block.h"

#include <cstring>

#include "quant/float16.h"

namespace corral {
namespace {

uint16_t load_u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | (p[1] << 8)); }

uint32_t load_u32(const uint8_t* p) { return load_u16(p) | (static_cast<uint32_t>(load_u16(p + 2)) << 16); }

// 16 bytes: the low nibbles are weights 0..15, the high nibbles 16..31.
void read_nibbles(const uint8_t* qs, uint8_t* code) {
  for (int i = 0; i < 16; ++i) {
    code[i] = qs[i] & 0xF;
    code[16 + i] = qs[i] >> 4;
  }
}

void add_fifth_bits(uint32_t bits, uint8_t* code) {
  for (int i = 0; i < 32; ++i) code[i] |= static_cast<uint8_t>(((bits >> i) & 1u) << 4);
}

// One 32-block: d f16, [m f16], [qh u32], codes.
void read_block32(TensorType type, const uint8_t* src, int chunk, RowBlock& block) {
  uint8_t* code = block.code + chunk * kChunkK;
  block.d[chunk] = load_u16(src);
  switch (type) {
    case TensorType::kQ8_0:
      for (int i = 0; i < 32; ++i) code[i] = src[2 + i] ^ 0x80;  // s8 + 128
      return;
    case TensorType::kQ4_1:
      block.m[chunk] = load_u16(src + 2);
      return read_nibbles(src + 4, code);
    case TensorType::kQ5_0:
      read_nibbles(src + 6, code);
      return add_fifth_bits(load_u32(src + 2), code);
    case TensorType::kQ5_1:
      block.m[chunk] = load_u16(src + 2);
      read_nibbles(src + 8, code);
      return add_fifth_bits(load_u32(src + 4), code);
    default:
      return read_nibbles(src + 2, code);  // Q4_0, IQ4_NL
  }
}

// scale u8[16] (scale | min << 4), qs[64], d, dmin
void read_q2_k(const uint8_t* src, RowBlock& block) {
  for (int s = 0; s < 16; ++s) {
    block.scale[s] = static_cast<int8_t>(src[s] & 0xF);
    block.min[s] = src[s] >> 4;
  }
  for (int i = 0; i < kTileK; ++i) {
    const int half = i / 128, shift = 2 * (i % 128 / 32);
    block.code[i] = (src[16 + half * 32 + i % 32] >> shift) & 3;
  }
  block.d[0] = load_u16(src + 80);
  block.m[0] = load_u16(src + 82);
}

// hmask[32], qs[64], scales[12] of 6 bits, d
void read_q3_k(const uint8_t* src, RowBlock& block) {
  const uint8_t* qs = src + 32;
  const uint8_t* scales = src + 96;
  for (int i = 0; i < kTileK; ++i) {
    const int half = i / 128, shift = 2 * (i % 128 / 32);
    const int high = (src[i % 32] >> (i / 32)) & 1;
    block.code[i] = static_cast<uint8_t>(((qs[half * 32 + i % 32] >> shift) & 3) | (high << 2));
  }
  for (int s = 0; s < 16; ++s) {
    const int low = s < 8 ? scales[s] & 0xF : scales[s - 8] >> 4;
    const int high = (scales[8 + s % 4] >> (2 * (s / 4))) & 3;
    block.scale[s] = static_cast<int8_t>((low | (high << 4)) - 32);
  }
  block.d[0] = load_u16(src + 108);
}

// The 8 6-bit scales and mins of Q4_K and Q5_K in 12 bytes.
void read_scales_k4(const uint8_t* p, RowBlock& block) {
  for (int s = 0; s < 4; ++s) {
    block.scale[s] = static_cast<int8_t>(p[s] & 63);
    block.min[s] = p[s + 4] & 63;
    block.scale[s + 4] = static_cast<int8_t>((p[s + 8] & 0xF) | ((p[s] >> 6) << 4));
    block.min[s + 4] = static_cast<uint8_t>((p[s + 8] >> 4) | ((p[s + 4] >> 6) << 4));
  }
}

// 128 bytes: per 64 weights 32 bytes, the low nibbles first.
void read_nibbles_k(const uint8_t* qs, uint8_t* code) {
  for (int i = 0; i < kTileK; ++i) {
    const uint8_t byte = qs[i / 64 * 32 + i % 32];
    code[i] = i % 64 < 32 ? byte & 0xF : byte >> 4;
  }
}

// d, dmin, scales[12], [qh[32]], qs[128]
void read_q4_k(const uint8_t* src, RowBlock& block) {
  block.d[0] = load_u16(src);
  block.m[0] = load_u16(src + 2);
  read_scales_k4(src + 4, block);
  read_nibbles_k(src + 16, block.code);
}

void read_q5_k(const uint8_t* src, RowBlock& block) {
  block.d[0] = load_u16(src);
  block.m[0] = load_u16(src + 2);
  read_scales_k4(src + 4, block);
  read_nibbles_k(src + 48, block.code);
  for (int i = 0; i < kTileK; ++i) {
    block.code[i] |= static_cast<uint8_t>(((src[16 + i % 32] >> (i / 32)) & 1) << 4);
  }
}

// ql[128], qh[64], scale i8[16], d
void read_q6_k(const uint8_t* src, RowBlock& block) {
  for (int i = 0; i < kTileK; ++i) {
    const int half = i / 128, quarter = i % 128 / 32;
    const uint8_t low = src[half * 64 + i % 64];
    const int high = (src[128 + half * 32 + i % 32] >> (2 * quarter)) & 3;
    block.code[i] = static_cast<uint8_t>((quarter < 2 ? low & 0xF : low >> 4) | (high << 4));
  }
  std::memcpy(block.scale, src + 192, 16);
  block.d[0] = load_u16(src + 208);
}

// d, scales_h u16, scales_l[4], qs[128]
void read_iq4_xs(const uint8_t* src, RowBlock& block) {
  block.d[0] = load_u16(src);
  const int high_bits = load_u16(src + 2);
  for (int s = 0; s < 8; ++s) {
    const int low = (src[4 + s / 2] >> (4 * (s % 2))) & 0xF;
    block.scale[s] = static_cast<int8_t>((low | (((high_bits >> (2 * s)) & 3) << 4)) - 32);
    read_nibbles(src + 8 + 16 * s, block.code + 32 * s);
  }
}

}  // namespace

void read_row_block(TensorType type, const uint8_t* src, int chunks, RowBlock& block) {
  block.chunks = chunks;
  switch (type) {
    case TensorType::kQ2_K:
      return read_q2_k(src, block);
    case TensorType::kQ3_K:
      return read_q3_k(src, block);
    case TensorType::kQ4_K:
      return read_q4_k(src, block);
    case TensorType::kQ5_K:
      return read_q5_k(src, block);
    case TensorType::kQ6_K:
      return read_q6_k(src, block);
    case TensorType::kIQ4_XS:
      return read_iq4_xs(src, block);
    default:
      break;
  }
  for (int c = 0; c < chunks; ++c) read_block32(type, src + c * block_bytes(type), c, block);
}

void row_block_to_floats(const TileFormat& format, const RowBlock& block, float* out) {
  for (int begin = 0; begin < block.chunks * kChunkK; begin += format.sub_size) {
    const int part = format.k_quant ? 0 : begin / kChunkK;
    float d = half_to_float(block.d[part]);
    float m = half_to_float(block.m[part]);
    if (format.k_quant) {
      d = d * block.scale[begin / format.sub_size];
      m = -(m * block.min[begin / format.sub_size]);
    }
    for (int i = begin; i < begin + format.sub_size; ++i) {
      const int code = block.code[i];
      const float value = static_cast<float>(format.codebook ? kCodebook[code] : code - format.offset);
      out[i] = format.has_min ? d * value + m : d * value;
    }
  }
}

}  // namespace corral
