// Unpacking of codes with AVX-512. Included inside an anonymous namespace, like matmul_driver-inl.h.

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

// Weights enter vpdpbusd unsigned, as code or as codebook value + 128; the seed takes the offset out again.
template <TensorType T>
inline constexpr int kOffset = kFormat<T>.codebook ? 128 : kFormat<T>.offset;

constexpr int log2_of(int power_of_two) { return power_of_two <= 1 ? 0 : 1 + log2_of(power_of_two / 2); }

CORRAL_INLINE __m512i broadcast4(const void* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return _mm512_set1_epi32(word);
}

// Shift of 16-bit words: right for a positive count, left for a negative one. Bits that cross into the neighbouring
// byte are masked off by the caller.
template <int Count>
CORRAL_INLINE __m512i shift_right(__m512i v) {
  if constexpr (Count > 0) {
    return _mm512_srli_epi16(v, Count);
  } else if constexpr (Count < 0) {
    return _mm512_slli_epi16(v, -Count);
  } else {
    return v;
  }
}

// A constant that the compiler must keep in a register: it would load it again from memory at each use.
CORRAL_INLINE __m512i pinned(__m512i constant) {
  __asm__("" : "+v"(constant));
  return constant;
}

CORRAL_INLINE __m512i bit_mask(int bits) { return pinned(_mm512_set1_epi8(static_cast<char>((1 << bits) - 1))); }

CORRAL_INLINE __m512i unsigned_codebook() {
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kCodebook));
  return _mm512_broadcast_i32x4(_mm_xor_si128(values, _mm_set1_epi8(-128)));
}

// The constants that unpacking one type needs.
template <TensorType T>
struct Unpacker {
  __m512i low_mask;
  __m512i code_mask;
  __m512i table;

  // [16 columns][4 k] of k-quad B of a chunk.
  template <int B>
  CORRAL_INLINE __m512i quad(const uint8_t* chunk) const {
    constexpr TileFormat f = kFormat<T>;
    const uint8_t* low_plane = chunk + 64 * f.high_bits;
    constexpr int vector = f.low_bits == 8 ? B : f.low_bits == 4 ? B % 4 : B / 4;
    constexpr int shift = f.low_bits == 8 ? 0 : f.low_bits == 4 ? B / 4 * 4 : B % 4 * 2;
    const __m512i low = shift_right<shift>(_mm512_loadu_si512(low_plane + 64 * vector));
    if constexpr (f.high_bits > 0) {
      constexpr int high_vector = f.high_bits == 2 ? B / 4 : 0;
      constexpr int high_shift = (f.high_bits == 2 ? B % 4 * 2 : B) - f.low_bits;
      const __m512i high = shift_right<high_shift>(_mm512_loadu_si512(chunk + 64 * high_vector));
      constexpr int kSelect = 0xCA;  // mask ? low : high
      return _mm512_and_si512(_mm512_ternarylogic_epi32(low_mask, low, high, kSelect), code_mask);
    } else if constexpr (f.low_bits == 8) {
      return low;
    } else {
      const __m512i code = _mm512_and_si512(low, low_mask);
      if constexpr (f.codebook) return _mm512_shuffle_epi8(table, code);
      return code;
    }
  }
};

template <TensorType T>
CORRAL_INLINE Unpacker<T> make_unpacker() {
  constexpr TileFormat f = kFormat<T>;
  const __m512i unused = _mm512_setzero_si512();
  return {f.low_bits < 8 ? bit_mask(f.low_bits) : unused, f.high_bits > 0 ? bit_mask(f.low_bits + f.high_bits) : unused,
          f.codebook ? unsigned_codebook() : unused};
}

// The order of the k-quads of sub-block `Half`: both nibbles of a vector one after the other where a sub-block holds
// both.
template <TensorType T, int Half, int I>
inline constexpr int kQuad = kFormat<T>.sub_size == 16  ? 4 * Half + I
                             : kFormat<T>.low_bits == 4 ? I % 2 * 4 + I / 2
                                                        : I;

// sub[r] = seed + sum over sub-block `Half` of a chunk of codes * q, for MR rows. `q` points at the chunk's first k.
template <TensorType T, int MR, int Half>
CORRAL_INLINE void dot_sub_block(const Unpacker<T> unpacker, const uint8_t* chunk, const int8_t* q, __m512i* sub) {
  each<kFormat<T>.sub_size / 4>([&](auto i) __attribute__((always_inline)) {
    constexpr int b = kQuad<T, Half, decltype(i)::value>;
    const __m512i codes = unpacker.template quad<b>(chunk);
    each<MR>([&](auto r) __attribute__((always_inline)) {
      constexpr int row = decltype(r)::value;
      sub[row] = _mm512_dpbusd_epi32(sub[row], codes, broadcast4(q + row * kTileK + 4 * b));
    });
  });
}

CORRAL_INLINE __m512 load_halves(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

template <int Lines>
CORRAL_INLINE void prefetch_lines(const uint8_t* p, bool to_l2 = false) {
  if (to_l2) {
    each<Lines>([&](auto i) __attribute__((always_inline)) { _mm_prefetch(p + 64 * decltype(i)::value, _MM_HINT_T1); });
  } else {
    each<Lines>([&](auto i) __attribute__((always_inline)) { _mm_prefetch(p + 64 * decltype(i)::value, _MM_HINT_T0); });
  }
}

template <TensorType T>
inline constexpr bool kPairedScales = kFormat<T>.has_min && kFormat<T>.sub_size == 16;

CORRAL_INLINE __m512i load_bytes_as_words(const uint8_t* p) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// Integer scales of sub-block `Half` of chunk p for the 16 columns.
template <TensorType T, int Half>
CORRAL_INLINE __m512i sub_scales(const uint8_t* tile, int p) {
  constexpr int kHalves = kChunkK / kFormat<T>.sub_size;
  if constexpr (kPairedScales<T>) {
    const __m512i pairs = load_bytes_as_words(tile + kTileHeaderD + 32 * p);
    return _mm512_and_si512(Half == 0 ? pairs : _mm512_srli_epi32(pairs, 16), _mm512_set1_epi32(0xF));
  } else {
    const uint8_t* scales = tile + kTileHeaderD + 16 * (p * kHalves + Half);
    return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
  }
}

// Word pairs of the mins of sub-blocks 2p and 2p + 1, as vpdpwssd takes them.
template <TensorType T>
CORRAL_INLINE __m512i min_pairs(const uint8_t* tile, int p) {
  if constexpr (kPairedScales<T>) return _mm512_srli_epi16(load_bytes_as_words(tile + kTileHeaderD + 32 * p), 4);
  return load_bytes_as_words(tile + kTileHeaderD + 128 + 32 * p);
}
