#include "model/adapter.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "quant/pack.h"
#include "quant/tensor_type.h"

namespace corral {
namespace {

constexpr std::array<std::string_view, kNumAdapterRoles> kRoleNames = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                                       "ffn_gate", "ffn_up", "ffn_down"};

size_t find_role(std::string_view role) {
  std::string names;
  for (size_t index = 0; index < kRoleNames.size(); ++index) {
    if (kRoleNames[index] == role) return index;
    names.append(index == 0 ? "" : ", ").append(kRoleNames[index]);
  }
  throw std::invalid_argument("role is \"" + std::string(role) + "\"; an adapter may change " + names);
}

// All values as floats, [rows][cols].
std::vector<float> floats_of(const TensorView& tensor) {
  const int64_t row_bytes = tensor.cols / block_size(tensor.type) * block_bytes(tensor.type);
  std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
  for (int64_t row = 0; row < tensor.rows; ++row) {
    dequantize_row(tensor.type, tensor.data + row * row_bytes, tensor.cols, values.data() + row * tensor.cols);
  }
  return values;
}

void check(const std::string& name, const TensorView& tensor, int64_t rows, int64_t cols) {
  const std::string shape = std::to_string(rows) + ", " + std::to_string(cols);
  if (tensor.rows != rows || tensor.cols != cols) {
    throw std::invalid_argument(name + " has shape [" + std::to_string(tensor.rows) + ", " +
                                std::to_string(tensor.cols) + "]; it must have [" + shape + "]");
  }
  const int64_t block = block_size(tensor.type);
  const std::string type = std::to_string(static_cast<uint32_t>(tensor.type));
  if (block == 0 || cols % block != 0) {
    throw std::invalid_argument(name + " has tensor type " + type + ", which cannot hold [" + shape + "]");
  }
  const size_t bytes = static_cast<size_t>(rows * (cols / block) * block_bytes(tensor.type));
  if (tensor.num_bytes != bytes) {
    throw std::invalid_argument(name + " has " + std::to_string(tensor.num_bytes) + " bytes; its shape and type make " +
                                std::to_string(bytes));
  }
}

}  // namespace

Adapter::Sizes Adapter::sizes_of(const DecoderConfig& config) {
  return {.num_layers = config.num_layers,
          .hidden = config.hidden_size,
          .intermediate = config.intermediate_size,
          .query = config.q_size(),
          .key = config.kv_size()};
}

Adapter::Adapter(const DecoderConfig& config)
    : sizes_(sizes_of(config)), parts_(static_cast<size_t>(config.num_layers * kNumAdapterRoles)) {}

bool Adapter::fits(const DecoderConfig& config) const { return sizes_ == sizes_of(config); }

void Adapter::add(std::string_view role, int64_t layer, const TensorView& a, const TensorView& b, float scale) {
  const size_t index = find_role(role);
  const std::string name = std::string(role) + " of layer " + std::to_string(layer);
  if (layer < 0 || layer >= sizes_.num_layers) {
    throw std::invalid_argument("layer is " + std::to_string(layer) + "; it must be from 0 to " +
                                std::to_string(sizes_.num_layers - 1));
  }
  const int64_t rank = a.rows;
  if (rank < 1 || rank > kMaxAdapterRank) {
    throw std::invalid_argument(name + " has rank " + std::to_string(rank) + "; it must be from 1 to " +
                                std::to_string(kMaxAdapterRank));
  }
  if (!std::isfinite(scale)) throw std::invalid_argument("the scale of " + name + " is not finite");
  const std::array<std::pair<int64_t, int64_t>, kNumAdapterRoles> shapes = {{{sizes_.query, sizes_.hidden},
                                                                             {sizes_.key, sizes_.hidden},
                                                                             {sizes_.key, sizes_.hidden},
                                                                             {sizes_.hidden, sizes_.query},
                                                                             {sizes_.intermediate, sizes_.hidden},
                                                                             {sizes_.intermediate, sizes_.hidden},
                                                                             {sizes_.hidden, sizes_.intermediate}}};
  const auto [rows, cols] = shapes[index];
  check("A for " + name, a, rank, cols);
  check("B for " + name, b, rows, rank);
  LowRank part{.rank = rank, .a = floats_of(a), .b = {}, .scale = scale};
  part.b.resize(static_cast<size_t>(rows * rank));
  const std::vector<float> by_rows = floats_of(b);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t j = 0; j < rank; ++j) {
      part.b[static_cast<size_t>(j * rows + row)] = by_rows[static_cast<size_t>(row * rank + j)];
    }
  }
  LowRank& slot = parts_[static_cast<size_t>(layer) * kNumAdapterRoles + index];
  num_bytes_ += (part.a.size() + part.b.size() - slot.a.size() - slot.b.size()) * sizeof(float);
  max_rank_ = std::max(max_rank_, rank);
  slot = std::move(part);
}

void AdapterRows::add_rows(const Adapter* adapter, int64_t row_begin, int64_t row_end) {
  auto group =
      std::find_if(groups_.begin(), groups_.end(), [&](const AdapterGroup& known) { return known.adapter == adapter; });
  if (group == groups_.end()) {
    group = groups_.insert(group, AdapterGroup{.adapter = adapter, .rows = {}});
    rank_stride_ = std::max(rank_stride_, (adapter->max_rank() + 15) / 16 * 16);
  }
  for (int64_t row = row_begin; row < row_end; ++row) group->rows.push_back(static_cast<int32_t>(row));
}

void AdapterRows::build_all(const Batch& batch) {
  groups_.clear();
  rank_stride_ = 0;
  for (int64_t seq = 0; batch.adapter_ids != nullptr && seq < batch.num_seqs; ++seq) {
    const Adapter* adapter = batch.adapter_of(seq);
    if (adapter != nullptr) add_rows(adapter, batch.seq_offsets[seq], batch.seq_offsets[seq + 1]);
  }
}

void AdapterRows::build_logit_rows(const Batch& batch, const std::vector<int32_t>& row_seq) {
  groups_.clear();
  rank_stride_ = 0;
  for (int64_t row = 0; batch.adapter_ids != nullptr && row < batch.num_logit_rows; ++row) {
    const Adapter* adapter = batch.adapter_of(row_seq[static_cast<size_t>(batch.logit_rows[row])]);
    if (adapter != nullptr) add_rows(adapter, row, row + 1);
  }
}

}  // namespace corral
