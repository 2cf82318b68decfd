// Unpacking of codes with AVX2. Included inside an anonymous namespace, like matmul_driver-inl.h.
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

// vpmaddubsw takes unsigned x signed and saturates at 16 bits. Wide values (8-bit codes, codebooks) go in as
// |w| x (sign of w applied to q), at most 2 * 128 * 127 = 32512 a pair, and are widened at once.
template <TensorType T>
inline constexpr bool kSigned = kFormat<T>.codebook || kFormat<T>.low_bits == 8;

template <TensorType T>
inline constexpr int kLargestCode = kSigned<T> ? 128 : (1 << (kFormat<T>.low_bits + kFormat<T>.high_bits)) - 1;

constexpr int log2_of(int power_of_two) { return power_of_two <= 1 ? 0 : 1 + log2_of(power_of_two / 2); }

// Products of so many k-quads may be summed in 16 bits: 8 for 2..4 bits, 4 for 5 bits, 2 for 6 bits, 1 for 8.
constexpr int safe_quads(int largest_code) {
  int quads = 1;
  while (quads < 8 && 2 * quads * 2 * largest_code * 127 <= 32767) quads *= 2;
  return quads;
}

template <TensorType T>
inline constexpr int kWordQuads = safe_quads(kLargestCode<T>);

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

// [8 columns][4 k] of k-quad B of a chunk; `chunk` points at the half's first column. Signed if kSigned<T>, else codes.
template <TensorType T, int B>
CORRAL_INLINE __m256i quad(const uint8_t* chunk) {
  constexpr TileFormat f = kFormat<T>;
  constexpr int vector = f.low_bits == 8 ? B : f.low_bits == 4 ? B % 4 : B / 4;
  constexpr int shift = f.low_bits == 8 ? 0 : f.low_bits == 4 ? B / 4 * 4 : B % 4 * 2;
  const __m256i raw = load32(chunk + 64 * (f.high_bits + vector));
  if constexpr (f.low_bits == 8) return _mm256_xor_si256(raw, _mm256_set1_epi8(-128));
  const __m256i low =
      _mm256_and_si256(shift_right<shift>(raw), _mm256_set1_epi8(static_cast<char>((1 << f.low_bits) - 1)));
  if constexpr (f.codebook) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), low);
  }
  if constexpr (f.high_bits > 0) {
    constexpr int high_vector = f.high_bits == 2 ? B / 4 : 0;
    constexpr int high_shift = (f.high_bits == 2 ? B % 4 * 2 : B) - f.low_bits;
    const __m256i high = shift_right<high_shift>(load32(chunk + 64 * high_vector));
    const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << f.high_bits) - 1) << f.low_bits));
    return _mm256_or_si256(low, _mm256_and_si256(high, mask));
  }
  return low;
}

// Products of 4 k per column as pairs of 16-bit words.
template <TensorType T>
CORRAL_INLINE __m256i multiply_quad(__m256i w, __m256i magnitude, __m256i q) {
  if constexpr (kSigned<T>) return _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(q, w));
  return _mm256_maddubs_epi16(w, q);
}

// Stops the compiler from reordering a chain of integer sums, which would keep every product alive until the end.
CORRAL_INLINE __m256i pinned(__m256i sum) {
  __asm__("" : "+x"(sum));
  return sum;
}

// Word sums of k-quads [First, First + Count) of a chunk, Count <= kWordQuads, for MR rows: sums[r] holds 8 columns x 2
// words.
template <TensorType T, int MR, int First, int Count>
CORRAL_INLINE void dot_words(const uint8_t* chunk, const int8_t* q, __m256i* sums) {
  each<Count>([&](auto i) __attribute__((always_inline)) {
    constexpr int b = First + decltype(i)::value;
    const __m256i w = quad<T, b>(chunk);
    const __m256i magnitude = kSigned<T> ? _mm256_abs_epi8(w) : w;
    each<MR>([&](auto r) __attribute__((always_inline)) {
      constexpr int row = decltype(r)::value;
      const __m256i products = multiply_quad<T>(w, magnitude, broadcast4(q + row * kTileK + 4 * b));
      sums[row] = pinned(decltype(i)::value == 0 ? products : _mm256_add_epi16(sums[row], products));
    });
  });
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
