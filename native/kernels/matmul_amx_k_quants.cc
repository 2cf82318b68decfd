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

template <TensorType T>
__attribute__((noinline)) void expand(const uint8_t* tile, int64_t ahead, Planes* planes) {
  constexpr int kHeaderBytes = kFormat<T>.header_bytes(8);
  const Unpacker<T> unpacker = make_unpacker<T>();
  prefetch_lines<kHeaderBytes / 64>(tile + ahead);
#pragma GCC unroll 1
  for (int p = 0; p < kTileK / kChunkK; ++p) {
    const int64_t at = kHeaderBytes + p * kChunkBytes<T>;
    prefetch_lines<kChunkBytes<T> / 64>(tile + ahead + at);
    expand_chunk<T>(unpacker, tile, tile + at, p, planes);
  }
}

// 16 columns of up to 16 rows over 256 k: what the matrix unit adds up at once.
struct Part {
  const uint8_t* tile = nullptr;         // of weights
  const ActGroups256* groups = nullptr;  // of the block's first row
  float* c = nullptr;                    // [rows of the block][16]
  RowTile rows;
};

// Parts that are computed together: two row tiles of one tile of weights, or two tiles of weights for one row tile.
constexpr int kMostParts = 2;

struct Unit {
  int count = 0;
  Part parts[kMostParts];
};

struct Sums {
  alignas(64) int32_t low[kMostParts][kTileRows][kTileColumns];
  alignas(64) int32_t high[kMostParts][kTileRows][kTileColumns];
};

// Scales the sums of a part: t = sum * d (- mins * dmin), c += t * scale. The operations of the AVX-512 kernel, in its
// order.
template <TensorType T>
class Scaler {
 public:
  CORRAL_INLINE void begin(const Part& part) {
    part_ = part;
    d_ = load_halves(part.tile);
    if constexpr (kFormat<T>.has_min) {
      dmin_ = load_halves(part.tile + 32);
      each<kMinPairs>([&](auto p) { mins_[p.value] = min_pairs<T>(part.tile, p.value); });
    }
  }

  CORRAL_INLINE void scale(const int32_t (*low)[kTileColumns], const int32_t (*high)[kTileColumns], int64_t begin,
                           int64_t end) const {
    const int64_t skipped = part_.rows.first - part_.rows.start;
    for (int64_t r = begin < skipped ? skipped : begin; r < end; ++r) {
      const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(_mm512_load_si512(high[r]), 8), _mm512_load_si512(low[r]));
      scale_row(sum, part_.groups[part_.rows.start + r], part_.c + (part_.rows.start + r) * kTileColumns);
    }
  }

 private:
  static constexpr int kMinPairs = kTileK / kFormat<T>.sub_size / 2;

  CORRAL_INLINE void scale_row(__m512i sum, const ActGroups256& groups, float* c) const {
    __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d_);
    if constexpr (kFormat<T>.has_min) {
      const int16_t* sums = kFormat<T>.sub_size == 16 ? groups.sum16 : groups.sum32;
      __m512i mins = _mm512_setzero_si512();
      each<kMinPairs>([&](auto p) __attribute__((always_inline)) {
        mins = _mm512_dpwssd_epi32(mins, mins_[p.value], broadcast4(sums + 2 * p.value));
      });
      t = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(mins), dmin_, t);
    }
    _mm512_store_ps(c, _mm512_fmadd_ps(t, _mm512_set1_ps(groups.scale), _mm512_load_ps(c)));
  }

  Part part_;
  __m512 d_ = _mm512_setzero_ps();
  __m512 dmin_ = _mm512_setzero_ps();
  __m512i mins_[kMinPairs] = {};
};

// Adds up `Rows` row tiles (at q) times `Groups` tiles of weights; the unit before is scaled meanwhile, and its place
// in `sums` taken over at the end.
template <TensorType T, int Rows, int Groups>
__attribute__((noinline)) void sum_unit(const Planes* planes, const int8_t* const* q, const Unit& before,
                                        int64_t height, Sums* sums) {
  constexpr int kParts = Rows * Groups;
  Scaler<T> scalers[kMostParts];
  for (int i = 0; i < before.count; ++i) scalers[i].begin(before.parts[i]);
  each<2 * kParts>([](auto i) { tile_zero<i.value>(); });
  each<kSteps>([&](auto step) __attribute__((always_inline)) {
    constexpr int64_t at = kStepK * kTileColumns * step.value;
    each<Rows>([&](auto r) { tile_load<4 + r.value>(q[r.value] + kStepK * step.value, kTileK); });
    each<Groups>([&](auto g) __attribute__((always_inline)) {
      tile_load<6>(planes[g.value].low + at, kSumBytes);
      each<Rows>([&](auto r) { tile_dot_unsigned<2 * (r.value + g.value), 4 + r.value, 6>(); });
      tile_load<7>(planes[g.value].high + at, kSumBytes);
      each<Rows>([&](auto r) { tile_dot_signed<2 * (r.value + g.value) + 1, 4 + r.value, 7>(); });
    });
    for (int i = 0; i < before.count; ++i) {
      scalers[i].scale(sums->low[i], sums->high[i], height * step.value / kSteps, height * (step.value + 1) / kSteps);
    }
  });
  each<kParts>([&](auto i) {
    tile_store<2 * i.value>(sums->low[i.value], kSumBytes);
    tile_store<2 * i.value + 1>(sums->high[i.value], kSumBytes);
  });
}

// c[Groups][tiles.rows][16] += Groups groups of columns times rows [row, row + tiles.rows) of the activations.
template <TensorType T, int Groups>
void run_groups(const PackedMatrix& w, const Activations& act, const uint8_t* tile, int64_t row, const RowTiles& tiles,
                float* c) {
  constexpr int64_t kTileBytes = kFormat<T>.tile_bytes(8);
  Planes planes[Groups];
  Sums sums;
  Unit before;
  for (int64_t k = 0, index = row; k < w.cols; k += kTileK, index += act.m, tile += kTileBytes) {
    for (int g = 0; g < Groups; ++g) expand<T>(tile + g * w.group_bytes, kTileBytes, planes + g);
    for (int64_t t = 0; t < tiles.count; t += Groups == 1 ? 2 : 1) {
      Unit unit;
      const int8_t* q[kMostParts];
      for (int i = 0; i < kMostParts; ++i) {
        const int64_t row_tile = Groups == 1 ? t + i : t;
        if (row_tile >= tiles.count) break;
        const RowTile rows = tiles[row_tile];
        q[i] = act.q + (index + rows.start) * kTileK;
        unit.parts[unit.count++] = Groups == 1 ? Part{tile, act.groups256 + index, c, rows}
                                               : Part{tile + i * w.group_bytes, act.groups256 + index,
                                                      c + i * tiles.rows * kTileColumns, rows};
      }
      if constexpr (Groups == 2) {
        sum_unit<T, 1, 2>(planes, q, before, tiles.height, &sums);
      } else if (unit.count == 2) {
        sum_unit<T, 2, 1>(planes, q, before, tiles.height, &sums);
      } else {
        sum_unit<T, 1, 1>(planes, q, before, tiles.height, &sums);
      }
      before = unit;
    }
  }
  for (int i = 0; i < before.count; ++i) {
    Scaler<T> scaler;
    scaler.begin(before.parts[i]);
    scaler.scale(sums.low[i], sums.high[i], 0, tiles.height);
  }
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
  switch (w.type) {
    case TensorType::kQ2_K:
      return run<TensorType::kQ2_K>(w, act, y, ldy, group_begin, group_end);
    case TensorType::kQ3_K:
      return run<TensorType::kQ3_K>(w, act, y, ldy, group_begin, group_end);
    case TensorType::kQ4_K:
      return run<TensorType::kQ4_K>(w, act, y, ldy, group_begin, group_end);
    case TensorType::kQ5_K:
      return run<TensorType::kQ5_K>(w, act, y, ldy, group_begin, group_end);
    case TensorType::kQ6_K:
      return run<TensorType::kQ6_K>(w, act, y, ldy, group_begin, group_end);
    default:
      return run<TensorType::kIQ4_XS>(w, act, y, ldy, group_begin, group_end);
  }
}

}  // namespace corral::amx
