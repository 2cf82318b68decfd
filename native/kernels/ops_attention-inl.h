// Paged attention over 16-lane vectors: tokens of a K page are lanes, so a page gives 16 scores without a horizontal
// sum. Compiled once per ISA, after ops-inl.h. Every float is summed in an order fixed by absolute positions.

namespace corral {
namespace {

inline const uint16_t* k_page(const AttentionTile& tile, int64_t page) {
  return reinterpret_cast<const uint16_t*>(tile.pages + tile.block_table[page] * tile.block_bytes);
}

void store_kv(const float* k, const float* v, int64_t head_dim, int64_t padded_dim, int64_t slot, uint8_t* pages) {
  uint16_t* k_out = reinterpret_cast<uint16_t*>(pages) + slot;
  uint16_t* v_out = reinterpret_cast<uint16_t*>(pages) + padded_dim * kBlockTokens + slot * padded_dim;
  const Vec largest = set1(65504.0F);
  const Vec lowest = set1(-65504.0F);
  for_lanes(head_dim, [&](int64_t i, int64_t count) {
    alignas(32) uint16_t column[kLanes];
    store_half(column, smaller_of(largest, greater_of(lowest, load_some(k + i, count, 0.0F))));
    for (int64_t j = 0; j < count; ++j) k_out[(i + j) * kBlockTokens] = column[j];
    store_half(v_out + i, smaller_of(largest, greater_of(lowest, load_some(v + i, count, 0.0F))));
  });
}

// Scores of Rows query rows against Pages pages, d ascending.
template <int Rows, int Pages>
inline void score_pages(const AttentionTile& tile, int64_t row, int64_t page, float* scores) {
  const uint16_t* keys[Pages];
  Vec acc[Rows][Pages];
  for (int p = 0; p < Pages; ++p) keys[p] = k_page(tile, page + p);
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Pages; ++p) acc[r][p] = set1(0.0F);
  }
  const float* const* queries = tile.queries + row;
  for (int64_t d = 0; d < tile.head_dim; ++d) {
    Vec k[Pages];
#pragma GCC unroll 8
    for (int p = 0; p < Pages; ++p) k[p] = load_half(keys[p] + d * kBlockTokens);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec q = set1(queries[r][d]);
#pragma GCC unroll 8
      for (int p = 0; p < Pages; ++p) acc[r][p] = fma(q, k[p], acc[r][p]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int p = 0; p < Pages; ++p) store(scores + r * kChunkKeys + p * kBlockTokens, acc[r][p]);
  }
}

template <int Rows>
void score_rows(const AttentionTile& tile, int64_t row, int64_t page_begin, int64_t page_end, float* scores) {
  int64_t page = page_begin;
  for (; page + kScorePages <= page_end; page += kScorePages) {
    score_pages<Rows, kScorePages>(tile, row, page, scores + (page - page_begin) * kBlockTokens);
  }
  for (; page < page_end; ++page) {
    score_pages<Rows, 1>(tile, row, page, scores + (page - page_begin) * kBlockTokens);
  }
}

// Instantiates a kernel for 1..Rows rows and calls the one for `rows`.
template <int Rows>
void score_some_rows(int64_t rows, const AttentionTile& tile, int64_t row, int64_t page_begin, int64_t page_end,
                     float* scores) {
  if (rows == Rows) {
    score_rows<Rows>(tile, row, page_begin, page_end, scores);
  } else if constexpr (Rows > 1) {
    score_some_rows<Rows - 1>(rows, tile, row, page_begin, page_end, scores);
  }
}

// Soft cap, mask outside [begin, end) and softmax of one row: `p` holds `count` scores, then weights.
// The sum runs by lane, so its order follows absolute positions (page_begin is a multiple of 16).
void soften_row(float* p, int64_t count, int64_t begin, int64_t end, float cap, float* max_out, float* sum_out) {
  if (cap > 0.0F) softcap(p, cap, count);
  for (int64_t j = 0; j < count && j < begin; ++j) p[j] = -kInfinity;
  for (int64_t j = end > 0 ? end : 0; j < count; ++j) p[j] = -kInfinity;
  Vec greatest = set1(-kInfinity);
  for (int64_t j = 0; j < count; j += kLanes) greatest = greater_of(greatest, load(p + j));
  const float max = reduce_max(greatest);
  Vec sum = set1(0.0F);
  if (max == -kInfinity) {
    for (int64_t j = 0; j < count; j += kLanes) store(p + j, sum);
  } else {
    for (int64_t j = 0; j < count; j += kLanes) {
      const Vec weight = exp16(sub(load(p + j), set1(max)));
      sum = add(sum, weight);
      store(p + j, weight);
    }
  }
  *max_out = max;
  *sum_out = reduce_add(sum);
}

// acc[r][slice] = sum over keys of weight * value, keys ascending. `weights` begins at page_begin.
template <int Rows, int Slices>
void weigh_values(const AttentionTile& tile, const float* weights, int64_t page_begin, int64_t key_begin,
                  int64_t key_end, int64_t offset, float* out) {
  Vec acc[Rows][Slices];
  for (int r = 0; r < Rows; ++r) {
    for (int s = 0; s < Slices; ++s) acc[r][s] = set1(0.0F);
  }
  for (int64_t key = key_begin; key < key_end;) {
    const int64_t page = key / kBlockTokens;
    const int64_t page_stop = (page + 1) * kBlockTokens;
    const int64_t stop = page_stop < key_end ? page_stop : key_end;
    const uint16_t* values = k_page(tile, page) + tile.padded_dim * kBlockTokens + offset;
    const float* page_weights = weights + (page - page_begin) * kBlockTokens;
    for (int64_t slot = key % kBlockTokens; key < stop; ++slot, ++key) {
      Vec v[Slices];
#pragma GCC unroll 8
      for (int s = 0; s < Slices; ++s) v[s] = load_half(values + slot * tile.padded_dim + s * kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const Vec weight = set1(page_weights[r * kChunkKeys + slot]);
#pragma GCC unroll 8
        for (int s = 0; s < Slices; ++s) acc[r][s] = fma(weight, v[s], acc[r][s]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int s = 0; s < Slices; ++s) store(out + r * tile.padded_dim + offset + s * kLanes, acc[r][s]);
  }
}

template <int Rows>
void weigh_row_values(const AttentionTile& tile, const float* weights, int64_t page_begin, int64_t key_begin,
                      int64_t key_end, float* out) {
  int64_t offset = 0;
  for (; offset + kValueSlices * kLanes <= tile.padded_dim; offset += kValueSlices * kLanes) {
    weigh_values<Rows, kValueSlices>(tile, weights, page_begin, key_begin, key_end, offset, out);
  }
  for (; offset < tile.padded_dim; offset += kLanes) {
    weigh_values<Rows, 1>(tile, weights, page_begin, key_begin, key_end, offset, out);
  }
}

template <int Rows>
void weigh_some_rows(int64_t rows, const AttentionTile& tile, const float* weights, int64_t page_begin,
                     int64_t key_begin, int64_t key_end, float* out) {
  if (rows == Rows) {
    weigh_row_values<Rows>(tile, weights, page_begin, key_begin, key_end, out);
  } else if constexpr (Rows > 1) {
    weigh_some_rows<Rows - 1>(rows, tile, weights, page_begin, key_begin, key_end, out);
  }
}

void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, const AttentionState& out) {
  int64_t key_begin = chunk + kChunkKeys;
  int64_t key_end = chunk;
  for (int64_t r = 0; r < tile.num_rows; ++r) {  // keys of the chunk that any row sees
    if (tile.key_begin[r] < key_begin) key_begin = tile.key_begin[r];
    if (tile.key_end[r] > key_end) key_end = tile.key_end[r];
  }
  if (key_begin < chunk) key_begin = chunk;
  if (key_end > chunk + kChunkKeys) key_end = chunk + kChunkKeys;
  if (key_begin >= key_end) {
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      out.max[r] = -kInfinity;
      out.sum[r] = 0.0F;
    }
    return;
  }
  const int64_t page_begin = key_begin / kBlockTokens;
  const int64_t page_end = (key_end + kBlockTokens - 1) / kBlockTokens;
  for (int64_t r = 0; r < tile.num_rows; r += kScoreRows) {
    const int64_t rows = tile.num_rows - r < kScoreRows ? tile.num_rows - r : kScoreRows;
    score_some_rows<kScoreRows>(rows, tile, r, page_begin, page_end, scores + r * kChunkKeys);
  }
  const int64_t origin = page_begin * kBlockTokens;
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    soften_row(scores + r * kChunkKeys, (page_end - page_begin) * kBlockTokens, tile.key_begin[r] - origin,
               tile.key_end[r] - origin, tile.softcap, out.max + r, out.sum + r);
  }
  for (int64_t r = 0; r < tile.num_rows; r += kValueRows) {
    const int64_t rows = tile.num_rows - r < kValueRows ? tile.num_rows - r : kValueRows;
    weigh_some_rows<kValueRows>(rows, tile, scores + r * kChunkKeys, page_begin, key_begin, key_end,
                                out.acc + r * tile.padded_dim);
  }
}

void merge(const AttentionState& state, const AttentionState& part, int64_t num_rows, int64_t padded_dim) {
  for (int64_t r = 0; r < num_rows; ++r) {
    if (part.max[r] == -kInfinity) continue;
    float* acc = state.acc + r * padded_dim;
    const float* more = part.acc + r * padded_dim;
    if (state.max[r] == -kInfinity) {
      state.max[r] = part.max[r];
      state.sum[r] = part.sum[r];
      for (int64_t i = 0; i < padded_dim; i += kLanes) store(acc + i, load(more + i));
      continue;
    }
    const float max = state.max[r] > part.max[r] ? state.max[r] : part.max[r];
    const float old_weight = exp1(state.max[r] - max);
    const float new_weight = exp1(part.max[r] - max);
    state.max[r] = max;
    state.sum[r] = state.sum[r] * old_weight + part.sum[r] * new_weight;
    for (int64_t i = 0; i < padded_dim; i += kLanes) {
      store(acc + i, fma(load(acc + i), set1(old_weight), mul(load(more + i), set1(new_weight))));
    }
  }
}

}  // namespace
}  // namespace corral
