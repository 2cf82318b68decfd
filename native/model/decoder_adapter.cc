// Adapters in DecoderWorker: A x is a stage before the matmul it belongs to, B (A x) is added where the matmul's output
// is still in this core's cache.
#include <algorithm>

#include "model/decoder_worker.h"

namespace corral {
namespace {

constexpr int64_t kItemRows = 32;  // of an input that one item takes
constexpr int64_t kItemRanks = 4;  // rows of A
constexpr int64_t kMaxItems = 8;   // that are taken at once

int64_t parts(int64_t size, int64_t of) { return (size + of - 1) / of; }

// Items of one group of rows and one matrix, and those of a whole stage.
int64_t count_items(const AdapterGroup& group, const LowRank& part) {
  return parts(static_cast<int64_t>(group.rows.size()), kItemRows) * parts(part.rank, kItemRanks);
}

// Place of a role among those with the same input.
int64_t slot_of(AdapterRole role) {
  if (role == AdapterRole::kAttnK || role == AdapterRole::kFfnUp) return 1;
  return role == AdapterRole::kAttnV ? 2 : 0;
}

}  // namespace

// A stage, if some row has an adapter: scratch_.low_rank = scale * A x for the roles, which share the input.
void DecoderWorker::adapters_down(int64_t layer, std::initializer_list<AdapterRole> roles, const UnitRows& input) {
  if (adapter_rows_ == nullptr) return;
  int64_t total = 0;
  for (const AdapterGroup& group : adapter_rows_->groups()) {
    for (const AdapterRole role : roles) total += count_items(group, group.adapter->part(layer, role));
  }
  share(total, kMaxItems, [&](int64_t begin, int64_t end) { adapters_down_items(layer, roles, input, begin, end); });
}

// Items [begin, end) of the stage, in the order in which they were counted.
void DecoderWorker::adapters_down_items(int64_t layer, std::initializer_list<AdapterRole> roles, const UnitRows& input,
                                        int64_t begin, int64_t end) {
  const int64_t rank_stride = adapter_rows_->rank_stride();
  int64_t first = 0;
  for (const AdapterGroup& group : adapter_rows_->groups()) {
    const int64_t num_rows = static_cast<int64_t>(group.rows.size());
    for (const AdapterRole role : roles) {
      const LowRank& part = group.adapter->part(layer, role);
      const int64_t count = count_items(group, part);
      const int64_t rank_parts = parts(part.rank, kItemRanks);
      for (int64_t item = std::max(begin, first); item < std::min(end, first + count); ++item) {
        const int64_t row = (item - first) / rank_parts * kItemRows;
        const int64_t rank = (item - first) % rank_parts * kItemRanks;
        ops_.low_rank_down({.x = input.x,
                            .row_stride = input.row_stride,
                            .unit_columns = input.unit_columns,
                            .unit_stride = input.unit_stride,
                            .rows = group.rows.data() + row,
                            .num_rows = std::min(kItemRows, num_rows - row),
                            .a = part.a.data(),
                            .cols = input.columns,
                            .rank_begin = rank,
                            .rank_end = std::min(rank + kItemRanks, part.rank),
                            .scale = part.scale,
                            .out = scratch_.low_rank + slot_of(role) * rank_stride,
                            .out_stride = kMaxSharedInput * rank_stride});
      }
      first += count;
    }
  }
}

// y += B (A x) for columns [column, column + columns) of the matrix `role`; y is that of row 0 and the first of them.
void DecoderWorker::add_adapters(int64_t layer, AdapterRole role, int64_t column, int64_t columns, float* y,
                                 int64_t y_stride) {
  if (adapter_rows_ == nullptr) return;
  const int64_t rank_stride = adapter_rows_->rank_stride();
  for (const AdapterGroup& group : adapter_rows_->groups()) {
    const LowRank& part = group.adapter->part(layer, role);
    if (part.rank == 0) continue;
    const int64_t b_stride = static_cast<int64_t>(part.b.size()) / part.rank;
    ops_.low_rank_up({.t = scratch_.low_rank + slot_of(role) * rank_stride,
                      .t_stride = kMaxSharedInput * rank_stride,
                      .rows = group.rows.data(),
                      .num_rows = static_cast<int64_t>(group.rows.size()),
                      .b = part.b.data() + column,
                      .b_stride = b_stride,
                      .rank = part.rank,
                      .columns = columns,
                      .y = y,
                      .y_stride = y_stride});
  }
}

// The input of ffn_down in f32, as gate_and_up leaves it.
DecoderWorker::UnitRows DecoderWorker::inner_rows(const Matrix& ffn_down) const {
  if (act_form(ffn_down.packed.type) == ActForm::kF32) return plain_rows(scratch_.inner, config_.intermediate_size);
  return {.x = scratch_.inner,
          .row_stride = kUnitColumns,
          .unit_columns = kUnitColumns,
          .unit_stride = kUnitColumns * num_rows_,
          .columns = config_.intermediate_size};
}

}  // namespace corral
