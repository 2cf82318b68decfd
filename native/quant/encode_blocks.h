#pragma once

#include <bit>
#include <cstdint>

#include "quant/float16.h"

namespace corral {

// One block of 256 weights each.
void encode_q4_k(const float* x, uint8_t* out);
void encode_q5_k(const float* x, uint8_t* out);
void encode_q6_k(const float* x, uint8_t* out);

inline void store_half(float value, uint8_t* out) {
  const uint16_t bits = float_to_half(value);
  out[0] = static_cast<uint8_t>(bits & 0xFF);
  out[1] = static_cast<uint8_t>(bits >> 8);
}

// To the nearest integer, ties to even, for |value| < 2^22: a float that large has no room for a fraction.
inline int nearest(float value) {
  return static_cast<int>(std::bit_cast<uint32_t>(value + 12582912.0F) & 0x007FFFFFu) - 0x00400000;
}

}  // namespace corral
