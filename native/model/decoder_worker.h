#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

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
  DecoderWorker(Model& model, const KVCache& kv_cache, const Batch& batch, std::array<AttentionPlan*, 2> plans,
                Scratch& scratch, StageList& stages, int worker);

  void run();

 private:
  static constexpr int64_t kFewRows = 2;     // up to it a stage of rows is the tail of the one before
  static constexpr int64_t kMaxGroups = 16;  // of a matmul that are taken at once

  // --- stages of a step, in order; with few rows five a layer, with many nine
  void embed();
  void project_qkv(int64_t layer);
  void attend(int64_t layer);
  void attention_output(int64_t layer);
  void feed_forward(int64_t layer);
  void head();

  // --- parts of stages
  void keep_logit_rows();
  void make_rope_table(int64_t row);
  void norm_row(const float* x, const Vector& weight, const Vector& bias, float* out) const;
  void normalize(const Vector& norm, const Vector& norm_bias, std::initializer_list<const Matrix*> for_matrices, int64_t row_begin,
                 int64_t row_end);
  void next_layer_input(int64_t layer, int64_t row_begin, int64_t row_end);
  void rotate_heads(int64_t row, int64_t kv_head, const LayerWeights& weights, int64_t layer);
  void attend_item(const AttentionItem& item, AttentionPlan& plan, int64_t layer);
  AttentionTile gather_rows(const AttentionItem& item, const AttentionPlan& plan, int64_t layer);
  void merge_chunks(const AttentionRows& rows, const AttentionPlan& plan, int64_t layer, int32_t kv_head);
  void finish_rows(const AttentionRows& rows, int32_t kv_head);
  void quantize_attention(int64_t layer, int64_t row_begin, int64_t row_end);
  void embed_row(int64_t row);
  void gate_and_up(const LayerWeights& weights, int64_t group_begin, int64_t group_end);
  void finish_groups(const Matrix& ffn_down, int64_t unit, int64_t groups);
  void add_product(const Matrix& matrix, const Activations& act, const Vector& bias, int64_t group_begin,
                   int64_t group_end);
  void add_projected(const Vector& bias, const Vector& norm, int64_t row_begin, int64_t row_end);
  void quantize(const float* input, int64_t k, int64_t row_begin, int64_t row_end,
                std::initializer_list<const Matrix*> for_matrices);
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
  // x += matrix * act, by way of norm if there is one, and then next(begin, end) for pieces of the rows.
  template <class Next>
  void add_to_residual(const Matrix& matrix, const Activations& act, const Vector& bias, const Vector& norm,
                       Next&& next) {
    const int64_t num_groups = matrix.packed.num_groups();
    if (norm.empty()) {
      const auto add_groups = [&](int64_t begin, int64_t end) { add_product(matrix, act, bias, begin, end); };
      share_then_rows(num_groups, kMaxGroups, add_groups, next);
      return;
    }
    const auto project = [&](int64_t begin, int64_t end) {
      model_.matmul().matmul(matrix.packed, act, scratch_.projected, scratch_.hidden_stride, begin, end);
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
  const std::array<AttentionPlan*, 2> plans_;  // of global and of local layers
  Scratch& scratch_;
  WorkerScratch& own_;
  StageList& stages_;
  int64_t next_stage_ = 0;
  const int worker_;
  const int num_workers_;
  int64_t num_rows_;  // all tokens; after the last layer's keys and values the rows whose logits are wanted
  float* x_;          // residual stream of these rows
};

}  // namespace corral
