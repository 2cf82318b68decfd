// The dot step of AVX-VNNI: vpdpbusd into dwords. Included after matmul_avx2-inl.h, inside its namespace.

// Weights enter vpdpbusd unsigned, as code or as codebook value + 128; the seed takes the offset out again.
template <TensorType T>
inline constexpr int kOffset = kFormat<T>.codebook ? 128 : kFormat<T>.offset;

// [8 columns][4 k] of k-quad B of a chunk, unsigned.
template <TensorType T, int B>
CORRAL_INLINE __m256i quad(const uint8_t* chunk) {
  const __m256i code = codes<T, B>(chunk);
  if constexpr (kFormat<T>.codebook) {
    return _mm256_shuffle_epi8(_mm256_xor_si256(load_codebook(), _mm256_set1_epi8(-128)), code);
  }
  return code;
}

// The order of the k-quads of sub-block `Half`: both nibbles of a vector one after the other where a sub-block holds
// both.
template <TensorType T, int Half, int I>
inline constexpr int kQuad = kFormat<T>.sub_size == 16  ? 4 * Half + I
                             : kFormat<T>.low_bits == 4 ? I % 2 * 4 + I / 2
                                                        : I;

// sub[r] += sum over sub-block `Half` of a chunk of weights * q, for MR rows. `q` points at the chunk's first k.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void dot_sub_block(const uint8_t* chunk, const int8_t* q, __m256i* sub) {
  each<kFormat<T>.sub_size / 4>([&](auto i) __attribute__((always_inline)) {
    constexpr int b = kQuad<T, Half, decltype(i)::value>;
    const __m256i weights = quad<T, b>(chunk);
    each<MR>([&](auto r) __attribute__((always_inline)) {
      constexpr int row = decltype(r)::value;
      sub[row] = pinned(_mm256_dpbusd_avx_epi32(sub[row], weights, broadcast4(q + row * kTileK + 4 * b)));
    });
  });
}
