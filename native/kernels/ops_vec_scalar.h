// 16 f32 lanes as an array: the oracle of the vector ISAs, and the fallback. Included by ops_scalar.cc only.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "quant/float16.h"

namespace corral {
namespace {

constexpr int kScoreRows = 1;
constexpr int kScorePages = 1;
constexpr int kValueRows = 1;
constexpr int kValueSlices = 1;

struct Vec {
  float v[16];
};

template <class Function>
inline Vec each(Function function) {
  Vec out;
  for (int i = 0; i < 16; ++i) out.v[i] = function(i);
  return out;
}

template <class Predicate>
inline uint32_t mask_of(Predicate predicate) {
  uint32_t mask = 0;
  for (int i = 0; i < 16; ++i) mask |= predicate(i) ? 1U << i : 0U;
  return mask;
}

inline Vec set1(float x) {
  return each([=](int) { return x; });
}
inline Vec load(const float* p) {
  return each([=](int i) { return p[i]; });
}
inline Vec load_first(const float* p, int64_t n, float fill) {
  return each([=](int i) { return i < n ? p[i] : fill; });
}
inline void store_first(float* p, int64_t n, Vec a) {
  for (int64_t i = 0; i < n; ++i) p[i] = a.v[i];
}
inline void store(float* p, Vec a) { store_first(p, 16, a); }
inline Vec load_half(const uint16_t* p) {
  return each([=](int i) { return half_to_float(p[i]); });
}
inline void store_half(uint16_t* p, Vec a) {
  for (int i = 0; i < 16; ++i) p[i] = float_to_half(a.v[i]);
}
inline Vec load_bytes(const int8_t* p) {
  return each([=](int i) { return static_cast<float>(p[i]); });
}
// Rounds to whole numbers, ties to even; the values lie in [-128, 127].
inline void store_bytes(int8_t* p, Vec a) {
  for (int i = 0; i < 16; ++i) p[i] = static_cast<int8_t>(std::nearbyint(a.v[i]));
}

inline Vec add(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] + b.v[i]; });
}
inline Vec sub(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] - b.v[i]; });
}
inline Vec mul(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] * b.v[i]; });
}
inline Vec div(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] / b.v[i]; });
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
}
inline Vec greater_of(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Vec smaller_of(Vec a, Vec b) {
  return each([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}

// value where !(x < floor), else 0: NaN passes.
inline Vec zero_below(Vec x, Vec floor, Vec value) {
  return each([&](int i) { return x.v[i] < floor.v[i] ? 0.0F : value.v[i]; });
}
inline uint32_t ge_mask(Vec a, Vec b) {
  return mask_of([&](int i) { return a.v[i] >= b.v[i]; });
}
inline uint32_t eq_mask(Vec a, Vec b) {
  return mask_of([&](int i) { return a.v[i] == b.v[i]; });
}
inline uint32_t nan_mask(Vec a) {
  return mask_of([&](int i) { return a.v[i] != a.v[i]; });
}

// 2^n for n held in the low bits of t = n + 1.5 * 2^23.
inline Vec power_of_two(Vec t) {
  return each([&](int i) {
    uint32_t word;
    std::memcpy(&word, &t.v[i], sizeof(word));
    word = (word << 23) + 0x3f800000U;
    float out;
    std::memcpy(&out, &word, sizeof(out));
    return out;
  });
}

inline float first(Vec a) { return a.v[0]; }

// Lane i with lane i + 8, then + 4, + 2, + 1: the order of every ISA.
inline float reduce_add(Vec a) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] + a.v[i + width];
  }
  return a.v[0];
}
inline float reduce_max(Vec a) {
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
  }
  return a.v[0];
}

inline float square_root(float x) { return std::sqrt(x); }

}  // namespace
}  // namespace corral
