// NEON kernels of F32, F16 and BF16 weights: exact widening, f32 fma.
#include <arm_neon.h>

#include <utility>

#include "kernels/matmul_neon.h"
#include "quant/tile_format.h"

namespace corral::neon {
namespace {

#include "kernels/matmul_driver-inl.h"
#include "kernels/matmul_neon-inl.h"

constexpr int kMaxRows = 3;  // 4 chains each

template <TensorType T>
inline constexpr int kBytesPerK = T == TensorType::kF32 ? 64 : 32;

// Weight J % 2 of 4 columns of [columns][2 k] bfloat16 values.
template <int J>
CORRAL_INLINE float32x4_t widen_bfloat(const uint8_t* w) {
  const uint32x4_t pairs = vreinterpretq_u32_u8(vld1q_u8(w));
  return vreinterpretq_f32_u32(J % 2 == 0 ? vshlq_n_u32(pairs, 16) : vandq_u32(pairs, vdupq_n_u32(0xFFFF0000u)));
}

// 8 columns of weight k + J of a tile; `w` points at the half's first column of an even k.
template <TensorType T, int J>
CORRAL_INLINE Floats load_weights(const uint8_t* w) {
  if constexpr (T == TensorType::kF32) {
    return {vreinterpretq_f32_u8(vld1q_u8(w + 64 * J)), vreinterpretq_f32_u8(vld1q_u8(w + 64 * J + 16))};
  } else if constexpr (T == TensorType::kF16) {
    return load_halves(w + 32 * J);
  } else {
    return {widen_bfloat<J>(w + 64 * (J / 2)), widen_bfloat<J>(w + 64 * (J / 2) + 16)};
  }
}

// Four chains of fma over k % 4, added up as (0 + 1) + (2 + 3), for 8 columns.
template <TensorType T, int MR>
CORRAL_INLINE void half_tile(const TileArgs& args, int half, const uint8_t* ahead) {
  const uint8_t* w = args.tile + half * (T == TensorType::kF16 ? 16 : 32);
  const float* x = args.x;
  const int64_t ldx = args.ldx;
  Floats chain[4][MR];
  each<4>([&](auto j) {
    each<MR>([&](auto r) { chain[j.value][r.value] = Floats{vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)}; });
  });
  const auto step = [&](auto j) __attribute__((always_inline)) {
    const Floats weights = load_weights<T, j.value>(w);
    each<MR>([&](auto r) __attribute__((always_inline)) {
      Floats& sum = chain[j.value][r.value];
      sum = add_product(sum, weights, x[r.value * ldx + j.value]);
    });
  };
  int k = 0;
  for (; k + 4 <= args.length; k += 4) {
    if (MR >= kPrefetchRows && ahead) {
      prefetch_lines<kBytesPerK<T> / 16>(ahead);
      ahead += 4 * kBytesPerK<T>;
    }
    each<4>(step);
    w += 4 * kBytesPerK<T>;
    x += 4;
  }
  if (k < args.length) step(Index<0>{});
  if (k + 1 < args.length) step(Index<1>{});
  if (k + 2 < args.length) step(Index<2>{});
  each<MR>([&](auto r) {
    const Floats sum = add(add(chain[0][r.value], chain[1][r.value]), add(chain[2][r.value], chain[3][r.value]));
    float* c = args.c + r.value * kTileColumns + 8 * half;
    store_floats(c, add(load_floats(c), sum));
  });
}

template <TensorType T, int MR>
__attribute__((noinline)) void tile_floats(const TileArgs& args) {
#pragma GCC unroll 1
  for (int half = 0; half < 2; ++half) half_tile<T, MR>(args, half, half == 0 ? args.ahead : nullptr);
}

struct Family {
  template <TensorType T>
  static constexpr int kRows = kMaxRows;
  template <TensorType T>
  static constexpr int64_t kTileBytes = kTileK * kBytesPerK<T>;
  template <TensorType T, int MR>
  static constexpr TileFn tile = tile_floats<T, MR>;
};

}  // namespace

void matmul_floats(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end) {
  const auto kernels = [](auto type) { return tile_kernels<Family>(type); };
  run_matmul(for_float_type(w.type, kernels), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::neon
