// Walks a range of row groups of one matrix. Included by each ISA's translation units inside an anonymous namespace
// (no include guard, no include of its own), so that nothing here is shared between ISAs by the linker.

// One tile of weights (16 columns x up to 256 k) times `rows` rows of activations.
struct TileArgs {
  const uint8_t* tile;
  int length;                     // k in this tile
  const int8_t* q;                // [rows][256]
  const ActGroups32* groups32;    // [rows]
  const ActGroups256* groups256;  // [rows]
  const float* x;                 // float weights: [rows], stride ldx
  int64_t ldx;
  float* c;              // [rows][16], added to
  const uint8_t* ahead;  // what the tile should prefetch while it computes; null = nothing
  bool ahead_to_l2;      // prefetch into L2 only, else into L1
};

using TileFn = void (*)(const TileArgs& args);

// The kernels of one type for 1..max_rows rows, and how many bytes a full tile takes.
struct TileKernels {
  const TileFn* fns;  // [max_rows + 1], first unused
  int max_rows;
  int64_t tile_bytes;
};

// A type known only at run time as a constant: each calls f(Type<T>{}) for the one type of its family that `type` is.
template <TensorType T>
using Type = std::integral_constant<TensorType, T>;

template <class F>
inline auto for_float_type(TensorType type, F f) {
  if (type == TensorType::kF32) return f(Type<TensorType::kF32>{});
  if (type == TensorType::kF16) return f(Type<TensorType::kF16>{});
  return f(Type<TensorType::kBF16>{});
}

template <class F>
inline auto for_block_type(TensorType type, F f) {
  if (type == TensorType::kQ4_0) return f(Type<TensorType::kQ4_0>{});
  if (type == TensorType::kQ4_1) return f(Type<TensorType::kQ4_1>{});
  if (type == TensorType::kQ5_0) return f(Type<TensorType::kQ5_0>{});
  if (type == TensorType::kQ5_1) return f(Type<TensorType::kQ5_1>{});
  if (type == TensorType::kQ8_0) return f(Type<TensorType::kQ8_0>{});
  return f(Type<TensorType::kIQ4_NL>{});
}

template <class F>
inline auto for_k_quant(TensorType type, F f) {
  if (type == TensorType::kQ2_K) return f(Type<TensorType::kQ2_K>{});
  if (type == TensorType::kQ3_K) return f(Type<TensorType::kQ3_K>{});
  if (type == TensorType::kQ4_K) return f(Type<TensorType::kQ4_K>{});
  if (type == TensorType::kQ5_K) return f(Type<TensorType::kQ5_K>{});
  if (type == TensorType::kQ6_K) return f(Type<TensorType::kQ6_K>{});
  return f(Type<TensorType::kIQ4_XS>{});
}

// The table of a family's kernels for type T. Family gives kRows<T>, the most of a tile, kTileBytes<T> and tile<T,
// rows>.
template <class Family, TensorType T, class Rows = std::make_integer_sequence<int, Family::template kRows<T>>>
struct TileTable;
template <class Family, TensorType T, int... R>
struct TileTable<Family, T, std::integer_sequence<int, R...>> {
  static constexpr TileFn fns[] = {nullptr, Family::template tile<T, R + 1>...};
};

template <class Family, TensorType T>
inline TileKernels tile_kernels(Type<T>) {
  return {TileTable<Family, T>::fns, Family::template kRows<T>, Family::template kTileBytes<T>};
}

constexpr int64_t kRowBlock = 192;                   // most rows of a block: their sums stay in L1
constexpr int64_t kLeastRowBlock = 48;               // fewer would read the weights too often
constexpr int64_t kRowBlockStep = 24;                // whole tiles for most types
constexpr int64_t kBlockBytes = int64_t{640} << 10;  // activations of a block: they stay in L2 while the weights pass
constexpr int64_t kPrefetchRows = 3;                 // AVX2 tiles of fewer rows never prefetch

// How far and from how many rows on to prefetch the weights. Intel's cores have few L1 fill buffers and gain at any
// row count if the lines go to L2; on Zen the hardware's own prefetch of the one linear stream is faster below 3 rows.
struct PrefetchPolicy {
  int64_t min_rows;
  int64_t distance;
  bool to_l2;
};

inline PrefetchPolicy prefetch_policy() {
#if defined(__x86_64__)
  if (__builtin_cpu_is("intel")) return {.min_rows = 1, .distance = 2816, .to_l2 = true};
#endif
  return {.min_rows = 3, .distance = 3072, .to_l2 = false};
}

// `rows` rows as evenly as they go over the fewest tiles: `small` tiles of `count` rows, then tiles of one more.
struct RowSplit {
  int64_t tiles;
  int64_t small;
  int64_t count;
};

inline RowSplit split_rows(int64_t rows, int max_rows) {
  const int64_t tiles = (rows + max_rows - 1) / max_rows;
  return {tiles, tiles - rows % tiles, rows / tiles};
}

// All row tiles of one tile of weights. Only the first prefetches.
inline void run_row_tiles(const TileKernels& kernels, const RowSplit& split, const TileArgs& first) {
  kernels.fns[split.count + (split.small == 0)](first);
  TileArgs args = first;
  args.ahead = nullptr;
  int64_t done = split.count;
  for (int64_t t = 1; t < split.tiles; ++t) {
    const int64_t count = split.count + (t >= split.small);
    args.q = first.q + done * kTileK;
    args.groups32 = first.groups32 + done;
    args.groups256 = first.groups256 + done;
    args.x = first.x + done * first.ldx;
    args.c = first.c + done * kTileColumns;
    kernels.fns[count](args);
    done += count;
  }
}

inline void store_rows(const float* c, int64_t rows, int64_t columns, float* y, int64_t ldy) {
  for (int64_t r = 0; r < rows; ++r, c += kTileColumns, y += ldy) {
    if (columns == kTileColumns) {
      __builtin_memcpy(y, c, kTileColumns * sizeof(float));
    } else {
      for (int64_t n = 0; n < columns; ++n) y[n] = c[n];
    }
  }
}

// c[rows][16] of one row group: the k tiles in order, so that the weights are one ascending stream. Between them the
// lines of y are fetched into L2, since a store to a line from memory waits longer than the sums took.
inline void run_group(const TileKernels& kernels, const PrefetchPolicy& policy, const PackedMatrix& w,
                      const Activations& act, int64_t group, int64_t row, int64_t rows, float* c, const float* y,
                      int64_t ldy) {
  const RowSplit split = split_rows(rows, kernels.max_rows);
  const int64_t tiles = (w.cols + kTileK - 1) / kTileK, lines = (rows + tiles - 1) / tiles;
  const uint8_t* tile = w.data + group * w.group_bytes;
  int64_t fetched = 0;
  for (int64_t k = 0, index = row; k < w.cols; k += kTileK, index += act.m, tile += kernels.tile_bytes) {
    const int64_t length = w.cols - k < kTileK ? w.cols - k : kTileK;
    for (const int64_t stop = fetched + lines < rows ? fetched + lines : rows; fetched < stop; ++fetched) {
      __builtin_prefetch(y + fetched * ldy, 1, 2);
    }
    run_row_tiles(kernels, split,
                  {.tile = tile,
                   .length = static_cast<int>(length),
                   .q = act.q + index * kTileK,
                   .groups32 = act.groups32 + index,
                   .groups256 = act.groups256 + index,
                   .x = act.f32 + row * act.k + k,
                   .ldx = act.k,
                   .c = c,
                   .ahead = rows >= policy.min_rows ? tile + policy.distance : nullptr,
                   .ahead_to_l2 = policy.to_l2});
  }
}

// Rows per block: as many as L2 holds, the same in each block but the last.
inline int64_t rows_per_block(const Activations& act) {
  const int64_t groups_bytes = act.form == ActForm::kQ8x32 ? sizeof(ActGroups32) : sizeof(ActGroups256);
  const int64_t row_bytes = act.form == ActForm::kF32 ? act.k * static_cast<int64_t>(sizeof(float))
                                                      : (act.k + kTileK - 1) / kTileK * (kTileK + groups_bytes);
  int64_t most = kBlockBytes / row_bytes / kRowBlockStep * kRowBlockStep;
  most = most < kLeastRowBlock ? kLeastRowBlock : most > kRowBlock ? kRowBlock : most;
  if (act.m <= most) return most;
  const int64_t blocks = (act.m + most - 1) / most;
  return ((act.m + blocks - 1) / blocks + kRowBlockStep - 1) / kRowBlockStep * kRowBlockStep;
}

inline void run_matmul(const TileKernels& kernels, const PackedMatrix& w, const Activations& act, float* y, int64_t ldy,
                       int64_t group_begin, int64_t group_end) {
  alignas(64) float c[kRowBlock * kTileColumns];
  const PrefetchPolicy policy = prefetch_policy();
  const int64_t block = rows_per_block(act);
  for (int64_t row = 0; row < act.m; row += block) {
    const int64_t rows = act.m - row < block ? act.m - row : block;
    for (int64_t g = group_begin; g < group_end; ++g) {
      const int64_t n0 = g * kTileColumns;
      const int64_t columns = w.rows - n0 < kTileColumns ? w.rows - n0 : kTileColumns;
      float* out = y + row * ldy + n0;
      __builtin_memset(c, 0, static_cast<size_t>(rows * kTileColumns) * sizeof(float));
      run_group(kernels, policy, w, act, g, row, rows, c, out, ldy);
      store_rows(c, rows, columns, out, ldy);
    }
  }
}
