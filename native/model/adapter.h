#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "model/batch.h"
#include "model/config.h"
#include "model/weights.h"

namespace corral {

// The matrices of a layer that an adapter may change.
enum class AdapterRole : uint8_t { kAttnQ, kAttnK, kAttnV, kAttnOutput, kFfnGate, kFfnUp, kFfnDown };
inline constexpr int kNumAdapterRoles = 7;
inline constexpr int kMaxSharedInput = 3;  // roles that read the same input: q, k and v
inline constexpr int64_t kMaxAdapterRank = 1024;

// What is added to one matrix W: W x + scale * B (A x).
struct LowRank {
  int64_t rank = 0;      // 0: the matrix stays as it is
  std::vector<float> a;  // [rank][cols of W]
  std::vector<float> b;  // [rank][rows of W], B transposed
  float scale = 0.0F;
};

// A LoRA adapter: f32 values, whatever the file holds. Not changed any more once a step has used it.
class Adapter {
 public:
  explicit Adapter(const DecoderConfig& config);

  // a: [rank][cols], b: [rows][rank] of the matrix `role` of a layer. Throws std::invalid_argument that names what does
  // not fit, and then changes nothing. A pair that is added again replaces the first.
  void add(std::string_view role, int64_t layer, const TensorView& a, const TensorView& b, float scale);

  const LowRank& part(int64_t layer, AdapterRole role) const {
    return parts_[static_cast<size_t>(layer) * kNumAdapterRoles + static_cast<size_t>(role)];
  }
  int64_t max_rank() const { return max_rank_; }  // of all its parts
  size_t num_bytes() const { return num_bytes_; }
  bool fits(const DecoderConfig& config) const;  // made for a model of these sizes

 private:
  struct Sizes {
    int64_t num_layers, hidden, intermediate, query, key;
    bool operator==(const Sizes&) const = default;
  };
  static Sizes sizes_of(const DecoderConfig& config);

  const Sizes sizes_;
  std::vector<LowRank> parts_;  // [num_layers][kNumAdapterRoles]
  int64_t max_rank_ = 0;
  size_t num_bytes_ = 0;
};

// The rows of one adapter in a step, ascending.
struct AdapterGroup {
  const Adapter* adapter = nullptr;
  std::vector<int32_t> rows;
};

// Which rows of a step have which adapter; rows without one are in no group.
class AdapterRows {
 public:
  // Of all rows of the batch, or of its logit rows, numbered in their order.
  void build_all(const Batch& batch);
  void build_logit_rows(const Batch& batch, const std::vector<int32_t>& row_seq);

  bool empty() const { return groups_.empty(); }
  const std::vector<AdapterGroup>& groups() const { return groups_; }
  int64_t rank_stride() const { return rank_stride_; }  // floats that one role's A x takes for a row

 private:
  void add_rows(const Adapter* adapter, int64_t row_begin, int64_t row_end);

  std::vector<AdapterGroup> groups_;
  int64_t rank_stride_ = 0;
};

// The adapters of one step: of all rows, and of the rows that the last layer goes on with.
struct StepAdapters {
  AdapterRows all;
  AdapterRows logit_rows;
};

}  // namespace corral
