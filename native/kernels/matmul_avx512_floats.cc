// AVX-512 kernels of F32, F16 and BF16 weights: exact widening, f32 fma.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx512.h"
#include "quant/tile_format.h"

namespace corral::avx512 {
namespace {

#include "kernels/matmul_avx512-inl.h"
#include "kernels/matmul_driver-inl.h"

constexpr int kMaxRows = 6;  // 4 chains each

template <TensorType T>
inline constexpr int kBytesPerK = T == TensorType::kF32 ? 64 : 32;

// The 16 columns of weight k + J of a tile; `w` points at an even k.
template <TensorType T, int J>
CORRAL_INLINE __m512 load_weights(const uint8_t* w) {
  if constexpr (T == TensorType::kF32) {
    return _mm512_loadu_ps(w + 64 * J);
  } else if constexpr (T == TensorType::kF16) {
    return load_halves(w + 32 * J);
  } else {
    const __m512i pairs = _mm512_loadu_si512(w + 64 * (J / 2));  // [16 columns][2 k]
    return _mm512_castsi512_ps(J % 2 == 0 ? _mm512_slli_epi32(pairs, 16)
                                          : _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
}

// Four chains of fma over k % 4, added up as (0 + 1) + (2 + 3).
template <TensorType T, int MR>
__attribute__((noinline)) void tile_floats(const TileArgs& args) {
  const uint8_t* w = args.tile;
  const uint8_t* ahead = args.ahead;
  const float* x = args.x;
  const int64_t ldx = args.ldx;
  __m512 chain[4][MR];
  each<4>([&](auto j) { each<MR>([&](auto r) { chain[j.value][r.value] = _mm512_setzero_ps(); }); });
  const auto step = [&](auto j) __attribute__((always_inline)) {
    const __m512 weights = load_weights<T, j.value>(w);
    each<MR>([&](auto r) __attribute__((always_inline)) {
      __m512& sum = chain[j.value][r.value];
      sum = _mm512_fmadd_ps(weights, _mm512_set1_ps(x[r.value * ldx + j.value]), sum);
    });
  };
  int k = 0;
  for (; k + 4 <= args.length; k += 4) {
    if (ahead) {
      prefetch_lines<kBytesPerK<T> / 16>(ahead, args.ahead_to_l2);
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
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(chain[0][r.value], chain[1][r.value]),
                                     _mm512_add_ps(chain[2][r.value], chain[3][r.value]));
    float* c = args.c + r.value * kTileColumns;
    _mm512_storeu_ps(c, _mm512_add_ps(_mm512_loadu_ps(c), sum));
  });
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

}  // namespace corral::avx512
