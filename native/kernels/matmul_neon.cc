// NEON with the dot product: quantisation of activations, and the table of kernels.
#include "kernels/matmul_neon.h"

#include <arm_neon.h>

#include "quant/tile_format.h"

namespace corral {
namespace {

constexpr float kSmallestMax = 0x1p-100f;  // as in matmul_scalar.cc

// The largest |x| of n floats (n a multiple of 4) as bits: infinities and NaNs come out on top.
uint32_t max_bits(const float* x, int n) {
  uint32x4_t max = vdupq_n_u32(0);
  for (int i = 0; i < n; i += 4) {
    max = vmaxq_u32(max, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), vdupq_n_u32(0x7FFFFFFFu)));
  }
  return vmaxvq_u32(max);
}

// 8 floats as words, rounded half to even.
int16x8_t round_to_words(const float* x, float factor) {
  const int32x4_t low = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x), factor));
  return vmovn_high_s32(vmovn_s32(low), vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4), factor)));
}

// n (a multiple of 16) floats with one scale, which is returned.
float quantize_group(const float* x, int n, int8_t* q) {
  const uint32_t top = max_bits(x, n);
  float max;
  __builtin_memcpy(&max, &top, sizeof max);
  if (top >= 0x7F800000u || max < kSmallestMax) {
    __builtin_memset(q, 0, static_cast<size_t>(n));
    return top >= 0x7F800000u ? __builtin_nanf("") : 0.0f;
  }
  const float inverse = 127.0f / max;
  for (int i = 0; i < n; i += 16) {
    const int8x8_t low = vmovn_s16(round_to_words(x + i, inverse));
    vst1q_s8(q + i, vmovn_high_s16(low, round_to_words(x + i + 8, inverse)));
  }
  return max / 127.0f;
}

int sum_of_16(const int8_t* q) { return vaddlvq_s8(vld1q_s8(q)); }

#include "kernels/quantize_rows-inl.h"

void quantize(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    if (act.form == ActForm::kQ8x32) quantize_row32(x + row * ldx, act, row);
    if (act.form == ActForm::kQ8x256) quantize_row256(x + row * ldx, act, row);
  }
}

void matmul(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
            int64_t group_end) {
  switch (act.form) {
    case ActForm::kF32:
      return neon::matmul_floats(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x32:
      return neon::matmul_blocks(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x256:
      return neon::matmul_k_quants(w, act, y, ldy, group_begin, group_end);
  }
}

}  // namespace

const MatmulKernels kMatmulNeon = {"neon", quantize, matmul};

}  // namespace corral
