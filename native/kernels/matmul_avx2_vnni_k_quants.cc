// AVX-VNNI kernels of the types with integer scales under one f16 scale per 256: Q2_K .. Q6_K, IQ4_XS.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx2_vnni.h"
#include "quant/tile_format.h"

namespace corral::avx2_vnni {
namespace {

#include "kernels/matmul_avx2-inl.h"
#include "kernels/matmul_avx2_vnni-inl.h"
#include "kernels/matmul_driver-inl.h"

template <TensorType T>
inline constexpr int kMaxRows = 6;

// scaled[r] += scale * (codes . q - offset * sum q) of sub-block `Half` of chunk p.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void add_sub_block(const TileArgs& args, const uint8_t* chunk, int half, int p, __m256i* scaled) {
  __m256i sub[MR];
  each<MR>([&](auto r) {
    sub[r.value] = _mm256_setzero_si256();
    if constexpr (kOffset<T> > 0) {
      const int32_t* neg_sum = args.groups256[r.value].neg_sum + 2 * p + Half;
      const int32_t seed = kFormat<T>.sub_size == 32 ? neg_sum[0] + neg_sum[1] : neg_sum[0];
      sub[r.value] = _mm256_set1_epi32(seed * kOffset<T>);
    }
  });
  dot_sub_block<T, MR, Half>(chunk, args.q + p * kChunkK, sub);
  const __m256i scale = sub_scales<T, Half>(args.tile, half, p);
  each<MR>([&](auto r) {
    scaled[r.value] = pinned(_mm256_add_epi32(scaled[r.value], _mm256_mullo_epi32(sub[r.value], scale)));
  });
}

#include "kernels/matmul_avx2_k_quants-inl.h"

}  // namespace

void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end) {
  const auto kernels = [](auto type) { return tile_kernels<Family>(type); };
  run_matmul(for_k_quant(w.type, kernels), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::avx2_vnni
