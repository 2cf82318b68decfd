// AVX-512 (F, BW, DQ, VL, VNNI, VBMI): quantisation of activations, and the table of kernels.
#include "kernels/matmul_avx512.h"

#include <immintrin.h>

#include "quant/tile_format.h"

namespace corral {
namespace {

constexpr float kSmallestMax = 0x1p-100f;  // as in matmul_scalar.cc

// N vectors of 16 floats with one scale, which is returned.
template <int N>
float quantize_group(const float* x, int8_t* q) {
  __m512i max_bits = _mm512_setzero_si512();
  for (int i = 0; i < N; ++i) {
    const __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(x + 16 * i));
    max_bits = _mm512_max_epu32(max_bits, _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF)));
  }
  const uint32_t top = _mm512_reduce_max_epu32(max_bits);
  const float max = _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(static_cast<int>(top))));
  if (top >= 0x7F800000u || max < kSmallestMax) {
    __builtin_memset(q, 0, 16 * N);
    return top >= 0x7F800000u ? __builtin_nanf("") : 0.0f;
  }
  const __m512 inverse = _mm512_set1_ps(127.0f / max);
  for (int i = 0; i < N; ++i) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * i), inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + 16 * i), _mm512_cvtepi32_epi8(rounded));
  }
  return max / 127.0f;
}

// The 16 sums over 16 of 256 int8 values.
__m512i sums_of_16(const int8_t* q) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i all = _mm512_setzero_si512();  // 128-bit lane i, dword v: sum 4 * v + i
  for (int v = 0; v < 4; ++v) {
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_loadu_si512(q + 64 * v));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
    all = _mm512_mask_mov_epi32(all, static_cast<__mmask16>(0x1111 << v), sums);
  }
  const __m512i transpose = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(transpose, all);
}

// Sums of neighbouring dwords, in the low dword of each qword.
__m512i add_pairs(__m512i sums) { return _mm512_add_epi32(sums, _mm512_srli_epi64(sums, 32)); }

void quantize_row32(const float* x, const Activations& act, int64_t row) {
  for (int64_t k = 0, tile = row; k < act.k; k += kTileK, tile += act.m) {
    int8_t* q = act.q + tile * kTileK;
    ActGroups32& groups = act.groups32[tile];
    for (int c = 0; c < 8; ++c) {
      if (k + c * kChunkK < act.k) {
        groups.scale[c] = quantize_group<2>(x + k + c * kChunkK, q + c * kChunkK);
      } else {
        __builtin_memset(q + c * kChunkK, 0, kChunkK);
        groups.scale[c] = 0.0f;
      }
    }
    const __m256i sums = _mm512_cvtepi64_epi32(add_pairs(sums_of_16(q)));
    _mm256_storeu_ps(groups.sum, _mm256_cvtepi32_ps(sums));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(groups.neg_sum), _mm256_sub_epi32(_mm256_setzero_si256(), sums));
  }
}

void quantize_row256(const float* x, const Activations& act, int64_t row) {
  for (int64_t k = 0, tile = row; k < act.k; k += kTileK, tile += act.m) {
    int8_t* q = act.q + tile * kTileK;
    ActGroups256& groups = act.groups256[tile];
    groups.scale = quantize_group<16>(x + k, q);
    const __m512i sums = sums_of_16(q);
    _mm512_storeu_si512(groups.neg_sum, _mm512_sub_epi32(_mm512_setzero_si512(), sums));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(groups.sum16), _mm512_cvtepi32_epi16(sums));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(groups.sum32), _mm512_cvtepi64_epi16(add_pairs(sums)));
    __builtin_memset(groups.padding, 0, sizeof groups.padding);
  }
}

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
      return avx512::matmul_floats(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x32:
      return avx512::matmul_blocks(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x256:
      return avx512::matmul_k_quants(w, act, y, ldy, group_begin, group_end);
  }
}

}  // namespace

const MatmulKernels kMatmulAvx512 = {"avx512", quantize, matmul};

}  // namespace corral
