// How keys and values lie in their pages, as f16 or int8, and the kernels that write them. Compiled once per ISA, after
// ops-inl.h.

namespace corral {
namespace {

constexpr float kLargestHalf = 65504.0F;
constexpr float kLeastInt8Peak = 1e-30F;  // below, a token's values count as zeros: 127 / peak stays finite

struct HalfCells {
  using Element = uint16_t;
  static constexpr bool kScaled = false;
  static Vec load(const Element* p) { return load_half(p); }
};

struct ByteCells {
  using Element = int8_t;
  static constexpr bool kScaled = true;
  static Vec load(const Element* p) { return load_bytes(p); }
};

// K and V page of one head in one block; see KvType.
template <class Cells>
struct PagePair {
  const uint8_t* memory;
  int64_t padded_dim;

  int64_t page_bytes() const {
    return padded_dim * kBlockTokens * static_cast<int64_t>(sizeof(typename Cells::Element));
  }
  const uint8_t* value_memory() const { return memory + page_bytes(); }
  const typename Cells::Element* keys() const { return reinterpret_cast<const typename Cells::Element*>(memory); }
  const typename Cells::Element* values() const {
    return reinterpret_cast<const typename Cells::Element*>(value_memory());
  }
  const float* key_scales() const { return reinterpret_cast<const float*>(memory + 2 * page_bytes()); }
  const float* value_scales() const { return key_scales() + kBlockTokens; }
};

// Values within the range of f16, in both forms of the cache.
inline Vec bounded(const float* x, int64_t count) {
  return smaller_of(set1(kLargestHalf), greater_of(set1(-kLargestHalf), load_some(x, count, 0.0F)));
}

void store_kv_half(const float* k, const float* v, int64_t head_dim, int64_t padded_dim, int64_t slot, uint8_t* pages) {
  uint16_t* k_out = reinterpret_cast<uint16_t*>(pages) + slot;
  uint16_t* v_out = reinterpret_cast<uint16_t*>(pages) + padded_dim * kBlockTokens + slot * padded_dim;
  for_lanes(head_dim, [&](int64_t i, int64_t count) {
    alignas(32) uint16_t column[kLanes];
    store_half(column, bounded(k + i, count));
    for (int64_t j = 0; j < count; ++j) k_out[(i + j) * kBlockTokens] = column[j];
    store_half(v_out + i, bounded(v + i, count));
  });
}

// Scale of one token's int8 values: the greatest magnitude becomes 127. NaN if any value is.
inline float int8_scale(const float* x, int64_t n, float* inverse) {
  Vec greatest = set1(0.0F);
  uint32_t has_nan = 0;
  for_lanes(n, [&](int64_t i, int64_t count) {
    const Vec value = bounded(x + i, count);
    has_nan |= nan_mask(value);
    greatest = greater_of(greatest, greater_of(value, sub(set1(0.0F), value)));
  });
  const float peak = reduce_max(greatest);
  *inverse = 0.0F;
  if (has_nan != 0) return __builtin_nanf("");
  if (peak < kLeastInt8Peak) return 0.0F;
  *inverse = 127.0F / peak;
  return peak / 127.0F;
}

void store_kv_int8(const float* k, const float* v, int64_t head_dim, int64_t padded_dim, int64_t slot, uint8_t* pages) {
  int8_t* k_out = reinterpret_cast<int8_t*>(pages) + slot;
  int8_t* v_out = reinterpret_cast<int8_t*>(pages) + padded_dim * kBlockTokens + slot * padded_dim;
  float* scales = reinterpret_cast<float*>(pages + 2 * padded_dim * kBlockTokens) + slot;
  float k_inverse;
  float v_inverse;
  scales[0] = int8_scale(k, head_dim, &k_inverse);
  scales[kBlockTokens] = int8_scale(v, head_dim, &v_inverse);
  const Vec zero = set1(0.0F);
  // With an inverse of 0 nothing is multiplied: NaN would stay NaN.
  const auto whole = [&](const float* x, int64_t count, float inverse) {
    return inverse == 0.0F ? zero : mul(bounded(x, count), set1(inverse));
  };
  for_lanes(head_dim, [&](int64_t i, int64_t count) {
    alignas(16) int8_t column[kLanes];
    store_bytes(column, whole(k + i, count, k_inverse));
    for (int64_t j = 0; j < count; ++j) k_out[(i + j) * kBlockTokens] = column[j];
    store_bytes(v_out + i, whole(v + i, count, v_inverse));
  });
}

}  // namespace
}  // namespace corral
