// Paged attention over 16-lane vectors: tokens of a K page are lanes, so a page gives 16 scores without a horizontal
// sum. Compiled once per ISA, after ops_kv-inl.h. Every float is summed in an order fixed by absolute positions.

namespace corral {
namespace {

// Pages [begin, end) of one block table.
template <class Cells>
struct PageRun {
  const AttentionTile& tile;
  const int32_t* blocks;
  int64_t begin;
  int64_t end;
  static constexpr int64_t kAheadPages = 4 / sizeof(typename Cells::Element);  // that memory is asked for beforehand

  PagePair<Cells> pair(int64_t page) const { return {tile.pages + blocks[page] * tile.block_bytes, tile.padded_dim}; }
  // What is read kAheadPages after the keys, or the values, of `page`: keys of the run, then its values.
  const uint8_t* after_keys(int64_t page) const {
    const int64_t ahead = page + kAheadPages;
    if (ahead < end) return pair(ahead).memory;
    const int64_t value_page = begin + ahead - end;
    return value_page < end ? pair(value_page).value_memory() : pair(page).memory;
  }
  const uint8_t* after_values(int64_t page) const {
    const int64_t ahead = page + kAheadPages;
    return pair(ahead < end ? ahead : page).value_memory();
  }
};

inline void fetch_ahead(const uint8_t* memory, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(memory + i, 0, 2);
}

// Scores of Rows query rows against Pages pages, d ascending. With `first`, it also asks for later pages.
template <class Cells, int Rows, int Pages>
inline void score_pages(const PageRun<Cells>& run, int64_t row, int64_t page, bool first, float* scores) {
  constexpr int64_t kStep = 8;  // d between two requests for memory
  const typename Cells::Element* keys[Pages];
  const uint8_t* ahead[Pages];
#pragma GCC unroll 8
  for (int p = 0; p < Pages; ++p) {
    keys[p] = run.pair(page + p).keys();
    ahead[p] = run.after_keys(page + p);
  }
  if (Cells::kScaled && first) {
    for (int p = 0; p < Pages; ++p) fetch_ahead(ahead[p] + run.pair(page).page_bytes(), run.pair(page).scale_bytes());
  }
  const float* const* queries = run.tile.queries + row;
  const int64_t head_dim = run.tile.head_dim;
  const int64_t part_dims = Cells::kScaled ? kScaleDims : head_dim;  // summed before they are scaled
  for (int64_t part = 0; part < head_dim; part += part_dims) {
    Vec acc[Rows][Pages];
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
      for (int p = 0; p < Pages; ++p) acc[r][p] = set1(0.0F);
    }
    const int64_t part_end = part + part_dims < head_dim ? part + part_dims : head_dim;
    for (int64_t step = part; step < part_end; step += kStep) {
      constexpr int64_t kStepBytes = kStep * kBlockTokens * static_cast<int64_t>(sizeof(typename Cells::Element));
      for (int p = 0; first && p < Pages; ++p) fetch_ahead(ahead[p] + step / kStep * kStepBytes, kStepBytes);
      const int64_t stop = step + kStep < part_end ? step + kStep : part_end;
      for (int64_t d = step; d < stop; ++d) {
        Vec k[Pages];
#pragma GCC unroll 8
        for (int p = 0; p < Pages; ++p) k[p] = Cells::load(keys[p] + d * kBlockTokens);
#pragma GCC unroll 8
        for (int r = 0; r < Rows; ++r) {
          const Vec q = set1(queries[r][d]);
#pragma GCC unroll 8
          for (int p = 0; p < Pages; ++p) acc[r][p] = fma(q, k[p], acc[r][p]);
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < Pages; ++p) {
      const Vec scale = Cells::kScaled ? load_half(run.pair(page + p).key_scales(part)) : set1(1.0F);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        float* out = scores + r * kChunkKeys + p * kBlockTokens;
        Vec score = acc[r][p];
        if constexpr (Cells::kScaled) score = part == 0 ? mul(score, scale) : fma(score, scale, load(out));
        store(out, score);
      }
    }
  }
}

template <int Rows>
struct RowCount {
  static constexpr int value = Rows;
};
template <int Most, class Body>
inline void with_row_count(int64_t rows, Body& body, int64_t row) {
  if (rows == Most) {
    body(RowCount<Most>(), row);
  } else if constexpr (Most > 1) {
    with_row_count<Most - 1>(rows, body, row);
  }
}
// Calls body(RowCount, first row) for parts of the rows, nearly equal in size, of Most rows or fewer.
template <int Most, class Body>
inline void for_row_parts(int64_t row_begin, int64_t row_end, Body body) {
  int64_t parts = (row_end - row_begin + Most - 1) / Most;
  for (int64_t row = row_begin; row < row_end; --parts) {
    const int64_t rows = (row_end - row + parts - 1) / parts;
    with_row_count<Most>(rows, body, row);
    row += rows;
  }
}

// `scores` of row 0; column 0 is page `origin`.
template <class Cells>
void score_run(const PageRun<Cells>& run, int64_t row_begin, int64_t row_end, int64_t origin, float* scores) {
  for_row_parts<kScoreRows>(row_begin, row_end, [&](auto count, int64_t row) {
    constexpr int kRows = decltype(count)::value;
    const bool first = row == row_begin;
    float* out = scores + row * kChunkKeys;
    int64_t page = run.begin;
    for (; page + kScorePages <= run.end; page += kScorePages) {
      score_pages<Cells, kRows, kScorePages>(run, row, page, first, out + (page - origin) * kBlockTokens);
    }
    for (; page < run.end; ++page) {
      score_pages<Cells, kRows, 1>(run, row, page, first, out + (page - origin) * kBlockTokens);
    }
  });
}

// Soft cap, mask outside [begin, end) and softmax of one row: `p` holds `count` scores, then weights.
// The sum runs by lane, so its order follows absolute positions (column 0 is a multiple of 16).
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

// acc[r][slice] (+)= sum over keys of weight * value, keys ascending; `more` goes on from what `out` holds.
// `weights` of page `origin` on.
template <class Cells, int Rows, int Slices>
void weigh_values(const PageRun<Cells>& run, const float* weights, int64_t origin, int64_t key_begin, int64_t key_end,
                  int64_t offset, bool more, bool first, float* out) {
  const int64_t padded_dim = run.tile.padded_dim;
  constexpr int64_t kElementBytes = sizeof(typename Cells::Element);
  Vec acc[Rows][Slices];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int s = 0; s < Slices; ++s) {
      acc[r][s] = more ? load(out + r * padded_dim + offset + s * kLanes) : set1(0.0F);
    }
  }
  for (int64_t key = key_begin; key < key_end;) {
    const int64_t page = key / kBlockTokens;
    const int64_t page_stop = (page + 1) * kBlockTokens;
    const int64_t stop = page_stop < key_end ? page_stop : key_end;
    const typename Cells::Element* values = run.pair(page).values() + offset;
    const uint8_t* ahead = run.after_values(page);
    const float* page_weights = weights + (page - origin) * kBlockTokens;
    [[maybe_unused]] float scales[Slices][kBlockTokens];
    if constexpr (Cells::kScaled) {
      for (int s = 0; s < Slices; ++s) store(scales[s], load_half(run.pair(page).value_scales(offset + s * kLanes)));
      if (first) fetch_ahead(ahead + run.pair(page).page_bytes(), run.pair(page).scale_bytes());
    }
    for (int64_t slot = key % kBlockTokens; key < stop; ++slot, ++key) {
      if (first) fetch_ahead(ahead + slot * padded_dim * kElementBytes, padded_dim * kElementBytes);
      Vec v[Slices];
#pragma GCC unroll 8
      for (int s = 0; s < Slices; ++s) {
        v[s] = Cells::load(values + slot * padded_dim + s * kLanes);
        if constexpr (Cells::kScaled) v[s] = mul(v[s], set1(scales[s][slot]));
      }
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const Vec weight = set1(page_weights[r * kChunkKeys + slot]);
#pragma GCC unroll 8
        for (int s = 0; s < Slices; ++s) acc[r][s] = fma(weight, v[s], acc[r][s]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int s = 0; s < Slices; ++s) store(out + r * padded_dim + offset + s * kLanes, acc[r][s]);
  }
}

// `weights` and `out` of row 0.
template <class Cells>
void weigh_run(const PageRun<Cells>& run, int64_t row_begin, int64_t row_end, int64_t origin, int64_t key_begin,
               int64_t key_end, bool more, const float* weights, float* out) {
  const int64_t padded_dim = run.tile.padded_dim;
  for_row_parts<kValueRows>(row_begin, row_end, [&](auto count, int64_t row) {
    constexpr int kRows = decltype(count)::value;
    const float* row_weights = weights + row * kChunkKeys;
    float* row_out = out + row * padded_dim;
    int64_t offset = 0;
    for (; offset + kValueSlices * kLanes <= padded_dim; offset += kValueSlices * kLanes) {
      weigh_values<Cells, kRows, kValueSlices>(run, row_weights, origin, key_begin, key_end, offset, more,
                                               row == row_begin && offset == 0, row_out);
    }
    for (; offset < padded_dim; offset += kLanes) {
      weigh_values<Cells, kRows, 1>(run, row_weights, origin, key_begin, key_end, offset, more,
                                    row == row_begin && offset == 0, row_out);
    }
  });
}

// Keys of [chunk, chunk + kChunkKeys) that any of some rows sees.
struct KeySpan {
  int64_t begin;
  int64_t end;
  int64_t page_end() const { return (end + kBlockTokens - 1) / kBlockTokens; }
};
inline KeySpan seen_keys(const AttentionTile& tile, int64_t chunk, int64_t row_begin, int64_t row_end) {
  KeySpan span{chunk + kChunkKeys, chunk};
  for (int64_t r = row_begin; r < row_end; ++r) {
    if (tile.key_begin[r] < span.begin) span.begin = tile.key_begin[r];
    if (tile.key_end[r] > span.end) span.end = tile.key_end[r];
  }
  if (span.begin < chunk) span.begin = chunk;
  if (span.end > chunk + kChunkKeys) span.end = chunk + kChunkKeys;
  return span;
}

// Calls body(row_begin, row_end) for the rows of each sequence.
template <class Body>
inline void for_sequences(const AttentionTile& tile, Body body) {
  for (int64_t begin = 0; begin < tile.num_rows;) {
    int64_t end = begin + 1;
    while (end < tile.num_rows && tile.block_tables[end] == tile.block_tables[begin]) ++end;
    body(begin, end);
    begin = end;
  }
}

// First the pages that are the same blocks for all rows, then those that each sequence has for itself: a row's scores,
// softmax and sums come out as they would alone.
template <class Cells>
void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, const AttentionState& out) {
  const KeySpan seen = seen_keys(tile, chunk, 0, tile.num_rows);
  if (seen.begin >= seen.end) {
    for (int64_t r = 0; r < tile.num_rows; ++r) {
      out.max[r] = -kInfinity;
      out.sum[r] = 0.0F;
    }
    return;
  }
  const int64_t origin = seen.begin / kBlockTokens;
  int64_t common_end = tile.common_pages < seen.page_end() ? tile.common_pages : seen.page_end();
  if (common_end < origin) common_end = origin;
  const PageRun<Cells> common{tile, tile.block_tables[0], origin, common_end};
  score_run(common, 0, tile.num_rows, origin, scores);
  for_sequences(tile, [&](int64_t row_begin, int64_t row_end) {
    const KeySpan span = seen_keys(tile, chunk, row_begin, row_end);
    const PageRun<Cells> own{tile, tile.block_tables[row_begin], common_end,
                             span.page_end() > common_end ? span.page_end() : common_end};
    score_run(own, row_begin, row_end, origin, scores);
    for (int64_t r = row_begin; r < row_end; ++r) {
      soften_row(scores + r * kChunkKeys, (own.end - origin) * kBlockTokens, tile.key_begin[r] - origin * kBlockTokens,
                 tile.key_end[r] - origin * kBlockTokens, tile.softcap, out.max + r, out.sum + r);
    }
  });
  const int64_t common_keys = common_end * kBlockTokens;
  weigh_run(common, 0, tile.num_rows, origin, seen.begin, common_keys < seen.end ? common_keys : seen.end, false,
            scores, out.acc);
  if (common_keys >= seen.end) return;
  for_sequences(tile, [&](int64_t row_begin, int64_t row_end) {
    const KeySpan span = seen_keys(tile, chunk, row_begin, row_end);
    const PageRun<Cells> own{tile, tile.block_tables[row_begin], common_end, span.page_end()};
    const int64_t first_key = span.begin > common_keys ? span.begin : common_keys;
    weigh_run(own, row_begin, row_end, origin, first_key, span.end, true, scores, out.acc);
  });
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
