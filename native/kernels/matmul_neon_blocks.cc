// NEON kernels of the 32-block types: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL.
#include <arm_neon.h>

#include <utility>

#include "kernels/matmul_neon.h"
#include "quant/tile_format.h"

namespace corral::neon {
namespace {

#include "kernels/matmul_driver-inl.h"
#include "kernels/matmul_neon-inl.h"

constexpr int kMaxRows = 4;

// Per 32 k: t = sub * d (+ m * sum), c += t * scale; for columns [8 * half, 8 * half + 8).
template <TensorType T, int MR>
CORRAL_INLINE void half_tile(const TileArgs& args, int half, const uint8_t* ahead) {
  constexpr TileFormat f = kFormat<T>;
  constexpr int kHeaderStride = f.has_min ? 64 : 32;
  const int chunks = args.length / kChunkK;
  const uint8_t* header = args.tile + 16 * half;
  const uint8_t* chunk = args.tile + (chunks * kHeaderStride + 63) / 64 * 64 + 32 * half;
  const int8_t* q = args.q;
  const ActGroups32* groups = args.groups32;
  float* out = args.c + 8 * half;
  Floats c[MR];
  each<MR>([&](auto r) { c[r.value] = load_floats(out + r.value * kTileColumns); });
#pragma GCC unroll 1
  for (int s = 0; s < chunks; ++s) {
    if (MR >= kPrefetchRows && ahead) {
      prefetch_lines<(kChunkBytes<T> + kHeaderStride + 63) / 64>(ahead);
      ahead += kChunkBytes<T> + kHeaderStride;
    }
    Ints sub[MR];
    each<MR>([&](auto r) { sub[r.value] = broadcast(groups[r.value].neg_sum[s] * kOffset<T>); });
    dot_sixteen<T, MR, 0>(chunk, q, sub);
    dot_sixteen<T, MR, 4>(chunk, q, sub);
    const Floats d = load_halves(header);
    each<MR>([&](auto r) {
      Floats t = multiply(to_floats(sub[r.value]), d);
      if constexpr (f.has_min) t = add_product(t, load_halves(header + 32), groups[r.value].sum[s]);
      c[r.value] = add_product(c[r.value], t, groups[r.value].scale[s]);
    });
    header += kHeaderStride;
    chunk += kChunkBytes<T>;
    q += kChunkK;
  }
  each<MR>([&](auto r) { store_floats(out + r.value * kTileColumns, c[r.value]); });
}

template <TensorType T, int MR>
__attribute__((noinline)) void tile_blocks(const TileArgs& args) {
#pragma GCC unroll 1
  for (int half = 0; half < 2; ++half) half_tile<T, MR>(args, half, half == 0 ? args.ahead : nullptr);
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

}  // namespace corral::neon
