// Unpacking of codes with AVX2, for the kernels with and without VNNI. Included inside an anonymous namespace, like
// matmul_driver-inl.h.
// A tile is computed as two halves of 8 columns: one vector is [8 columns][4 k].

#define CORRAL_INLINE inline __attribute__((always_inline))

template <int N>
struct Index {
  static constexpr int value = N;
};

// Calls f(Index<0>{}), ..., f(Index<N - 1>{}): an unrolled loop whose counter is a constant.
template <class F, int... I>
CORRAL_INLINE void each(std::integer_sequence<int, I...>, F f) {
  (f(Index<I>{}), ...);
}
template <int N, class F>
CORRAL_INLINE void each(F f) {
  each(std::make_integer_sequence<int, N>{}, f);
}

template <TensorType T>
inline constexpr TileFormat kFormat = tile_format(T);

template <TensorType T>
inline constexpr int kChunkBytes = kFormat<T>.chunk_bytes();

constexpr int log2_of(int power_of_two) { return power_of_two <= 1 ? 0 : 1 + log2_of(power_of_two / 2); }

CORRAL_INLINE __m256i broadcast4(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm256_set1_epi32(word);
}

CORRAL_INLINE __m256i load32(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

// Shift of 16-bit words: right for a positive count, left for a negative one. Bits that cross into the neighbouring
// byte are masked off by the caller.
template <int Count>
CORRAL_INLINE __m256i shift_right(__m256i v) {
  if constexpr (Count > 0) {
    return _mm256_srli_epi16(v, Count);
  } else if constexpr (Count < 0) {
    return _mm256_slli_epi16(v, -Count);
  } else {
    return v;
  }
}

// Codes of [8 columns][4 k] of k-quad B of a chunk; `chunk` points at the half's first column.
template <TensorType T, int B>
CORRAL_INLINE __m256i codes(const uint8_t* chunk) {
  constexpr TileFormat f = kFormat<T>;
  constexpr int vector = f.low_bits == 8 ? B : f.low_bits == 4 ? B % 4 : B / 4;
  constexpr int shift = f.low_bits == 8 ? 0 : f.low_bits == 4 ? B / 4 * 4 : B % 4 * 2;
  const __m256i raw = load32(chunk + 64 * (f.high_bits + vector));
  if constexpr (f.low_bits == 8) return raw;
  const __m256i low =
      _mm256_and_si256(shift_right<shift>(raw), _mm256_set1_epi8(static_cast<char>((1 << f.low_bits) - 1)));
  if constexpr (f.high_bits > 0) {
    constexpr int high_vector = f.high_bits == 2 ? B / 4 : 0;
    constexpr int high_shift = (f.high_bits == 2 ? B % 4 * 2 : B) - f.low_bits;
    const __m256i high = shift_right<high_shift>(load32(chunk + 64 * high_vector));
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << f.high_bits) - 1) << f.low_bits));
    return _mm256_or_si256(low, _mm256_and_si256(high, mask));
  }
  return low;
}

CORRAL_INLINE __m256i load_codebook() {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook)));
}

// Stops the compiler from reordering a chain of integer sums, which would keep every product alive until the end.
CORRAL_INLINE __m256i pinned(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

template <TensorType T>
inline constexpr bool kPairedScales = kFormat<T>.has_min && kFormat<T>.sub_size == 16;

CORRAL_INLINE __m256i load_bytes_as_words(const uint8_t* p) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

// Integer scales of sub-block `Half` of chunk p for 8 columns, as dwords.
template <TensorType T, int Half>
CORRAL_INLINE __m256i sub_scales(const uint8_t* tile, int half, int p) {
  constexpr int kHalves = kChunkK / kFormat<T>.sub_size;
  if constexpr (kPairedScales<T>) {
    const __m256i pairs = load_bytes_as_words(tile + kTileHeaderD + 32 * p + 16 * half);
    return _mm256_and_si256(Half == 0 ? pairs : _mm256_srli_epi32(pairs, 16), _mm256_set1_epi32(0xF));
  } else {
    const uint8_t* scales = tile + kTileHeaderD + 16 * (p * kHalves + Half) + 8 * half;
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(scales)));
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

CORRAL_INLINE __m256 load_halves(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

template <int Lines>
CORRAL_INLINE void prefetch_lines(const uint8_t* p) {
  each<Lines>([&](auto i) __attribute__((always_inline)) {
    _mm_prefetch(reinterpret_cast<const char*>(p + 64 * decltype(i)::value), _MM_HINT_T0);
  });
}
