// The dot step of plain AVX2: vpmaddubsw into words. Included after matmul_avx2-inl.h, inside its namespace.

// vpmaddubsw takes unsigned x signed and saturates at 16 bits. Wide values (8-bit codes, codebooks) go in as
// |w| x (sign of w applied to q), at most 2 * 128 * 127 = 32512 a pair, and are widened at once.
template <TensorType T>
inline constexpr bool kSigned = kFormat<T>.codebook || kFormat<T>.low_bits == 8;

template <TensorType T>
inline constexpr int kLargestCode = kSigned<T> ? 128 : (1 << (kFormat<T>.low_bits + kFormat<T>.high_bits)) - 1;

// Products of so many k-quads may be summed in 16 bits: 8 for 2..4 bits, 4 for 5 bits, 2 for 6 bits, 1 for 8.
constexpr int safe_quads(int largest_code) {
  int quads = 1;
  while (quads < 8 && 2 * quads * 2 * largest_code * 127 <= 32767) quads *= 2;
  return quads;
}

template <TensorType T>
inline constexpr int kWordQuads = safe_quads(kLargestCode<T>);

// [8 columns][4 k] of k-quad B of a chunk: signed if kSigned<T>, else codes.
template <TensorType T, int B>
CORRAL_INLINE __m256i quad(const uint8_t* chunk) {
  const __m256i code = codes<T, B>(chunk);
  if constexpr (kFormat<T>.codebook) return _mm256_shuffle_epi8(load_codebook(), code);
  if constexpr (kFormat<T>.low_bits == 8) return _mm256_xor_si256(code, _mm256_set1_epi8(-128));
  return code;
}

// Products of 4 k per column as pairs of 16-bit words.
template <TensorType T>
CORRAL_INLINE __m256i multiply_quad(__m256i w, __m256i magnitude, __m256i q) {
  if constexpr (kSigned<T>) return _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(q, w));
  return _mm256_maddubs_epi16(w, q);
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
