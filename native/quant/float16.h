#pragma once

#include <bit>
#include <cstdint>

// Not for the ISA-specific translation units: they convert with intrinsics, and a shared inline function could be
// linked from the wrong one.
namespace corral {

// Exact widening of IEEE half precision; NaNs come out quiet, as from the hardware.
inline float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1Fu;
  const uint32_t mantissa = bits & 0x3FFu;
  if (exponent == 0x1F) {
    return std::bit_cast<float>(sign | 0x7F800000u | (mantissa << 13) | (mantissa != 0 ? 0x400000u : 0u));
  }
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // subnormal or zero
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

// Rounds to nearest, ties to even; keeps infinities and NaN.
inline uint16_t float_to_half(float x) {
  const uint32_t wide = std::bit_cast<uint32_t>(x);
  const uint32_t sign = wide >> 16 & 0x8000U;
  const uint32_t magnitude = wide & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return static_cast<uint16_t>(sign | 0x7E00U | (magnitude >> 13 & 0x1FFU));
  if (magnitude >= 0x477FF000U) return static_cast<uint16_t>(sign | 0x7C00U);
  if (magnitude < 0x38800000U) {  // subnormal: units of 2^-24, rounded by the float adder
    const float units = std::bit_cast<float>(magnitude) * 0x1p24F + 0x1.8p23F;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(units) & 0x7FFU));
  }
  const uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112U << 10)));
}

inline float bfloat_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

}  // namespace corral
