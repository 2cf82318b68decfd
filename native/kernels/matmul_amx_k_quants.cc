// AMX kernels of the types with integer scales under one f16 scale per 256: Q2_K .. Q6_K, IQ4_XS.
//
// scale * code is an integer of at most 14 bits. A tile of weights is expanded to the low and the high byte of these
// products, so that all 256 k of a row add up inside the matrix unit: sum = 256 * high . q + low . q, exactly what the
// other kernels reach by scaling each sub-block.
#include <immintrin.h>

#include <utility>

#include "kernels/matmul_amx.h"
#include "quant/tile_format.h"

namespace corral::amx {
namespace {

#include "kernels/matmul_avx512-inl.h"
#include "kernels/matmul_driver-inl.h"
#include "kernels/matmul_tiles-inl.h"

constexpr int kPlaneBytes = kTileK * kTileColumns;  // of products, one byte of each
constexpr int kStepK = 64;                          // k of one tile instruction
constexpr int kSteps = kTileK / kStepK;

// Byte planes of the products of one tile of weights: [256 / 4][16 columns][4 k].
struct Planes {
  alignas(64) uint8_t low[kPlaneBytes];
  alignas(64) int8_t high[kPlaneBytes];
};

// Writes the products of chunk p. Even and odd k of a column multiply apart, as words.
template <TensorType T>
CORRAL_INLINE void expand_chunk(const Unpacker<T> unpacker, const uint8_t* tile, const uint8_t* chunk, int p,
                                Planes* planes) {
  constexpr TileFormat f = kFormat<T>;
  constexpr int kHalves = kChunkK / f.sub_size;
  const __m512i even_bytes = pinned(_mm512_set1_epi16(0x00FF));
  const __m512i swap_bytes = _mm512_set4_epi32(0x0E0F0C0D, 0x0A0B0809, 0x06070405, 0x02030001);
  each<kHalves>([&](auto half) __attribute__((always_inline)) {
    const __m512i scale = sub_scales<T, half.value>(tile, p);
    const __m512i byte = _mm512_and_si512(scale, _mm512_set1_epi32(0xFF));
    const __m512i for_even = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 16));
    const __m512i for_odd = _mm512_slli_epi32(for_even, 8);
    const __m512i word = _mm512_and_si512(_mm512_slli_epi32(scale, log2_of(kOffset<T>)), _mm512_set1_epi32(0xFFFF));
    const __m512i offset = _mm512_or_si512(word, _mm512_slli_epi32(word, 16));
    each<8 / kHalves>([&](auto i) __attribute__((always_inline)) {
      constexpr int b = half.value * (8 / kHalves) + i.value;
      const __m512i codes = unpacker.template quad<b>(chunk);
      __m512i even = _mm512_maddubs_epi16(codes, for_even);
      __m512i odd = _mm512_maddubs_epi16(codes, for_odd);
      if constexpr (kOffset<T> > 0) {
        even = _mm512_sub_epi16(even, offset);
        odd = _mm512_sub_epi16(odd, offset);
      }
      constexpr int kSelect = 0xCA;  // mask ? first : second
      const int64_t at = 64 * (8 * p + b);
      const __m512i odd_low = _mm512_slli_epi16(odd, 8);
      _mm512_store_si512(planes->low + at, _mm512_ternarylogic_epi32(even_bytes, even, odd_low, kSelect));
      const __m512i even_high = _mm512_shuffle_epi8(even, swap_bytes);
      _mm512_store_si512(planes->high + at, _mm512_ternarylogic_epi32(even_bytes, even_high, odd, kSelect));
    });
  });
}

// Expands a tile of weights. The next one is fetched into L2 meanwhile; of the larger tiles with sub-blocks of 16 half
// waits until the sums are computed, so that the few fill buffers of L1 do not hold up the expansion.
template <TensorType T>
inline constexpr int kTileLines = kFormat<T>.tile_bytes(8) / 64;
template <TensorType T>
inline constexpr int kExpandLines =
    (kFormat<T>.sub_size == 16 ? kTileLines<T> / 2 + 7 : kTileLines<T> + 7) / 8;  // per chunk
template <TensorType T>
inline constexpr int kSumLines =
    kTileLines<T> <= 8 * kExpandLines<T> ? 0 : (kTileLines<T> - 8 * kExpandLines<T> + kSteps - 1) / kSteps;  // per step

template <TensorType T>
__attribute__((noinline)) void expand(const uint8_t* tile, const uint8_t* next, Planes* planes) {
  const Unpacker<T> unpacker = make_unpacker<T>();
  const uint8_t* chunk = tile + kFormat<T>.header_bytes(8);
#pragma GCC unroll 1
  for (int p = 0; p < kTileK / kChunkK; ++p, chunk += kChunkBytes<T>) {
    prefetch_lines<kExpandLines<T>>(next + 64 * kExpandLines<T> * p, true);
    expand_chunk<T>(unpacker, tile, chunk, p, planes);
  }
}

// Sums of one row tile times the tiles of weights of `Groups` groups. They wait to be scaled while the matrix unit
// works at the next ones.
template <int Groups>
struct Sums {
  alignas(64) int32_t low[Groups][kTileRows][kTileColumns];
  alignas(64) int32_t high[Groups][kTileRows][kTileColumns];
};

struct Pending {
  int64_t height = 0;                    // of the row tile; 0: nothing waits
  const uint8_t* tile = nullptr;         // of weights of the first group
  const ActGroups256* groups = nullptr;  // of the block's first row
  RowTile rows;
};

// t = sum * d (- mins * dmin), c += t * scale: the operations of the AVX-512 kernel, in its order.
template <TensorType T, int Groups>
class Scaler {
 public:
  // `c` is [Groups][stride].
  CORRAL_INLINE Scaler(const uint8_t* tile, int64_t group_bytes, float* c, int64_t stride) : c_(c), stride_(stride) {
    each<Groups>([&](auto g) __attribute__((always_inline)) {
      const uint8_t* header = tile + g.value * group_bytes;
      d_[g.value] = load_halves(header);
      if constexpr (kHasMin) {
        dmin_[g.value] = load_halves(header + 32);
        each<kMinPairs>(
            [&](auto p) __attribute__((always_inline)) { mins_[g.value][p.value] = min_pairs<T>(header, p.value); });
      }
    });
  }

  // Row `row` of the block; its sums in group g are low + g * kPart and high + g * kPart.
  CORRAL_INLINE void scale(const int32_t* low, const int32_t* high, const ActGroups256& groups, int64_t row) const {
    constexpr int64_t kPart = kTileRows * kTileColumns;
    __m512i mins[Groups] = {};
    if constexpr (kHasMin) {
      const int16_t* sums = kFormat<T>.sub_size == 16 ? groups.sum16 : groups.sum32;
      each<kMinPairs>([&](auto p) __attribute__((always_inline)) {
        const __m512i pair = broadcast4(sums + 2 * p.value);
        each<Groups>([&](auto g) __attribute__((always_inline)) {
          mins[g.value] = _mm512_dpwssd_epi32(mins[g.value], mins_[g.value][p.value], pair);
        });
      });
    }
    const __m512 scale = _mm512_set1_ps(groups.scale);
    each<Groups>([&](auto g) __attribute__((always_inline)) {
      const __m512i top = _mm512_slli_epi32(_mm512_load_si512(high + g.value * kPart), 8);
      const __m512i sum = _mm512_add_epi32(top, _mm512_load_si512(low + g.value * kPart));
      __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d_[g.value]);
      if constexpr (kHasMin) t = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins[g.value]), dmin_[g.value], t);
      float* c = c_ + g.value * stride_ + row * kTileColumns;
      _mm512_store_ps(c, _mm512_fmadd_ps(t, scale, _mm512_load_ps(c)));
    });
  }

 private:
  static constexpr bool kHasMin = kFormat<T>.has_min;
  static constexpr int kMinPairs = kTileK / kFormat<T>.sub_size / 2;

  float* const c_;
  const int64_t stride_;
  __m512 d_[Groups];
  __m512 dmin_[Groups];
  __m512i mins_[Groups][kMinPairs];
};

// Scales rows [height * step / kSteps, height * (step + 1) / kSteps) of what is pending.
template <TensorType T, int Groups>
CORRAL_INLINE void scale_part(const Scaler<T, Groups>& scaler, const Pending& pending, const Sums<Groups>& sums,
                              int step) {
  const int64_t start = pending.rows.start, skipped = pending.rows.first - start;
  const int64_t begin = pending.height * step / kSteps, end = pending.height * (step + 1) / kSteps;
  for (int64_t r = begin < skipped ? skipped : begin; r < end; ++r) {
    scaler.scale(sums.low[0][r], sums.high[0][r], pending.groups[start + r], start + r);
  }
}

// Adds up the row tile at q; what is pending is scaled meanwhile, and its place in `sums` taken over at the end. `next`
// is the rest of the next tile of weights to fetch, or null.
template <TensorType T, int Groups>
__attribute__((noinline)) void sum_row_tile(const Planes* planes, const int8_t* q, const Pending& pending,
                                            int64_t group_bytes, float* c, int64_t stride, const uint8_t* next,
                                            Sums<Groups>* sums) {
  const Scaler<T, Groups> scaler(pending.tile, group_bytes, c, stride);
  each<2 * Groups>([](auto i) __attribute__((always_inline)) { tile_zero<i.value>(); });
  each<kSteps>([&](auto step) __attribute__((always_inline)) {
    constexpr int64_t at = kStepK * kTileColumns * step.value;
    tile_load<4>(q + kStepK * step.value, kTileK);
    prefetch_lines<kTileRows>(reinterpret_cast<const uint8_t*>(q) + kTileRows * (kTileK + kStepK * step.value));
    each<Groups>([&](auto g) __attribute__((always_inline)) {
      tile_load<6>(planes[g.value].low + at, kSumBytes);
      tile_dot_unsigned<2 * g.value, 4, 6>();
      tile_load<7>(planes[g.value].high + at, kSumBytes);
      tile_dot_signed<2 * g.value + 1, 4, 7>();
    });
    if constexpr (kSumLines<T> > 0) {
      each<Groups>([&](auto g) __attribute__((always_inline)) {
        const uint8_t* ahead = next + g.value * group_bytes + 64 * kSumLines<T> * step.value;
        if (next != nullptr) prefetch_lines<kSumLines<T>>(ahead, true);
      });
    }
    scale_part<T, Groups>(scaler, pending, *sums, step.value);
  });
  each<Groups>([&](auto g) __attribute__((always_inline)) {
    tile_store<2 * g.value>(sums->low[g.value], kSumBytes);
    tile_store<2 * g.value + 1>(sums->high[g.value], kSumBytes);
  });
}

// c[Groups][tiles.rows][16] += Groups groups of columns, the first at `tile`, times rows [row, row + tiles.rows) of the
// activations. Two groups at once read the activations half as often and give the matrix unit more chains of sums.
template <TensorType T, int Groups>
void run_groups(const PackedMatrix& w, const Activations& act, const uint8_t* tile, int64_t row, const RowTiles& tiles,
                float* c) {
  const int64_t stride = tiles.rows * kTileColumns;
  Planes planes[Groups];
  Sums<Groups> sums;
  Pending pending;
  pending.tile = tile;
  constexpr int64_t kTileBytes = kFormat<T>.tile_bytes(8);
  for (int64_t k = 0, index = row; k < w.cols; k += kTileK, index += act.m, tile += kTileBytes) {
    // After the last tile of these groups comes the first of the groups behind them.
    const uint8_t* next = tile + kTileBytes + (k + kTileK < w.cols ? 0 : (Groups - 1) * w.group_bytes);
    for (int g = 0; g < Groups; ++g) expand<T>(tile + g * w.group_bytes, next + g * w.group_bytes, planes + g);
    next += 64 * 8 * kExpandLines<T>;
    for (int64_t t = 0; t < tiles.count; ++t) {
      const RowTile rows = tiles[t];
      sum_row_tile<T, Groups>(planes, act.q + (index + rows.start) * kTileK, pending, w.group_bytes, c, stride,
                              t == 0 ? next : nullptr, &sums);
      pending = {tiles.height, tile, act.groups256 + index, rows};
    }
  }
  const Scaler<T, Groups> scaler(pending.tile, w.group_bytes, c, stride);
  for (int step = 0; step < kSteps; ++step) scale_part<T, Groups>(scaler, pending, sums, step);
}

template <TensorType T>
void run(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin, int64_t group_end) {
  run_row_blocks(w, act.m, kStepK / 4, y, ldy, group_begin, group_end,
                 [&](auto groups, int64_t g, int64_t row, const RowTiles& tiles, float* c) {
                   run_groups<T, groups.value>(w, act, w.data + g * w.group_bytes, row, tiles, c);
                 });
}

}  // namespace

void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end) {
  for_k_quant(w.type, [&](auto type) { run<type.value>(w, act, y, ldy, group_begin, group_end); });
}

}  // namespace corral::amx
