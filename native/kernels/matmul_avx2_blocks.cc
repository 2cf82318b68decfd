// AVX2 kernels of the 32-block types: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx2.h"
#include "quant/tile_format.h"

namespace corral::avx2 {
namespace {

#include "kernels/matmul_avx2-inl.h"
#include "kernels/matmul_avx2_madd-inl.h"
#include "kernels/matmul_driver-inl.h"

constexpr int kMaxRows = 4;

// sub[r] = codes . q of a chunk, with the offset taken out.
template <TensorType T, int MR>
CORRAL_INLINE void dot_chunk(const uint8_t* chunk, const int8_t* q, const ActGroups32* groups, int s, __m256i* sub) {
  const __m256i ones = _mm256_set1_epi16(1);
  each<MR>([&](auto r) {
    sub[r.value] = _mm256_setzero_si256();
    if constexpr (!kSigned<T> && kFormat<T>.offset > 0) {
      sub[r.value] = _mm256_slli_epi32(broadcast4(&groups[r.value].neg_sum[s]), log2_of(kFormat<T>.offset));
    }
  });
  each<8 / kWordQuads<T>>([&](auto part) __attribute__((always_inline)) {
    __m256i words[MR];
    dot_words<T, MR, decltype(part)::value * kWordQuads<T>, kWordQuads<T>>(chunk, q, words);
    each<MR>([&](auto r) {
      sub[r.value] = pinned(_mm256_add_epi32(sub[r.value], _mm256_madd_epi16(words[r.value], ones)));
    });
  });
}

#include "kernels/matmul_avx2_blocks-inl.h"

}  // namespace

void matmul_blocks(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end) {
  const auto kernels = [](auto type) { return tile_kernels<Family>(type); };
  run_matmul(for_block_type(w.type, kernels), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::avx2
