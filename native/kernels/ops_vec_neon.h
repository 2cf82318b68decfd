// 16 f32 lanes in four q registers. Included by ops_neon.cc only.
#pragma once

#include <arm_neon.h>

#include <cstdint>

namespace corral {
namespace {

// Tile sizes that fit into 32 registers: rows x pages of scores, rows x 16-wide slices of values.
constexpr int kScoreRows = 4;
constexpr int kScorePages = 1;
constexpr int kValueRows = 2;
constexpr int kValueSlices = 2;

struct Vec {
  float32x4_t a, b, c, d;
};

inline Vec set1(float x) { return {vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x), vdupq_n_f32(x)}; }
inline Vec load(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}; }
inline Vec load_first(const float* p, int64_t n, float fill) {
  float lanes[16];
  for (int64_t i = 0; i < 16; ++i) lanes[i] = i < n ? p[i] : fill;
  return load(lanes);
}
inline void store(float* p, Vec x) {
  vst1q_f32(p, x.a);
  vst1q_f32(p + 4, x.b);
  vst1q_f32(p + 8, x.c);
  vst1q_f32(p + 12, x.d);
}
inline void store_first(float* p, int64_t n, Vec x) {
  float lanes[16];
  store(lanes, x);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
inline Vec load_half(const uint16_t* p) {
  const float16x8_t low = vreinterpretq_f16_u16(vld1q_u16(p));
  const float16x8_t high = vreinterpretq_f16_u16(vld1q_u16(p + 8));
  return {vcvt_f32_f16(vget_low_f16(low)), vcvt_high_f32_f16(low), vcvt_f32_f16(vget_low_f16(high)),
          vcvt_high_f32_f16(high)};
}
inline void store_half(uint16_t* p, Vec x) {
  vst1q_u16(p, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.a), x.b)));
  vst1q_u16(p + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.c), x.d)));
}
inline Vec load_bytes(const int8_t* p) {
  const int8x16_t bytes = vld1q_s8(p);
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes));
  const int16x8_t high = vmovl_high_s8(bytes);
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
          vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))};
}
// Rounds to whole numbers, ties to even; the values lie in [-128, 127].
inline void store_bytes(int8_t* p, Vec x) {
  const int16x8_t low = vmovn_high_s32(vmovn_s32(vcvtnq_s32_f32(x.a)), vcvtnq_s32_f32(x.b));
  const int16x8_t high = vmovn_high_s32(vmovn_s32(vcvtnq_s32_f32(x.c)), vcvtnq_s32_f32(x.d));
  vst1q_s8(p, vmovn_high_s16(vmovn_s16(low), high));
}

// One operation on the four registers.
template <class F>
inline Vec map(Vec x, Vec y, F f) {
  return {f(x.a, y.a), f(x.b, y.b), f(x.c, y.c), f(x.d, y.d)};
}

inline float32x4_t greater_of(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }

inline Vec add(Vec x, Vec y) {
  return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
}
inline Vec sub(Vec x, Vec y) {
  return {vsubq_f32(x.a, y.a), vsubq_f32(x.b, y.b), vsubq_f32(x.c, y.c), vsubq_f32(x.d, y.d)};
}
inline Vec mul(Vec x, Vec y) {
  return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
}
inline Vec div(Vec x, Vec y) {
  return {vdivq_f32(x.a, y.a), vdivq_f32(x.b, y.b), vdivq_f32(x.c, y.c), vdivq_f32(x.d, y.d)};
}
inline Vec fma(Vec x, Vec y, Vec z) {
  return {vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
// x > y ? x : y, so y if one is NaN
inline Vec greater_of(Vec x, Vec y) {
  return map(x, y, [](float32x4_t s, float32x4_t t) { return greater_of(s, t); });
}
// x < y ? x : y
inline Vec smaller_of(Vec x, Vec y) {
  return map(x, y, [](float32x4_t s, float32x4_t t) { return vbslq_f32(vcltq_f32(s, t), s, t); });
}

inline float32x4_t zero_below(float32x4_t x, float32x4_t floor, float32x4_t value) {
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), vcltq_f32(x, floor)));
}
// value where !(x < floor), else 0: NaN passes.
inline Vec zero_below(Vec x, Vec floor, Vec value) {
  return {zero_below(x.a, floor.a, value.a), zero_below(x.b, floor.b, value.b), zero_below(x.c, floor.c, value.c),
          zero_below(x.d, floor.d, value.d)};
}

// One bit per lane of four comparisons.
inline uint32_t bits(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d) {
  const uint32_t weights[4] = {1, 2, 4, 8};
  const uint32x4_t weight = vld1q_u32(weights);
  const uint32x4_t low = vorrq_u32(vandq_u32(a, weight), vandq_u32(b, vshlq_n_u32(weight, 4)));
  const uint32x4_t high = vorrq_u32(vandq_u32(c, vshlq_n_u32(weight, 8)), vandq_u32(d, vshlq_n_u32(weight, 12)));
  return vaddvq_u32(vorrq_u32(low, high));
}
inline uint32_t ge_mask(Vec x, Vec y) {
  return bits(vcgeq_f32(x.a, y.a), vcgeq_f32(x.b, y.b), vcgeq_f32(x.c, y.c), vcgeq_f32(x.d, y.d));
}
inline uint32_t eq_mask(Vec x, Vec y) {
  return bits(vceqq_f32(x.a, y.a), vceqq_f32(x.b, y.b), vceqq_f32(x.c, y.c), vceqq_f32(x.d, y.d));
}
inline uint32_t nan_mask(Vec x) { return eq_mask(x, x) ^ 0xFFFFU; }

// 2^n for n held in the low bits of t = n + 1.5 * 2^23.
inline float32x4_t power_of_two(float32x4_t t) {
  const uint32x4_t exponent = vshlq_n_u32(vreinterpretq_u32_f32(t), 23);
  return vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(0x3F800000U)));
}
inline Vec power_of_two(Vec t) { return {power_of_two(t.a), power_of_two(t.b), power_of_two(t.c), power_of_two(t.d)}; }

inline float first(Vec x) { return vgetq_lane_f32(x.a, 0); }

// Lane i with lane i + 8, then + 4, + 2, + 1: the order of every ISA.
inline float reduce_add(Vec x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
inline float reduce_max(Vec x) {
  float32x4_t four = greater_of(greater_of(x.a, x.c), greater_of(x.b, x.d));
  four = greater_of(four, vextq_f32(four, four, 2));
  return vgetq_lane_f32(greater_of(four, vextq_f32(four, four, 1)), 0);
}

inline float square_root(float x) { return vget_lane_f32(vsqrt_f32(vdup_n_f32(x)), 0); }

}  // namespace
}  // namespace corral
