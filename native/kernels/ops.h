#pragma once

#include <cstddef>
#include <cstdint>

namespace corral {

enum class Activation : uint8_t { kSilu, kGeluTanh };
enum class RopeStyle : uint8_t { kInterleaved, kHalf };  // pairs (2i, 2i + 1) or (i, i + rope_dim / 2)

// Tokens in a KV block, and keys whose attention is computed as one unit. Chunks begin at multiples of kChunkKeys of
// the absolute position: the result of a row then cannot depend on how its prompt was cut.
inline constexpr int64_t kBlockTokens = 16;
inline constexpr int64_t kChunkKeys = 256;

// How keys and values are kept. Both: K page [padded_dim][16 tokens], then V page [16 tokens][padded_dim]; padded_dim
// is head_dim rounded up to 16, the padding of V holds zeros. kInt8: each page is followed by its f16 scales
// [blocks][16 tokens]; a value is the int8 times the scale of its token and block of kScaleDims values.
enum class KvType : uint8_t { kF16, kInt8 };
inline constexpr int kNumKvTypes = 2;
inline constexpr int64_t kScaleDims = 32;
constexpr int64_t num_scales(int64_t padded_dim) { return (padded_dim + kScaleDims - 1) / kScaleDims; }

// Query rows of one KV head, of one sequence or of several whose block tables begin alike. Rows of a sequence are
// neighbours and have the same pointer to its block table.
struct AttentionTile {
  int64_t num_rows = 0;
  const float* const* queries = nullptr;  // [num_rows] -> [head_dim], already scaled
  const int32_t* key_begin = nullptr;     // [num_rows] row r sees keys [key_begin[r], key_end[r])
  const int32_t* key_end = nullptr;
  const int32_t* const* block_tables = nullptr;  // [num_rows] block of page p = block_tables[r][p]
  int64_t common_pages = INT64_MAX;              // of the chunk; pages before it have the same block for all rows
  const uint8_t* pages = nullptr;                // K page of this layer and KV head in block 0
  int64_t block_bytes = 0;                       // from one block to the next
  int64_t head_dim = 0;
  int64_t padded_dim = 0;
  float softcap = 0.0F;  // 0: none
};

// Softmax state of some rows over some keys: out = acc / sum, all scaled by exp(-max). A row without keys has
// max = -inf and sum = 0; its acc is not defined.
struct AttentionState {
  float* max = nullptr;  // [num_rows]
  float* sum = nullptr;  // [num_rows]
  float* acc = nullptr;  // [num_rows][padded_dim]
};

// Kernels over the pages of one KvType.
struct KvKernels {
  // Writes K and V of one token ([head_dim] each) to slot `slot` of the page pair at `pages`. Values beyond the range
  // of f16 are clamped to it.
  void (*store)(const float* k, const float* v, int64_t head_dim, int64_t padded_dim, int64_t slot, uint8_t* pages);

  // Attention of the tile's rows over keys [chunk, chunk + kChunkKeys), chunk a multiple of kChunkKeys.
  // `scores` is scratch of num_rows * kChunkKeys floats.
  void (*attend_chunk)(const AttentionTile& tile, int64_t chunk, float* scores, const AttentionState& out);
};

// t[row][j] = scale * sum_k x[row][k] * A[j][k], for some rows and j in [rank_begin, rank_end). Column k of a row of x
// stands at [k / unit_columns * unit_stride + row * row_stride + k % unit_columns]; unit_columns is a multiple of 16,
// or all columns.
struct LowRankDown {
  const float* x = nullptr;
  int64_t row_stride = 0;
  int64_t unit_columns = 0;
  int64_t unit_stride = 0;
  const int32_t* rows = nullptr;  // [num_rows]
  int64_t num_rows = 0;
  const float* a = nullptr;  // [rank][cols]
  int64_t cols = 0;
  int64_t rank_begin = 0;
  int64_t rank_end = 0;
  float scale = 0.0F;
  float* out = nullptr;  // t of row r and j at [r * out_stride + j]
  int64_t out_stride = 0;
};

// y[row][n] += sum_j t[row][j] * B[j][n], j ascending, for some rows and n in [0, columns).
struct LowRankUp {
  const float* t = nullptr;
  int64_t t_stride = 0;
  const int32_t* rows = nullptr;  // [num_rows]
  int64_t num_rows = 0;
  const float* b = nullptr;  // [rank][b_stride]
  int64_t b_stride = 0;
  int64_t rank = 0;
  int64_t columns = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

// Elementwise, row and attention kernels of one ISA. All ISAs give the same bits: 16 lanes, one order of operations.
// No kernel allocates, throws or reads beyond the sizes given.
struct OpsKernels {
  const char* name;

  // out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);

  // x[i] += y[i]
  void (*add)(float* x, const float* y, int64_t n);

  // x[i] *= factor
  void (*scale)(float* x, float factor, int64_t n);

  // Rotates the first rope_dim values of one head in place; cos and sin have rope_dim / 2 values.
  void (*rope)(float* head, const float* cos, const float* sin, int64_t rope_dim, RopeStyle style);

  // out[i] = activation(gate[i]) * up[i]; out may be gate or up.
  void (*gated)(const float* gate, const float* up, Activation activation, int64_t n, float* out);

  // x[i] = cap * tanh(x[i] / cap)
  void (*softcap)(float* x, float cap, int64_t n);

  KvKernels kv[kNumKvTypes];  // by KvType
  const KvKernels& kv_of(KvType type) const { return kv[static_cast<int>(type)]; }

  // Takes `part` into `state`. The order of merges is part of the result: always by ascending chunk.
  void (*merge)(const AttentionState& state, const AttentionState& part, int64_t num_rows, int64_t padded_dim);

  // The halves of an adapter's product; what a row gets does not depend on the other rows.
  void (*low_rank_down)(const LowRankDown& job);
  void (*low_rank_up)(const LowRankUp& job);

  // Greatest value and the lowest index that has it; index -1 if any value is NaN.
  void (*argmax)(const float* x, int64_t n, float* value, int64_t* index);

  // out[i] = exp((x[i] - max) * scale) where x[i] >= floor, else 0; relative error below 2e-7, and 0 below exp(-80).
  void (*exp_weights)(const float* x, int64_t n, float max, float scale, float floor, float* out);

  // out[b] = sum of the exp_weights of block b of `block` values (a multiple of 16; the last block may be shorter).
  void (*exp_sums)(const float* x, int64_t n, int64_t block, float max, float scale, float floor, float* out);

  // Indices of the values >= floor, ascending, at most `capacity` of them; returns how many there are.
  int64_t (*select)(const float* x, int64_t n, float floor, int32_t* out, int64_t capacity);
};

extern const OpsKernels kOpsScalar;
#if defined(__x86_64__)
extern const OpsKernels kOpsAvx2;
extern const OpsKernels kOpsAvx512;
#elif defined(__aarch64__)
extern const OpsKernels kOpsNeon;
#endif

// Kernels of the active ISA (base/cpu_features.h).
const OpsKernels& ops_kernels();

}  // namespace corral
