// AVX-512 kernels of the types with integer scales under one f16 scale per 256: Q2_K .. Q6_K, IQ4_XS.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx512.h"
#include "quant/tile_format.h"

namespace corral::avx512 {
namespace {

#include "kernels/matmul_avx512-inl.h"
#include "kernels/matmul_driver-inl.h"

// Rows of a tile: as many as leave the unpacker its registers (native/tests/check_spills.py).
template <TensorType T>
inline constexpr int kMaxRows = kFormat<T>.sub_size == 16 ? 8 : 12;

// scaled[r] += scale * (codes . q - offset * sum q) of sub-block `Half` of chunk p.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void add_sub_block(const Unpacker<T> unpacker, const TileArgs& args, const uint8_t* chunk, int p,
                                 __m512i* scaled) {
  __m512i sub[MR];
  each<MR>([&](auto r) {
    sub[r.value] = _mm512_setzero_si512();
    if constexpr (kOffset<T> > 0) {
      const int32_t* neg_sum = args.groups256[r.value].neg_sum + 2 * p + Half;
      __m512i seed = broadcast4(neg_sum);
      if constexpr (kFormat<T>.sub_size == 32) seed = _mm512_add_epi32(seed, broadcast4(neg_sum + 1));
      sub[r.value] = _mm512_slli_epi32(seed, log2_of(kOffset<T>));
    }
  });
  dot_sub_block<T, MR, Half>(unpacker, chunk, args.q + p * kChunkK, sub);
  const __m512i scale = sub_scales<T, Half>(args.tile, p);
  each<MR>(
      [&](auto r) { scaled[r.value] = _mm512_add_epi32(scaled[r.value], _mm512_mullo_epi32(sub[r.value], scale)); });
}

// t = scaled * d (- mins * dmin), c += t * scale.
template <TensorType T, int MR>
CORRAL_INLINE void add_tile(const TileArgs& args, const __m512i* scaled) {
  constexpr TileFormat f = kFormat<T>;
  __m512i mins[MR];
  if constexpr (f.has_min) {
    each<MR>([&](auto r) { mins[r.value] = _mm512_setzero_si512(); });
    each<kTileK / f.sub_size / 2>([&](auto p) {
      const __m512i pairs = min_pairs<T>(args.tile, p.value);
      each<MR>([&](auto r) {
        const ActGroups256& groups = args.groups256[r.value];
        const int16_t* sums = (f.sub_size == 16 ? groups.sum16 : groups.sum32) + 2 * p.value;
        mins[r.value] = _mm512_dpwssd_epi32(mins[r.value], pairs, broadcast4(sums));
      });
    });
  }
  const __m512 d = load_halves(args.tile);
  const __m512 dmin = f.has_min ? load_halves(args.tile + 32) : d;
  each<MR>([&](auto r) {
    float* c = args.c + r.value * kTileColumns;
    __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(scaled[r.value]), d);
    if constexpr (f.has_min) t = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins[r.value]), dmin, t);
    _mm512_storeu_ps(c, _mm512_fmadd_ps(t, _mm512_set1_ps(args.groups256[r.value].scale), _mm512_loadu_ps(c)));
  });
}

template <TensorType T, int MR>
__attribute__((noinline)) void tile_k_quant(const TileArgs& in) {
  constexpr int kHeaderBytes = kFormat<T>.header_bytes(8);
  const TileArgs args = in;
  const Unpacker<T> unpacker = make_unpacker<T>();
  const uint8_t* chunk = args.tile + kHeaderBytes;
  const uint8_t* ahead = args.ahead;
  if (ahead) {
    prefetch_lines<kHeaderBytes / 64>(ahead, args.ahead_to_l2);
    ahead += kHeaderBytes;
  }
  __m512i scaled[MR];
  each<MR>([&](auto r) { scaled[r.value] = _mm512_setzero_si512(); });
#pragma GCC unroll 1
  for (int p = 0; p < kTileK / kChunkK; ++p) {
    if (ahead) {
      prefetch_lines<kChunkBytes<T> / 64>(ahead, args.ahead_to_l2);
      ahead += kChunkBytes<T>;
    }
    add_sub_block<T, MR, 0>(unpacker, args, chunk, p, scaled);
    if constexpr (kFormat<T>.sub_size == 16) add_sub_block<T, MR, 1>(unpacker, args, chunk, p, scaled);
    chunk += kChunkBytes<T>;
  }
  add_tile<T, MR>(args, scaled);
}

struct Family {
  template <TensorType T>
  static constexpr int kRows = kMaxRows<T>;
  template <TensorType T>
  static constexpr int64_t kTileBytes = kFormat<T>.tile_bytes(8);
  template <TensorType T, int MR>
  static constexpr TileFn tile = tile_k_quant<T, MR>;
};

}  // namespace

void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end) {
  const auto kernels = [](auto type) { return tile_kernels<Family>(type); };
  run_matmul(for_k_quant(w.type, kernels), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::avx512
