// Tiles of the K-quants and IQ4_XS with AVX2. Included inside an anonymous namespace after the dot step of an ISA,
// which gives kMaxRows<T> and add_sub_block<T, MR, Half>(args, chunk, half, p, scaled): scaled[r] += scale * (weights
// . q) of sub-block `Half` of chunk p, offset taken out.

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

struct Family {
  template <TensorType T>
  static constexpr int kRows = kMaxRows<T>;
  template <TensorType T>
  static constexpr int64_t kTileBytes = kFormat<T>.tile_bytes(8);
  template <TensorType T, int MR>
  static constexpr TileFn tile = tile_k_quant<T, MR>;
};
