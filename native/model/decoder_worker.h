#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <initializer_list>

#include "model/adapter.h"
#include "model/attention_plan.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace corral {

// One worker's walk through a step. All workers run the same stages in the same order and share each of them out; a
// worker that comes late finds a stage done and goes on to the next. So a stage may only write what is shared, and
// nothing of one stage may live in a worker until another.
class DecoderWorker {
 public:
  DecoderWorker(Model& model, const KVCache& kv_cache, const Batch& batch, const StepAdapters& adapters,
                std::array<AttentionPlan*, 2> plans, Scratch& scratch, StageList& stages, int worker);

  void run();

 private:
  static constexpr int64_t kFewRows = 2;     // up to it a stage of rows is the tail of the one before
  static constexpr int64_t kMaxGroups = 16;  // of a matmul that are taken at once

  // A matrix of a layer, and what adapters know it as.
  struct Target {
    const Matrix& matrix;
    int64_t layer;
    AdapterRole role;
  };
  // Rows of columns in units, as LowRankDown has them.
  struct UnitRows {
    const float* x;
    int64_t row_stride;
    int64_t unit_columns;
    int64_t unit_stride;
    int64_t columns;
  };

  // --- stages of a step, in order; with few rows five a layer, with many nine; if some row has an adapter four more
  void embed();
  void project_qkv(int64_t layer);
  void attend(int64_t layer);
  void attention_output(int64_t layer);
  void feed_forward(int64_t layer);
  void head();

  // --- parts of stages
  void keep_logit_rows();
  void make_rope_table(int64_t row);
  void normalize(const Vector& norm, std::initializer_list<const Matrix*> for_matrices, int64_t row_begin,
                 int64_t row_end);
  void next_layer_input(int64_t layer, int64_t row_begin, int64_t row_end);
  void rotate_heads(int64_t row, int64_t kv_head, const LayerWeights& weights, int64_t layer);
  void attend_item(const AttentionItem& item, AttentionPlan& plan, int64_t layer);
  AttentionTile gather_rows(const AttentionItem& item, const AttentionPlan& plan, int64_t layer);
  void merge_chunks(const AttentionRows& rows, const AttentionPlan& plan, int64_t layer, int32_t kv_head);
  void finish_rows(const AttentionRows& rows, int32_t kv_head);
  void quantize_attention(int64_t layer, int64_t row_begin, int64_t row_end);
  void gate_and_up(int64_t layer, int64_t group_begin, int64_t group_end);
  void finish_groups(const Matrix& ffn_down, int64_t unit, int64_t groups);
  void add_product(const Target& target, const Activations& act, const Vector& bias, int64_t group_begin,
                   int64_t group_end);
  void add_projected(const Vector& bias, const Vector& norm, int64_t row_begin, int64_t row_end);
  void quantize(const float* input, int64_t k, int64_t row_begin, int64_t row_end,
                std::initializer_list<const Matrix*> for_matrices);
  void adapters_down(int64_t layer, std::initializer_list<AdapterRole> roles, const UnitRows& input);
  void adapters_down_items(int64_t layer, std::initializer_list<AdapterRole> roles, const UnitRows& input,
                           int64_t begin, int64_t end);
  void add_adapters(int64_t layer, AdapterRole role, int64_t column, int64_t columns, float* y, int64_t y_stride);
  static UnitRows plain_rows(const float* x, int64_t columns) { return {x, columns, columns, columns, columns}; }
  UnitRows inner_rows(const Matrix& ffn_down) const;
  Activations activations(const Matrix& matrix, const float* input) const;
  Activations inner_activations(const Matrix& ffn_down) const;

  // One stage: calls body(begin, end) for pieces of [0, total), returns when all of them are done.
  template <class Body>
  void share(int64_t total, int64_t max_step, Body&& body) {
    stages_.run(next_stage_++, total, max_step, worker_, body);
  }
  template <class Body>
  void share_evenly(int64_t total, Body&& body) {
    share(total, total / (16 * num_workers_), body);
  }
  // A stage and then next(begin, end) for pieces of [0, next_total). With few rows that is not worth a stage of its
  // own: whoever ends the first does it all.
  template <class Body, class Next>
  void share_then(int64_t total, int64_t max_step, Body&& body, int64_t next_total, Next&& next) {
    if (num_rows_ <= kFewRows) {
      stages_.run(next_stage_++, total, max_step, worker_, body, [&] { next(int64_t{0}, next_total); });
    } else {
      share(total, max_step, body);
      share_evenly(next_total, next);
    }
  }
  template <class Body, class Next>
  void share_then_rows(int64_t total, int64_t max_step, Body&& body, Next&& next) {
    share_then(total, max_step, body, num_rows_, next);
  }
  // x += target * act, by way of norm if there is one, and then next(begin, end) for pieces of the rows.
  template <class Next>
  void add_to_residual(const Target& target, const Activations& act, const Vector& bias, const Vector& norm,
                       Next&& next) {
    const PackedMatrix& packed = target.matrix.packed;
    const int64_t num_groups = packed.num_groups();
    if (norm.empty()) {
      const auto add_groups = [&](int64_t begin, int64_t end) { add_product(target, act, bias, begin, end); };
      share_then_rows(num_groups, kMaxGroups, add_groups, next);
      return;
    }
    const auto project = [&](int64_t begin, int64_t end) {
      model_.matmul().matmul(packed, act, scratch_.projected, scratch_.hidden_stride, begin, end);
      const int64_t column = begin * kTileColumns;
      add_adapters(target.layer, target.role, column, std::min(end * kTileColumns, packed.rows) - column,
                   scratch_.projected + column, scratch_.hidden_stride);
    };
    share_then_rows(num_groups, kMaxGroups, project, [&](int64_t begin, int64_t end) {
      add_projected(bias, norm, begin, end);
      next(begin, end);
    });
  }

  Model& model_;
  const KVCache& kv_cache_;
  const DecoderConfig& config_;
  const OpsKernels& ops_;
  const Batch& batch_;
  const StepAdapters& adapters_;
  const std::array<AttentionPlan*, 2> plans_;  // of global and of local layers
  Scratch& scratch_;
  WorkerScratch& own_;
  StageList& stages_;
  int64_t next_stage_ = 0;
  const int worker_;
  const int num_workers_;
  int64_t num_rows_;  // all tokens; after the last layer's keys and values the rows whose logits are wanted
  float* x_;          // residual stream of these rows
  const AdapterRows* adapter_rows_;  // which of these rows have one; null if none of the step has
};

}  // namespace corral
