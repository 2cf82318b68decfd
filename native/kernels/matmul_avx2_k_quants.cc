// AVX2 kernels of the types with integer scales under one f16 scale per 256: Q2_K .. Q6_K, IQ4_XS.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx2.h"
#include "quant/tile_format.h"

namespace corral::avx2 {
namespace {

#include "kernels/matmul_avx2-inl.h"
#include "kernels/matmul_avx2_madd-inl.h"
#include "kernels/matmul_driver-inl.h"

template <TensorType T>
inline constexpr int kMaxRows = 4;

// Both words of each dword become the low one.
CORRAL_INLINE __m256i repeat_low_word(__m256i v) {
  return _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi32(0xFFFF)), _mm256_slli_epi32(v, 16));
}

// scaled[r] += scale * (codes . q - offset * sum q) of sub-block `Half` of chunk p.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void add_sub_block(const TileArgs& args, const uint8_t* chunk, int half, int p, __m256i* scaled) {
  constexpr int kQuads = kFormat<T>.sub_size / 4;
  constexpr int kStep = kWordQuads<T> < kQuads ? kWordQuads<T> : kQuads;
  static_assert(kStep == kWordQuads<T> || kFormat<T>.sub_size == 16);
  const __m256i scale = repeat_low_word(sub_scales<T, Half>(args.tile, half, p));
  if constexpr (!kSigned<T> && kFormat<T>.offset > 0) {
    // -offset * sum fits no word, its half in both words of the pair does: 16 * 16 * 127 = 32512.
    each<MR>([&](auto r) {
      const int32_t neg_sum = args.groups256[r.value].neg_sum[2 * p + Half];
      const __m256i seed = _mm256_set1_epi16(static_cast<int16_t>(neg_sum * (kFormat<T>.offset / 2)));
      scaled[r.value] = pinned(_mm256_add_epi32(scaled[r.value], _mm256_madd_epi16(seed, scale)));
    });
  }
  each<kQuads / kStep>([&](auto part) __attribute__((always_inline)) {
    __m256i words[MR];
    dot_words<T, MR, Half * 4 + decltype(part)::value * kStep, kStep>(chunk, args.q + p * kChunkK, words);
    each<MR>([&](auto r) {
      scaled[r.value] = pinned(_mm256_add_epi32(scaled[r.value], _mm256_madd_epi16(words[r.value], scale)));
    });
  });
}

#include "kernels/matmul_avx2_k_quants-inl.h"

}  // namespace

void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end) {
  const auto kernels = [](auto type) { return tile_kernels<Family>(type); };
  run_matmul(for_k_quant(w.type, kernels), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::avx2
