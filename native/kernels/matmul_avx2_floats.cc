// AVX2 kernels of F32, F16 and BF16 weights: exact widening, f32 fma.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx2.h"
#include "quant/tile_format.h"

namespace corral::avx2 {
namespace {

#include "kernels/matmul_avx2-inl.h"
#include "kernels/matmul_driver-inl.h"

constexpr int kMaxRows = 3;  // 4 chains each

template <TensorType T>
inline constexpr int kBytesPerK = T == TensorType::kF32 ? 64 : 32;

// 8 columns of weight k + J of a tile; `w` points at the half's first column of an even k.
template <TensorType T, int J>
CORRAL_INLINE __m256 load_weights(const uint8_t* w) {
  if constexpr (T == TensorType::kF32) {
    return _mm256_castsi256_ps(load32(w + 64 * J));
  } else if constexpr (T == TensorType::kF16) {
    return load_halves(w + 32 * J);
  } else {
    const __m256i pairs = load32(w + 64 * (J / 2));  // [8 columns][2 k]
    return _mm256_castsi256_ps(J % 2 == 0 ? _mm256_slli_epi32(pairs, 16)
                                          : _mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
  }
}

// Four chains of fma over k % 4, added up as (0 + 1) + (2 + 3), for 8 columns.
template <TensorType T, int MR>
CORRAL_INLINE void half_tile(const TileArgs& args, int half, const uint8_t* ahead) {
  const uint8_t* w = args.tile + half * (T == TensorType::kF16 ? 16 : 32);
  const float* x = args.x;
  const int64_t ldx = args.ldx;
  __m256 chain[4][MR];
  each<4>([&](auto j) { each<MR>([&](auto r) { chain[j.value][r.value] = _mm256_setzero_ps(); }); });
  const auto step = [&](auto j) __attribute__((always_inline)) {
    const __m256 weights = load_weights<T, j.value>(w);
    each<MR>([&](auto r) __attribute__((always_inline)) {
      __m256& sum = chain[j.value][r.value];
      sum = _mm256_fmadd_ps(weights, _mm256_set1_ps(x[r.value * ldx + j.value]), sum);
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
    const __m256 sum = _mm256_add_ps(_mm256_add_ps(chain[0][r.value], chain[1][r.value]),
                                     _mm256_add_ps(chain[2][r.value], chain[3][r.value]));
    float* c = args.c + r.value * kTileColumns + 8 * half;
    _mm256_storeu_ps(c, _mm256_add_ps(_mm256_loadu_ps(c), sum));
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

}  // namespace corral::avx2
