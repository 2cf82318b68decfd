#include "quant/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "quant/encode_blocks.h"
#include "quant/float16.h"

namespace corral {
namespace {

// The value of the largest magnitude, with its sign.
float extreme(const float* x, int n) {
  float found = 0.0F;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(found)) found = x[i];
  }
  return found;
}

void store_nibbles(const uint8_t* code, uint8_t* out) {
  for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>((code[i] & 0xF) | ((code[16 + i] & 0xF) << 4));
}

void store_fifth_bits(const uint8_t* code, uint8_t* out) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= static_cast<uint32_t>(code[i] >> 4) << i;
  std::memcpy(out, &bits, sizeof bits);
}

// Symmetric codes of 4 or 5 bits: the extreme value gets the lowest code, so that its sign needs no code of its own.
void encode_symmetric(const float* x, int half_range, uint8_t* d, uint8_t* code) {
  const float scale = extreme(x, 32) / static_cast<float>(-half_range);
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  store_half(scale, d);
  for (int i = 0; i < 32; ++i) {
    const int level = static_cast<int>(x[i] * inverse + (static_cast<float>(half_range) + 0.5F));
    code[i] = static_cast<uint8_t>(std::min(level, 2 * half_range - 1));
  }
}

void encode_q4_0(const float* x, uint8_t* out) {
  uint8_t code[32];
  encode_symmetric(x, 8, out, code);
  store_nibbles(code, out + 2);
}

void encode_q5_0(const float* x, uint8_t* out) {
  uint8_t code[32];
  encode_symmetric(x, 16, out, code);
  store_fifth_bits(code, out + 2);
  store_nibbles(code, out + 6);
}

void encode_q5_1(const float* x, uint8_t* out) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float scale = (*high - *low) / 31.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  store_half(scale, out);
  store_half(*low, out + 2);
  uint8_t code[32];
  for (int i = 0; i < 32; ++i) code[i] = static_cast<uint8_t>((x[i] - *low) * inverse + 0.5F);
  store_fifth_bits(code, out + 4);
  store_nibbles(code, out + 8);
}

void encode_q8_0(const float* x, uint8_t* out) {
  const float scale = std::fabs(extreme(x, 32)) / 127.0F;
  const float inverse = scale != 0.0F ? 1.0F / scale : 0.0F;
  store_half(scale, out);
  for (int i = 0; i < 32; ++i) out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::round(x[i] * inverse)));
}

using EncodeBlock = void (*)(const float* x, uint8_t* out);

EncodeBlock encoder_of(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
      return encode_q4_0;
    case TensorType::kQ5_0:
      return encode_q5_0;
    case TensorType::kQ5_1:
      return encode_q5_1;
    case TensorType::kQ8_0:
      return encode_q8_0;
    case TensorType::kQ4_K:
      return encode_q4_k;
    case TensorType::kQ5_K:
      return encode_q5_k;
    case TensorType::kQ6_K:
      return encode_q6_k;
    default:
      return nullptr;
  }
}

}  // namespace

bool can_encode(TensorType type) { return encoder_of(type) != nullptr; }

void encode_row(TensorType type, const float* row, int64_t cols, uint8_t* out) {
  const EncodeBlock encode = encoder_of(type);
  for (int64_t k = 0; k < cols; k += block_size(type), out += block_bytes(type)) encode(row + k, out);
}

}  // namespace corral
