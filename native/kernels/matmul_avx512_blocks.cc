// AVX-512 kernels of the 32-block types: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx512.h"
#include "quant/tile_format.h"

namespace corral::avx512 {
namespace {

#include "kernels/matmul_avx512-inl.h"
#include "kernels/matmul_driver-inl.h"

constexpr int kMaxRows = 12;

// Per 32 k: t = sub * d (+ m * sum), c += t * scale.
template <TensorType T, int MR>
__attribute__((noinline)) void tile_blocks(const TileArgs& args) {
  constexpr TileFormat f = kFormat<T>;
  constexpr int kHeaderStride = f.has_min ? 64 : 32;
  const Unpacker<T> unpacker = make_unpacker<T>();
  const int chunks = args.length / kChunkK;
  const uint8_t* header = args.tile;
  const uint8_t* chunk = args.tile + (chunks * kHeaderStride + 63) / 64 * 64;
  const uint8_t* ahead = args.ahead;
  const int8_t* q = args.q;
  const ActGroups32* groups = args.groups32;
  __m512 c[MR];
  each<MR>([&](auto r) { c[r.value] = _mm512_loadu_ps(args.c + r.value * kTileColumns); });
#pragma GCC unroll 1
  for (int s = 0; s < chunks; ++s) {
    if (ahead) {
      prefetch_lines<(kChunkBytes<T> + kHeaderStride + 63) / 64>(ahead, args.ahead_to_l2);
      ahead += kChunkBytes<T> + kHeaderStride;
    }
    __m512i sub[MR];
    each<MR>([&](auto r) {
      sub[r.value] = _mm512_setzero_si512();
      if constexpr (kOffset<T> > 0) {
        sub[r.value] = _mm512_slli_epi32(broadcast4(&groups[r.value].neg_sum[s]), log2_of(kOffset<T>));
      }
    });
    dot_sub_block<T, MR, 0>(unpacker, chunk, q, sub);
    const __m512 d = load_halves(header);
    const __m512 m = f.has_min ? load_halves(header + 32) : d;
    each<MR>([&](auto r) {
      __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(sub[r.value]), d);
      if constexpr (f.has_min) t = _mm512_fmadd_ps(m, _mm512_set1_ps(groups[r.value].sum[s]), t);
      c[r.value] = _mm512_fmadd_ps(t, _mm512_set1_ps(groups[r.value].scale[s]), c[r.value]);
    });
    header += kHeaderStride;
    chunk += kChunkBytes<T>;
    q += kChunkK;
  }
  each<MR>([&](auto r) { _mm512_storeu_ps(args.c + r.value * kTileColumns, c[r.value]); });
}

struct Family {
  template <TensorType T>
  static constexpr int kRows = kMaxRows;
  template <TensorType T>
  static constexpr int64_t kTileBytes = kFormat<T>.tile_bytes(8);
  template <TensorType T, int MR>
  static constexpr TileFn tile = tile_blocks<T, MR>;
};

}  // namespace

void matmul_blocks(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end) {
  const auto kernels = [](auto type) { return tile_kernels<Family>(type); };
  run_matmul(for_block_type(w.type, kernels), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::avx512
