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
};

using TileFn = void (*)(const TileArgs& args);

// The kernels of one type for 1..max_rows rows, and how many bytes a full tile takes.
struct TileKernels {
  const TileFn* fns;  // [max_rows + 1], first unused
  int max_rows;
  int64_t tile_bytes;
};

constexpr int64_t kRowBlock = 192;    // rows whose sums stay in L1 while their activations come from L2
constexpr int64_t kPrefetchRows = 3;  // below it the hardware's own prefetch of the one linear stream is faster
constexpr int64_t kPrefetchDistance = 3072;

// All row tiles of one tile of weights; the rows are split evenly.
inline void run_row_tiles(const TileKernels& kernels, TileArgs args, int64_t rows) {
  const int64_t tiles = (rows + kernels.max_rows - 1) / kernels.max_rows;
  for (int64_t t = 0, done = 0; t < tiles; ++t) {
    const int64_t count = (rows - done) / (tiles - t);
    kernels.fns[count](args);
    done += count;
    args.q += count * kTileK;
    args.groups32 += count;
    args.groups256 += count;
    args.x += count * args.ldx;
    args.c += count * kTileColumns;
    args.ahead = nullptr;
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

// c[rows][16] of one row group: the k tiles in order, so that the weights are one ascending stream.
inline void run_group(const TileKernels& kernels, const PackedMatrix& w, const Activations& act, const uint8_t* tile,
                      int64_t row, int64_t rows, float* c) {
  const bool prefetch = row == 0 && rows >= kPrefetchRows;
  for (int64_t k = 0, index = row; k < w.cols; k += kTileK, index += act.m, tile += kernels.tile_bytes) {
    const int64_t length = w.cols - k < kTileK ? w.cols - k : kTileK;
    run_row_tiles(kernels,
                  {.tile = tile,
                   .length = static_cast<int>(length),
                   .q = act.q + index * kTileK,
                   .groups32 = act.groups32 + index,
                   .groups256 = act.groups256 + index,
                   .x = act.f32 + row * act.k + k,
                   .ldx = act.k,
                   .c = c,
                   .ahead = prefetch ? tile + kPrefetchDistance : nullptr},
                  rows);
  }
}

inline void run_matmul(const TileKernels& kernels, const PackedMatrix& w, const Activations& act, float* y, int64_t ldy,
                       int64_t group_begin, int64_t group_end) {
  alignas(64) float c[kRowBlock * kTileColumns];
  for (int64_t g = group_begin; g < group_end; ++g) {
    const int64_t n0 = g * kTileColumns;
    const int64_t columns = w.rows - n0 < kTileColumns ? w.rows - n0 : kTileColumns;
    for (int64_t row = 0; row < act.m; row += kRowBlock) {
      const int64_t rows = act.m - row < kRowBlock ? act.m - row : kRowBlock;
      __builtin_memset(c, 0, static_cast<size_t>(rows * kTileColumns) * sizeof(float));
      run_group(kernels, w, act, w.data + g * w.group_bytes, row, rows, c);
      store_rows(c, rows, columns, y + row * ldy + n0, ldy);
    }
  }
}
