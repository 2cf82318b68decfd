// Tiles of AMX and the walk over a matrix that both families share. Included inside an anonymous namespace, after
// matmul_avx512-inl.h, like matmul_driver-inl.h.

// Inline assembly, not the compiler's intrinsics: gcc's say nothing of the memory that they read and write.
template <int Tile>
CORRAL_INLINE void tile_load(const void* rows, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(rows), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
CORRAL_INLINE void tile_store(void* rows, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(rows), "r"(stride), "i"(Tile) : "memory");
}

template <int Tile>
CORRAL_INLINE void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(Tile));
}

// C += A . B, A int8 [rows][k], B int8 [k / 4][16 columns][4].
template <int C, int A, int B>
CORRAL_INLINE void tile_dot_signed(void) {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

// The same with B uint8.
template <int C, int A, int B>
CORRAL_INLINE void tile_dot_unsigned(void) {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

constexpr int kTileRows = 16;  // rows of activations in a tile, at most
constexpr int kSumBytes = 64;  // a row of int32 sums

// Shapes of the eight tiles while it lives: sums and activations have `rows` rows, weights `quads` rows of 64 bytes.
// Tiles 0 to 3 are sums, 4 and 5 activations, 6 and 7 weights.
class TileShapes {
 public:
  TileShapes(int rows, int quads) {
    struct alignas(64) Config {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int tile = 0; tile < 8; ++tile) {
      config.rows[tile] = static_cast<uint8_t>(tile < 6 ? rows : quads);
      config.row_bytes[tile] = static_cast<uint16_t>(tile == 4 || tile == 5 ? 4 * quads : 64);
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  // A thread without tile state is cheaper to switch.
  ~TileShapes() { __asm__ volatile("tilerelease" ::: "memory"); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
};

// Rows [first, first + rows) of the activations of one k tile. Tiles all have the same number of rows, so the last may
// begin among the rows of the one before: what it holds before `first` is done already.
struct RowTile {
  int64_t first = 0;  // row whose sums are wanted first
  int64_t start = 0;  // row where the tile begins
};

struct RowTiles {
  int64_t rows;   // of the matrix
  int64_t count;  // of tiles
  int64_t height;

  explicit RowTiles(int64_t m) : rows(m), count((m + kTileRows - 1) / kTileRows), height((m + count - 1) / count) {}
  RowTile operator[](int64_t tile) const {
    const int64_t first = tile * height;
    return {first, first + height <= rows ? first : rows - height};
  }
};

constexpr int64_t kMostRows = 128;  // of a row block: its activations and sums stay in the L2 cache

// y = matrix times activations, by blocks of rows: groups(Index<N>, g, row, tiles, c) adds columns [16 g, 16 (g + N))
// of rows [row, row + tiles.rows) to c[N][tiles.rows][16].
template <class Groups>
void run_row_blocks(const PackedMatrix& w, int64_t m, int quads, float* y, int64_t ldy, int64_t group_begin,
                    int64_t group_end, Groups&& groups) {
  alignas(64) float c[2 * kMostRows * kTileColumns];
  const int64_t blocks = (m + kMostRows - 1) / kMostRows;
  for (int64_t block = 0, row = 0; block < blocks; ++block) {
    const RowTiles tiles((m - row) / (blocks - block));
    const TileShapes shapes(static_cast<int>(tiles.height), quads);
    const int64_t sums = tiles.rows * kTileColumns;
    for (int64_t g = group_begin, count; g < group_end; g += count) {
      count = g + 2 <= group_end ? 2 : 1;
      __builtin_memset(c, 0, static_cast<size_t>(count * sums) * sizeof(float));
      if (count == 2) {
        groups(Index<2>{}, g, row, tiles, c);
      } else {
        groups(Index<1>{}, g, row, tiles, c);
      }
      for (int64_t i = 0; i < count; ++i) {
        const int64_t n0 = (g + i) * kTileColumns;
        const int64_t columns = w.rows - n0 < kTileColumns ? w.rows - n0 : kTileColumns;
        store_rows(c + i * sums, tiles.rows, columns, y + row * ldy + n0, ldy);
      }
    }
    row += tiles.rows;
  }
}
