// Unpacking of codes with NEON. Included inside an anonymous namespace, like matmul_driver-inl.h.
// A tile is computed as two halves of 8 columns: 32 registers hold the sums of 4 rows and what they need.

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

// 8 columns.
struct Floats {
  float32x4_t lo, hi;
};
struct Ints {
  int32x4_t lo, hi;
};
struct Quads {  // 4 k each
  int8x16_t lo, hi;
};

CORRAL_INLINE Floats load_floats(const float* p) { return {vld1q_f32(p), vld1q_f32(p + 4)}; }
CORRAL_INLINE void store_floats(float* p, Floats a) {
  vst1q_f32(p, a.lo);
  vst1q_f32(p + 4, a.hi);
}
CORRAL_INLINE Floats load_halves(const uint8_t* p) {
  const float16x8_t halves = vreinterpretq_f16_u8(vld1q_u8(p));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}
CORRAL_INLINE Floats to_floats(Ints a) { return {vcvtq_f32_s32(a.lo), vcvtq_f32_s32(a.hi)}; }
CORRAL_INLINE Floats add(Floats a, Floats b) { return {vaddq_f32(a.lo, b.lo), vaddq_f32(a.hi, b.hi)}; }
CORRAL_INLINE Floats multiply(Floats a, Floats b) { return {vmulq_f32(a.lo, b.lo), vmulq_f32(a.hi, b.hi)}; }
// sum + a * b and sum - a * b, rounded once.
CORRAL_INLINE Floats add_product(Floats sum, Floats a, float b) {
  const float32x4_t factor = vdupq_n_f32(b);
  return {vfmaq_f32(sum.lo, a.lo, factor), vfmaq_f32(sum.hi, a.hi, factor)};
}
CORRAL_INLINE Floats subtract_product(Floats sum, Floats a, Floats b) {
  return {vfmsq_f32(sum.lo, a.lo, b.lo), vfmsq_f32(sum.hi, a.hi, b.hi)};
}
CORRAL_INLINE Ints broadcast(int32_t x) { return {vdupq_n_s32(x), vdupq_n_s32(x)}; }

template <TensorType T>
inline constexpr TileFormat kFormat = tile_format(T);

template <TensorType T>
inline constexpr int kChunkBytes = kFormat<T>.chunk_bytes();

// sdot takes signed x signed: codes below 128 as they are, their offset by the seed of the sum; 8-bit codes as
// code - 128 and codebooks as their values, with no offset left.
template <TensorType T>
inline constexpr int kOffset = kFormat<T>.codebook || kFormat<T>.low_bits == 8 ? 0 : kFormat<T>.offset;

// Shift of bytes: right for a positive count, left for a negative one.
template <int Count>
CORRAL_INLINE uint8x16_t shift_right(uint8x16_t v) {
  if constexpr (Count > 0) {
    return vshrq_n_u8(v, Count);
  } else if constexpr (Count < 0) {
    return vshlq_n_u8(v, -Count);
  } else {
    return v;
  }
}

// [4 columns][4 k] of k-quad B of a chunk; `chunk` points at the first of the columns.
template <TensorType T, int B>
CORRAL_INLINE int8x16_t four_columns(const uint8_t* chunk) {
  constexpr TileFormat f = kFormat<T>;
  constexpr int vector = f.low_bits == 8 ? B : f.low_bits == 4 ? B % 4 : B / 4;
  constexpr int shift = f.low_bits == 8 ? 0 : f.low_bits == 4 ? B / 4 * 4 : B % 4 * 2;
  const uint8x16_t raw = vld1q_u8(chunk + 64 * (f.high_bits + vector));
  if constexpr (f.low_bits == 8) return vreinterpretq_s8_u8(veorq_u8(raw, vdupq_n_u8(128)));
  const uint8x16_t low = vandq_u8(shift_right<shift>(raw), vdupq_n_u8((1 << f.low_bits) - 1));
  if constexpr (f.codebook) return vqtbl1q_s8(vld1q_s8(kCodebook), low);
  if constexpr (f.high_bits > 0) {
    constexpr int high_vector = f.high_bits == 2 ? B / 4 : 0;
    constexpr int high_shift = (f.high_bits == 2 ? B % 4 * 2 : B) - f.low_bits;
    const uint8x16_t high = shift_right<high_shift>(vld1q_u8(chunk + 64 * high_vector));
    const uint8x16_t mask = vdupq_n_u8(((1 << f.high_bits) - 1) << f.low_bits);
    return vreinterpretq_s8_u8(vorrq_u8(low, vandq_u8(high, mask)));
  }
  return vreinterpretq_s8_u8(low);
}

// [8 columns][4 k] of k-quad B of a chunk; `chunk` points at the half's first column.
template <TensorType T, int B>
CORRAL_INLINE Quads quad(const uint8_t* chunk) {
  return {four_columns<T, B>(chunk), four_columns<T, B>(chunk + 16)};
}

// sub[r] += sum over k-quads [First, First + 4) of a chunk of weights * q, for MR rows. `q` points at the chunk's
// first k.
template <TensorType T, int MR, int First>
CORRAL_INLINE void dot_sixteen(const uint8_t* chunk, const int8_t* q, Ints* sub) {
  int8x16_t x[MR];
  each<MR>([&](auto r) { x[r.value] = vld1q_s8(q + r.value * kTileK + 4 * First); });
  each<4>([&](auto i) __attribute__((always_inline)) {
    constexpr int lane = decltype(i)::value;
    const Quads w = quad<T, First + lane>(chunk);
    each<MR>([&](auto r) __attribute__((always_inline)) {
      constexpr int row = decltype(r)::value;
      sub[row].lo = vdotq_laneq_s32(sub[row].lo, w.lo, x[row], lane);
      sub[row].hi = vdotq_laneq_s32(sub[row].hi, w.hi, x[row], lane);
    });
  });
}

template <int Lines>
CORRAL_INLINE void prefetch_lines(const uint8_t* p) {
  each<Lines>([&](auto i) __attribute__((always_inline)) { __builtin_prefetch(p + 64 * decltype(i)::value); });
}
