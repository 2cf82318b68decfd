// AVX2, FMA, F16C: quantisation of activations, and the table of kernels.
#include "kernels/matmul_avx2.h"

#include <immintrin.h>

#include "quant/tile_format.h"

namespace corral {
namespace {

constexpr float kSmallestMax = 0x1p-100f;  // as in matmul_scalar.cc

// The largest |x| of n floats (n a multiple of 8) as bits: infinities and NaNs come out on top.
uint32_t max_bits(const float* x, int n) {
  __m256i max = _mm256_setzero_si256();
  for (int i = 0; i < n; i += 8) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    max = _mm256_max_epu32(max, _mm256_and_si256(bits, _mm256_set1_epi32(0x7FFFFFFF)));
  }
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0x4E));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, 0xB1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

__m256i round_to_int(const float* x, __m256 factor) {
  return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
}

// n (a multiple of 32) floats with one scale, which is returned.
float quantize_group(const float* x, int n, int8_t* q) {
  const uint32_t top = max_bits(x, n);
  const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(top))));
  if (top >= 0x7F800000u || max < kSmallestMax) {
    __builtin_memset(q, 0, static_cast<size_t>(n));
    return top >= 0x7F800000u ? __builtin_nanf("") : 0.0f;
  }
  const __m256 inverse = _mm256_set1_ps(127.0f / max);
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // undoes the lane order of the packs
  for (int i = 0; i < n; i += 32) {
    const __m256i a = _mm256_packs_epi32(round_to_int(x + i, inverse), round_to_int(x + i + 8, inverse));
    const __m256i b = _mm256_packs_epi32(round_to_int(x + i + 16, inverse), round_to_int(x + i + 24, inverse));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(q + i),
                        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order));
  }
  return max / 127.0f;
}

int sum_of_16(const int8_t* q) {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q));
  // Bytes + 128 summed as unsigned, in two halves of 8.
  const __m128i sums = _mm_sad_epu8(_mm_xor_si128(values, _mm_set1_epi8(-128)), _mm_setzero_si128());
  return _mm_cvtsi128_si32(sums) + _mm_extract_epi16(sums, 4) - 16 * 128;
}

#include "kernels/quantize_rows-inl.h"

void matmul(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
            int64_t group_end) {
  switch (act.form) {
    case ActForm::kF32:
      return avx2::matmul_floats(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x32:
      return avx2::matmul_blocks(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x256:
      return avx2::matmul_k_quants(w, act, y, ldy, group_begin, group_end);
  }
}

}  // namespace

void avx2::quantize(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    if (act.form == ActForm::kQ8x32) quantize_row32(x + row * ldx, act, row);
    if (act.form == ActForm::kQ8x256) quantize_row256(x + row * ldx, act, row);
  }
}

const MatmulKernels kMatmulAvx2 = {"avx2", avx2::quantize, matmul};

}  // namespace corral
