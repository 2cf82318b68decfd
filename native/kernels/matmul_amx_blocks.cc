// AMX kernels of the 32-block types: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL. Each block of 32 k has a float scale, so it
// is a tile instruction of its own.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_amx.h"
#include "quant/tile_format.h"

namespace corral::amx {
namespace {

#include "kernels/matmul_avx512-inl.h"
#include "kernels/matmul_driver-inl.h"
#include "kernels/matmul_tiles-inl.h"

constexpr int kMostChunks = kTileK / kChunkK;

// Signed codes of one tile of weights: [256 / 4][16 columns][4 k].
struct Codes {
  alignas(64) int8_t plane[kTileK * kTileColumns];
};

// Sums of one row tile, per block of 32 k.
struct Sums {
  alignas(64) int32_t of[kMostChunks][kTileRows][kTileColumns];
};

template <TensorType T>
constexpr int header_stride() {
  return kFormat<T>.has_min ? 64 : 32;
}

template <TensorType T>
__attribute__((noinline)) void expand(const uint8_t* chunk, int chunks, int64_t ahead, Codes* codes) {
  const Unpacker<T> unpacker = make_unpacker<T>();
  const __m512i offset = _mm512_set1_epi8(static_cast<char>(kOffset<T>));
  int8_t* out = codes->plane;
#pragma GCC unroll 1
  for (int s = 0; s < chunks; ++s, chunk += kChunkBytes<T>) {
    prefetch_lines<(kChunkBytes<T> + header_stride<T>() + 63) / 64>(chunk + ahead);
    each<8>([&](auto b) __attribute__((always_inline)) {
      __m512i quad = unpacker.template quad<b.value>(chunk);
      if constexpr (kOffset<T> > 0) quad = _mm512_sub_epi8(quad, offset);
      _mm512_store_si512(out, quad);
      out += 64;
    });
  }
}

// Sums of block s by tiles s % 4 (sums), 4 + s % 2 and 6 + s % 2.
template <int S>
CORRAL_INLINE void dot_chunk(const Codes& codes, const int8_t* q) {
  constexpr int kSums = S % 4, kAct = 4 + S % 2, kCodes = 6 + S % 2;
  tile_zero<kSums>();
  tile_load<kAct>(q + kChunkK * S, kTileK);
  tile_load<kCodes>(codes.plane + kChunkK * kTileColumns * S, kSumBytes);
  tile_dot_signed<kSums, kAct, kCodes>();
}

void sum_row_tile(const Codes& codes, const int8_t* q, int chunks, Sums* sums) {
  if (chunks == kMostChunks) {
    each<kMostChunks / 4>([&](auto part) __attribute__((always_inline)) {
      each<4>([&](auto i) __attribute__((always_inline)) { dot_chunk<4 * part.value + i.value>(codes, q); });
      each<4>([&](auto i) __attribute__((always_inline)) {
        tile_store<i.value>(sums->of[4 * part.value + i.value], kSumBytes);
      });
    });
    return;
  }
  each<kMostChunks>([&](auto s) __attribute__((always_inline)) {
    if (s.value >= chunks) return;
    dot_chunk<s.value>(codes, q);
    tile_store<s.value % 4>(sums->of[s.value], kSumBytes);
  });
}

// Sums that wait to be scaled: the matrix unit works on the next ones meanwhile.
struct Pending {
  const uint8_t* tile = nullptr;        // of weights
  const ActGroups32* groups = nullptr;  // of the block's first row
  int chunks = 0;
  RowTile rows;
};

// Per 32 k: t = sum * d (+ m * sum of q), c += t * scale: the operations of the AVX-512 kernel, in its order.
template <TensorType T>
__attribute__((noinline)) void finish(const Pending& pending, const Sums& sums, int64_t height, float* c) {
  constexpr bool kHasMin = kFormat<T>.has_min;
  __m512 d[kMostChunks], m[kMostChunks];
  for (int s = 0; s < pending.chunks; ++s) {
    d[s] = load_halves(pending.tile + s * header_stride<T>());
    m[s] = kHasMin ? load_halves(pending.tile + s * header_stride<T>() + 32) : d[s];
  }
  const auto scale_rows = [&](auto chunks) __attribute__((always_inline)) {
    for (int64_t r = pending.rows.first - pending.rows.start; r < height; ++r) {
      const int64_t row = pending.rows.start + r;
      const ActGroups32& groups = pending.groups[row];
      __m512 total = _mm512_load_ps(c + row * kTileColumns);
      each<kMostChunks>([&](auto s) __attribute__((always_inline)) {
        if (s.value >= chunks) return;
        __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(sums.of[s.value][r])), d[s.value]);
        if constexpr (kHasMin) t = _mm512_fmadd_ps(m[s.value], _mm512_set1_ps(groups.sum[s.value]), t);
        total = _mm512_fmadd_ps(t, _mm512_set1_ps(groups.scale[s.value]), total);
      });
      _mm512_store_ps(c + row * kTileColumns, total);
    }
  };
  if (pending.chunks == kMostChunks) {
    scale_rows(std::integral_constant<int, kMostChunks>{});
  } else {
    scale_rows(pending.chunks);
  }
}

// c[rows][16] += one group of columns times rows [row, row + tiles.rows) of the activations.
template <TensorType T>
void run_group(const PackedMatrix& w, const Activations& act, const uint8_t* tile, int64_t row, const RowTiles& tiles,
               float* c) {
  constexpr int64_t kTileBytes = kFormat<T>.tile_bytes(kMostChunks);
  Codes codes;
  Sums sums[2];
  Pending pending;
  int turn = 0;
  for (int64_t k = 0, index = row; k < w.cols; k += kTileK, index += act.m, tile += kTileBytes) {
    const int64_t left = (w.cols - k) / kChunkK;
    const int chunks = static_cast<int>(left < kMostChunks ? left : kMostChunks);
    expand<T>(tile + kFormat<T>.header_bytes(chunks), chunks, kTileBytes, &codes);
    for (int64_t t = 0; t < tiles.count; ++t, turn ^= 1) {
      const Pending next = {tile, act.groups32 + index, chunks, tiles[t]};
      sum_row_tile(codes, act.q + (index + next.rows.start) * kTileK, chunks, &sums[turn]);
      if (pending.chunks > 0) finish<T>(pending, sums[turn ^ 1], tiles.height, c);
      pending = next;
    }
  }
  finish<T>(pending, sums[turn ^ 1], tiles.height, c);
}

template <TensorType T>
void run(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin, int64_t group_end) {
  const auto groups = [&](auto count, int64_t g, int64_t row, const RowTiles& tiles, float* c) {
    for (int64_t i = 0; i < count.value; ++i) {
      run_group<T>(w, act, w.data + (g + i) * w.group_bytes, row, tiles, c + i * tiles.rows * kTileColumns);
    }
  };
  run_row_blocks(w, act.m, kChunkK / 4, y, ldy, group_begin, group_end, groups);
}

}  // namespace

void matmul_blocks(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end) {
  for_block_type(w.type, [&](auto type) { run<type.value>(w, act, y, ldy, group_begin, group_end); });
}

}  // namespace corral::amx
