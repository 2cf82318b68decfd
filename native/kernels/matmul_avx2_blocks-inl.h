// Tiles of the 32-block types with AVX2. Included inside an anonymous namespace after the dot step of an ISA, which
// gives kMaxRows and dot_chunk<T, MR>(chunk, q, groups, s, sub): sub[r] = weights . q of chunk s, offset taken out.

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
  __m256 c[MR];
  each<MR>([&](auto r) { c[r.value] = _mm256_loadu_ps(out + r.value * kTileColumns); });
#pragma GCC unroll 1
  for (int s = 0; s < chunks; ++s) {
    if (MR >= kPrefetchRows && ahead) {
      prefetch_lines<(kChunkBytes<T> + kHeaderStride + 63) / 64>(ahead);
      ahead += kChunkBytes<T> + kHeaderStride;
    }
    __m256i sub[MR];
    dot_chunk<T, MR>(chunk, q, groups, s, sub);
    const __m256 d = load_halves(header);
    const __m256 m = f.has_min ? load_halves(header + 32) : d;
    each<MR>([&](auto r) {
      __m256 t = _mm256_mul_ps(_mm256_cvtepi32_ps(sub[r.value]), d);
      if constexpr (f.has_min) t = _mm256_fmadd_ps(m, _mm256_set1_ps(groups[r.value].sum[s]), t);
      c[r.value] = _mm256_fmadd_ps(t, _mm256_set1_ps(groups[r.value].scale[s]), c[r.value]);
    });
    header += kHeaderStride;
    chunk += kChunkBytes<T>;
    q += kChunkK;
  }
  each<MR>([&](auto r) { _mm256_storeu_ps(out + r.value * kTileColumns, c[r.value]); });
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
