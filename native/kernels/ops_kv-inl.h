// How keys and values lie in their pages, as f16 or int8, and the kernels that write them. Compiled once per ISA, after
// ops-inl.h.

namespace corral {
namespace {

constexpr float kLargestHalf = 65504.0F;

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
  int64_t scale_bytes() const {
    return Cells::kScaled ? num_scales(padded_dim) * kBlockTokens * static_cast<int64_t>(sizeof(uint16_t)) : 0;
  }
  const uint8_t* value_memory() const { return memory + page_bytes() + scale_bytes(); }
  const typename Cells::Element* keys() const { return reinterpret_cast<const typename Cells::Element*>(memory); }
  const typename Cells::Element* values() const {
    return reinterpret_cast<const typename Cells::Element*>(value_memory());
  }
  // f16 of 16 tokens, of the block of kScaleDims values that holds value d.
  const uint16_t* key_scales(int64_t d) const { return scales(memory + page_bytes(), d); }
  const uint16_t* value_scales(int64_t d) const { return scales(value_memory() + page_bytes(), d); }
  static const uint16_t* scales(const uint8_t* first, int64_t d) {
    return reinterpret_cast<const uint16_t*>(first) + d / kScaleDims * kBlockTokens;
  }
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

// One token's values in blocks of kScaleDims: the greatest magnitude of a block becomes 127. A block with a NaN gets a
// scale of NaN. `put(i, count, bytes)` takes up to 16 values from i on.
template <class Put>
inline void quantize_blocks(const float* x, int64_t head_dim, uint16_t* scales, Put put) {
  const Vec zero = set1(0.0F);
  for (int64_t begin = 0; begin < head_dim; begin += kScaleDims) {
    const int64_t n = head_dim - begin < kScaleDims ? head_dim - begin : kScaleDims;
    Vec greatest = zero;
    uint32_t has_nan = 0;
    for_lanes(n, [&](int64_t i, int64_t count) {
      const Vec value = bounded(x + begin + i, count);
      has_nan |= nan_mask(value);
      greatest = greater_of(greatest, greater_of(value, sub(zero, value)));
    });
    alignas(32) uint16_t rounded[kLanes];
    store_half(rounded, set1(has_nan != 0 ? __builtin_nanf("") : reduce_max(greatest) / 127.0F));
    scales[begin / kScaleDims * kBlockTokens] = rounded[0];
    const float scale = first(load_half(rounded));
    const bool is_zero = !(scale > 0.0F);  // or NaN
    for_lanes(n, [&](int64_t i, int64_t count) {
      // The rounded scale may be too small by a little, or by much where it is subnormal.
      const Vec whole = is_zero ? zero : div(bounded(x + begin + i, count), set1(scale));
      alignas(16) int8_t bytes[kLanes];
      store_bytes(bytes, smaller_of(set1(127.0F), greater_of(set1(-127.0F), whole)));
      put(begin + i, count, bytes);
    });
  }
}

void store_kv_int8(const float* k, const float* v, int64_t head_dim, int64_t padded_dim, int64_t slot, uint8_t* pages) {
  const PagePair<ByteCells> pair{pages, padded_dim};
  uint8_t* v_pages = pages + (pair.value_memory() - pages);
  int8_t* k_out = reinterpret_cast<int8_t*>(pages) + slot;
  int8_t* v_out = reinterpret_cast<int8_t*>(v_pages) + slot * padded_dim;
  uint16_t* k_scales = reinterpret_cast<uint16_t*>(pages + pair.page_bytes()) + slot;
  uint16_t* v_scales = reinterpret_cast<uint16_t*>(v_pages + pair.page_bytes()) + slot;
  quantize_blocks(k, head_dim, k_scales, [&](int64_t i, int64_t count, const int8_t* bytes) {
    for (int64_t j = 0; j < count; ++j) k_out[(i + j) * kBlockTokens] = bytes[j];
  });
  quantize_blocks(v, head_dim, v_scales, [&](int64_t i, int64_t, const int8_t* bytes) {
    for (int64_t j = 0; j < kLanes; ++j) v_out[i + j] = bytes[j];
  });
}

}  // namespace
}  // namespace corral
