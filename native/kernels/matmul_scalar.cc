// The oracle: the arithmetic of every kernel, in its order, with nothing else. The other ISAs must equal it bit for
// bit.
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/matmul.h"
#include "quant/float16.h"
#include "quant/row_block.h"
#include "quant/tile_codec.h"
#include "quant/tile_format.h"

namespace corral {
namespace {

constexpr int64_t kRowBlock = 64;          // rows of activations that share one decoded tile
constexpr float kSmallestMax = 0x1p-100f;  // below it 127 / max nears overflow, and the group counts as zero

// A group of activations: q = round(x * 127 / max|x|), half to even. Returns the scale.
float quantize_group(const float* x, size_t n, int8_t* q) {
  uint32_t max_bits = 0;  // of |x|: the integer order puts infinities and NaNs on top
  for (size_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(x[i]) & 0x7FFFFFFFu;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  const float max = std::bit_cast<float>(max_bits);
  std::memset(q, 0, n);
  if (max_bits >= 0x7F800000u) return std::bit_cast<float>(0x7FC00000u);
  if (max < kSmallestMax) return 0.0f;
  const float inverse = 127.0f / max;
  for (size_t i = 0; i < n; ++i) q[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  return max / 127.0f;
}

int sum_of(const int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += q[i];
  return sum;
}

void quantize_row32(const float* x, const Activations& act, int64_t row) {
  for (int64_t k = 0, tile = row; k < act.k; k += kTileK, tile += act.m) {
    int8_t* q = act.q + tile * kTileK;
    ActGroups32& groups = act.groups32[tile];
    std::memset(&groups, 0, sizeof groups);
    std::memset(q, 0, kTileK);
    for (int c = 0; c < 8 && k + c * kChunkK < act.k; ++c) {
      groups.scale[c] = quantize_group(x + k + c * kChunkK, kChunkK, q + c * kChunkK);
      const int sum = sum_of(q + c * kChunkK, kChunkK);
      groups.sum[c] = static_cast<float>(sum);
      groups.neg_sum[c] = -sum;
    }
  }
}

void quantize_row256(const float* x, const Activations& act, int64_t row) {
  for (int64_t k = 0, tile = row; k < act.k; k += kTileK, tile += act.m) {
    int8_t* q = act.q + tile * kTileK;
    ActGroups256& groups = act.groups256[tile];
    std::memset(&groups, 0, sizeof groups);
    groups.scale = quantize_group(x + k, kTileK, q);
    for (int s = 0; s < 16; ++s) {
      const int sum = sum_of(q + 16 * s, 16);
      groups.neg_sum[s] = -sum;
      groups.sum16[s] = static_cast<int16_t>(sum);
      groups.sum32[s / 2] = static_cast<int16_t>(groups.sum32[s / 2] + sum);
    }
  }
}

void quantize(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end) {
  for (int64_t row = row_begin; row < row_end; ++row) {
    if (act.form == ActForm::kQ8x32) quantize_row32(x + row * ldx, act, row);
    if (act.form == ActForm::kQ8x256) quantize_row256(x + row * ldx, act, row);
  }
}

// One column of a tile with its codes as signed integers.
struct Column {
  RowBlock block;
  int16_t value[kTileK];
};

int dot(const int16_t* w, const int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += w[i] * q[i];
  return sum;
}

// c += one float term per 32 k.
float add_blocks32(const TileFormat& format, const Column& w, const int8_t* q, const ActGroups32& groups, float c) {
  for (int s = 0; s < w.block.chunks; ++s) {
    const int sub = dot(w.value + s * kChunkK, q + s * kChunkK, kChunkK);
    float t = static_cast<float>(sub) * half_to_float(w.block.d[s]);
    if (format.has_min) t = std::fma(half_to_float(w.block.m[s]), groups.sum[s], t);
    c = std::fma(t, groups.scale[s], c);
  }
  return c;
}

// c += one float term per 256 k; scales and mins are applied to the integers.
float add_k_quant(const TileFormat& format, const Column& w, const int8_t* q, const ActGroups256& groups, float c) {
  int scaled = 0, mins = 0;
  for (int s = 0; s < kTileK / format.sub_size; ++s) {
    scaled += w.block.scale[s] * dot(w.value + s * format.sub_size, q + s * format.sub_size, format.sub_size);
    mins += w.block.min[s] * (format.sub_size == 16 ? groups.sum16[s] : groups.sum32[s]);
  }
  float t = static_cast<float>(scaled) * half_to_float(w.block.d[0]);
  if (format.has_min) t = std::fma(-static_cast<float>(mins), half_to_float(w.block.m[0]), t);
  return std::fma(t, groups.scale, c);
}

void load_columns(const TileFormat& format, const uint8_t* tile, int chunks, Column* columns) {
  for (int n = 0; n < kTileColumns; ++n) {
    Column& column = columns[n];
    column.block.chunks = chunks;
    std::memset(column.block.code, 0, sizeof column.block.code);
    read_tile_column(format, n, tile, column.block);
    for (int i = 0; i < kTileK; ++i) {
      const int code = column.block.code[i];
      column.value[i] = static_cast<int16_t>(format.codebook ? kCodebook[code] : code - format.offset);
    }
  }
}

void group_quantised(const PackedMatrix& w, const Activations& act, const uint8_t* tile, int64_t row, int64_t rows,
                     float (*c)[kTileColumns]) {
  const TileFormat format = tile_format(w.type);
  for (int64_t k = 0, kb = 0; k < w.cols; k += kTileK, ++kb) {
    const int chunks = static_cast<int>((w.cols - k < kTileK ? w.cols - k : kTileK) / kChunkK);
    Column columns[kTileColumns];
    load_columns(format, tile, chunks, columns);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t index = kb * act.m + row + r;
      for (int n = 0; n < kTileColumns; ++n) {
        c[r][n] = format.k_quant
                      ? add_k_quant(format, columns[n], act.q + index * kTileK, act.groups256[index], c[r][n])
                      : add_blocks32(format, columns[n], act.q + index * kTileK, act.groups32[index], c[r][n]);
      }
    }
    tile += format.tile_bytes(chunks);
  }
}

// Float weights: per 256 k four chains of fma over k % 4, added up as (0 + 1) + (2 + 3).
void group_float(const PackedMatrix& w, const Activations& act, int64_t n0, int64_t row, int64_t rows,
                 float (*c)[kTileColumns]) {
  for (int64_t n = 0; n < kTileColumns && n0 + n < w.rows; ++n) {
    for (int64_t k = 0; k < w.cols; k += kTileK) {
      const int64_t length = w.cols - k < kTileK ? w.cols - k : kTileK;
      float weight[kTileK];
      unpack_range(w, n0 + n, k, length, weight);
      for (int64_t r = 0; r < rows; ++r) {
        const float* x = act.f32 + (row + r) * act.k + k;
        float chain[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (int64_t i = 0; i < length; ++i) chain[i % 4] = std::fma(weight[i], x[i], chain[i % 4]);
        c[r][n] += (chain[0] + chain[1]) + (chain[2] + chain[3]);
      }
    }
  }
}

void matmul(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
            int64_t group_end) {
  for (int64_t g = group_begin; g < group_end; ++g) {
    const int64_t n0 = g * kTileColumns;
    const int64_t columns = w.rows - n0 < kTileColumns ? w.rows - n0 : kTileColumns;
    for (int64_t row = 0; row < act.m; row += kRowBlock) {
      const int64_t rows = act.m - row < kRowBlock ? act.m - row : kRowBlock;
      float c[kRowBlock][kTileColumns] = {};
      if (act.form == ActForm::kF32) {
        group_float(w, act, n0, row, rows, c);
      } else {
        group_quantised(w, act, w.data + g * w.group_bytes, row, rows, c);
      }
      for (int64_t r = 0; r < rows; ++r) {
        std::memcpy(y + (row + r) * ldy + n0, c[r], static_cast<size_t>(columns) * sizeof(float));
      }
    }
  }
}

}  // namespace

const MatmulKernels kMatmulScalar = {"scalar", quantize, matmul};

}  // namespace corral
