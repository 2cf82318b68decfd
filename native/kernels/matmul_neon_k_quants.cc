// NEON kernels of the types with integer scales under one f16 scale per 256: Q2_K .. Q6_K, IQ4_XS.
#include <arm_neon.h>

#include <utility>

#include "kernels/matmul_neon.h"
#include "quant/tile_format.h"

namespace corral::neon {
namespace {

#include "kernels/matmul_driver-inl.h"
#include "kernels/matmul_neon-inl.h"

constexpr int kMaxRows = 4;

template <TensorType T>
inline constexpr bool kPairedScales = kFormat<T>.has_min && kFormat<T>.sub_size == 16;

// Integer scales of sub-block `Half` of chunk p for 8 columns.
template <TensorType T, int Half>
CORRAL_INLINE Ints sub_scales(const uint8_t* tile, int half, int p) {
  constexpr int kHalves = kChunkK / kFormat<T>.sub_size;
  int8x8_t scales;
  if constexpr (kPairedScales<T>) {
    const uint8x8_t both = vld2_u8(tile + kTileHeaderD + 32 * p + 16 * half).val[Half];
    scales = vreinterpret_s8_u8(vand_u8(both, vdup_n_u8(0xF)));
  } else {
    scales = vreinterpret_s8_u8(vld1_u8(tile + kTileHeaderD + 16 * (p * kHalves + Half) + 8 * half));
  }
  const int16x8_t words = vmovl_s8(scales);
  return {vmovl_s16(vget_low_s16(words)), vmovl_high_s16(words)};
}

// mins[r] += min * sum q over sub-blocks 2p and 2p + 1, for 8 columns.
template <TensorType T, int MR>
CORRAL_INLINE void add_mins(const TileArgs& args, int half, int p, Ints* mins) {
  uint8x8x2_t pairs = vld2_u8(args.tile + kTileHeaderD + (kPairedScales<T> ? 0 : 128) + 32 * p + 16 * half);
  each<2>([&](auto s) __attribute__((always_inline)) {
    const uint8x8_t bytes = kPairedScales<T> ? vshr_n_u8(pairs.val[s.value], 4) : pairs.val[s.value];
    const int16x8_t words = vreinterpretq_s16_u16(vmovl_u8(bytes));
    each<MR>([&](auto r) __attribute__((always_inline)) {
      const ActGroups256& groups = args.groups256[r.value];
      const int16_t sum = (kFormat<T>.sub_size == 16 ? groups.sum16 : groups.sum32)[2 * p + s.value];
      mins[r.value].lo = vmlal_n_s16(mins[r.value].lo, vget_low_s16(words), sum);
      mins[r.value].hi = vmlal_high_n_s16(mins[r.value].hi, words, sum);
    });
  });
}

// scaled[r] += scale * (codes . q - offset * sum q) of sub-block `Half` of chunk p.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void add_sub_block(const TileArgs& args, const uint8_t* chunk, int half, int p, Ints* scaled) {
  const int8_t* q = args.q + p * kChunkK;
  Ints sub[MR];
  each<MR>([&](auto r) {
    const int32_t* neg_sum = args.groups256[r.value].neg_sum + 2 * p + Half;
    const int32_t seed = kFormat<T>.sub_size == 32 ? neg_sum[0] + neg_sum[1] : neg_sum[0];
    sub[r.value] = broadcast(seed * kOffset<T>);
  });
  dot_sixteen<T, MR, 4 * Half>(chunk, q, sub);
  if constexpr (kFormat<T>.sub_size == 32) dot_sixteen<T, MR, 4>(chunk, q, sub);
  const Ints scale = sub_scales<T, Half>(args.tile, half, p);
  each<MR>([&](auto r) {
    scaled[r.value].lo = vmlaq_s32(scaled[r.value].lo, sub[r.value].lo, scale.lo);
    scaled[r.value].hi = vmlaq_s32(scaled[r.value].hi, sub[r.value].hi, scale.hi);
  });
}

// t = scaled * d (- mins * dmin), c += t * scale.
template <TensorType T, int MR>
CORRAL_INLINE void add_half_tile(const TileArgs& args, int half, const Ints* scaled) {
  constexpr TileFormat f = kFormat<T>;
  Ints mins[MR];
  if constexpr (f.has_min) {
    each<MR>([&](auto r) { mins[r.value] = broadcast(0); });
    each<kTileK / f.sub_size / 2>([&](auto p) { add_mins<T, MR>(args, half, p.value, mins); });
  }
  const Floats d = load_halves(args.tile + 16 * half);
  each<MR>([&](auto r) {
    float* c = args.c + r.value * kTileColumns + 8 * half;
    Floats t = multiply(to_floats(scaled[r.value]), d);
    if constexpr (f.has_min) t = subtract_product(t, to_floats(mins[r.value]), load_halves(args.tile + 32 + 16 * half));
    store_floats(c, add_product(load_floats(c), t, args.groups256[r.value].scale));
  });
}

template <TensorType T, int MR>
CORRAL_INLINE void half_tile(const TileArgs& args, int half, const uint8_t* ahead) {
  constexpr int kHeaderBytes = kFormat<T>.header_bytes(8);
  const uint8_t* chunk = args.tile + kHeaderBytes + 32 * half;
  if (MR >= kPrefetchRows && ahead) {
    prefetch_lines<kHeaderBytes / 64>(ahead);
    ahead += kHeaderBytes;
  }
  Ints scaled[MR];
  each<MR>([&](auto r) { scaled[r.value] = broadcast(0); });
#pragma GCC unroll 1
  for (int p = 0; p < kTileK / kChunkK; ++p) {
    if (MR >= kPrefetchRows && ahead) {
      prefetch_lines<kChunkBytes<T> / 64>(ahead);
      ahead += kChunkBytes<T>;
    }
    add_sub_block<T, MR, 0>(args, chunk, half, p, scaled);
    if constexpr (kFormat<T>.sub_size == 16) add_sub_block<T, MR, 1>(args, chunk, half, p, scaled);
    chunk += kChunkBytes<T>;
  }
  add_half_tile<T, MR>(args, half, scaled);
}

template <TensorType T, int MR>
__attribute__((noinline)) void tile_k_quant(const TileArgs& args) {
#pragma GCC unroll 1
  for (int half = 0; half < 2; ++half) half_tile<T, MR>(args, half, half == 0 ? args.ahead : nullptr);
}

struct Family {
  template <TensorType T>
  static constexpr int kRows = kMaxRows;
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

}  // namespace corral::neon
