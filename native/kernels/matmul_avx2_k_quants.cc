// AVX2 kernels of the types with integer scales under one f16 scale per 256: Q2_K .. Q6_K, IQ4_XS.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_avx2.h"
#include "quant/tile_format.h"

namespace corral::avx2 {
namespace {

#include "kernels/matmul_avx2-inl.h"
#include "kernels/matmul_driver-inl.h"

constexpr int kMaxRows = 4;

template <TensorType T>
inline constexpr bool kPairedScales = kFormat<T>.has_min && kFormat<T>.sub_size == 16;

CORRAL_INLINE __m256i load_bytes_as_words(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Both words of each dword become the low one.
CORRAL_INLINE __m256i repeat_low_word(__m256i v) {
  return _mm256_or_si256(_mm256_and_si256(v, _mm256_set1_epi32(0xFFFF)), _mm256_slli_epi32(v, 16));
}

// Integer scales of sub-block `Half` of chunk p for 8 columns, each as two equal words.
template <TensorType T, int Half>
CORRAL_INLINE __m256i sub_scales(const uint8_t* tile, int half, int p) {
  constexpr int kHalves = kChunkK / kFormat<T>.sub_size;
  if constexpr (kPairedScales<T>) {
    const __m256i pairs = load_bytes_as_words(tile + kTileHeaderD + 32 * p + 16 * half);
    const __m256i low = Half == 0 ? pairs : _mm256_srli_epi32(pairs, 16);
    return repeat_low_word(_mm256_and_si256(low, _mm256_set1_epi32(0xF)));
  } else {
    const uint8_t* scales = tile + kTileHeaderD + 16 * (p * kHalves + Half) + 8 * half;
    return repeat_low_word(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales))));
  }
}

// Word pairs of the mins of sub-blocks 2p and 2p + 1 for 8 columns.
template <TensorType T>
CORRAL_INLINE __m256i min_pairs(const uint8_t* tile, int half, int p) {
  if constexpr (kPairedScales<T>) {
    return _mm256_srli_epi16(load_bytes_as_words(tile + kTileHeaderD + 32 * p + 16 * half), 4);
  }
  return load_bytes_as_words(tile + kTileHeaderD + 128 + 32 * p + 16 * half);
}

// scaled[r] += scale * (codes . q - offset * sum q) of sub-block `Half` of chunk p.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void add_sub_block(const TileArgs& args, const uint8_t* chunk, int half, int p, __m256i* scaled) {
  constexpr int kQuads = kFormat<T>.sub_size / 4;
  constexpr int kStep = kWordQuads<T> < kQuads ? kWordQuads<T> : kQuads;
  static_assert(kStep == kWordQuads<T> || kFormat<T>.sub_size == 16);
  const __m256i scale = sub_scales<T, Half>(args.tile, half, p);
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

// t = scaled * d (- mins * dmin), c += t * scale.
template <TensorType T, int MR>
CORRAL_INLINE void add_half_tile(const TileArgs& args, int half, const __m256i* scaled) {
  constexpr TileFormat f = kFormat<T>;
  __m256i mins[MR];
  if constexpr (f.has_min) {
    each<MR>([&](auto r) { mins[r.value] = _mm256_setzero_si256(); });
    each<kTileK / f.sub_size / 2>([&](auto p) {
      const __m256i pairs = min_pairs<T>(args.tile, half, p.value);
      each<MR>([&](auto r) {
        const ActGroups256& groups = args.groups256[r.value];
        const int16_t* sums = (f.sub_size == 16 ? groups.sum16 : groups.sum32) + 2 * p.value;
        mins[r.value] = pinned(_mm256_add_epi32(mins[r.value], _mm256_madd_epi16(pairs, broadcast4(sums))));
      });
    });
  }
  const __m256 d = load_halves(args.tile + 16 * half);
  const __m256 dmin = f.has_min ? load_halves(args.tile + 32 + 16 * half) : d;
  each<MR>([&](auto r) {
    float* c = args.c + r.value * kTileColumns + 8 * half;
    __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(scaled[r.value]), d);
    if constexpr (f.has_min) t = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(mins[r.value]), dmin, t);
    _mm256_storeu_ps(c, _mm256_fmadd_ps(t, _mm256_set1_ps(args.groups256[r.value].scale), _mm256_loadu_ps(c)));
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
  __m256i scaled[MR];
  each<MR>([&](auto r) { scaled[r.value] = _mm256_setzero_si256(); });
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

template <TensorType T, class Rows>
struct Tiles;
template <TensorType T, int... R>
struct Tiles<T, std::integer_sequence<int, R...>> {
  static constexpr TileFn fns[] = {nullptr, tile_k_quant<T, R + 1>...};
};

template <TensorType T>
TileKernels kernels_of() {
  constexpr int64_t kBytes = kFormat<T>.tile_bytes(8);
  return {Tiles<T, std::make_integer_sequence<int, kMaxRows>>::fns, kMaxRows, kBytes};
}

TileKernels kernels_for(TensorType type) {
  switch (type) {
    case TensorType::kQ2_K:
      return kernels_of<TensorType::kQ2_K>();
    case TensorType::kQ3_K:
      return kernels_of<TensorType::kQ3_K>();
    case TensorType::kQ4_K:
      return kernels_of<TensorType::kQ4_K>();
    case TensorType::kQ5_K:
      return kernels_of<TensorType::kQ5_K>();
    case TensorType::kQ6_K:
      return kernels_of<TensorType::kQ6_K>();
    default:
      return kernels_of<TensorType::kIQ4_XS>();
  }
}

}  // namespace

void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end) {
  run_matmul(kernels_for(w.type), w, act, y, ldy, group_begin, group_end);
}

}  // namespace corral::avx2
