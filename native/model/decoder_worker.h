#pragma once

#include <array>
#include <cstdint>

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
  // --- stages of a step, in order
  void embed();
  void attention_input(int64_t layer);
  void project_qkv(const LayerWeights& weights);
  void rotate_and_store(int64_t layer);
  void attend(int64_t layer);
  void attention_output(int64_t layer);
  void feed_forward(const LayerWeights& weights);
  void head();

  // --- parts of stages
  void make_rope_table(int64_t row);
  void rotate_heads(int64_t row, int64_t kv_head, const LayerWeights& weights, int64_t layer);
  void attend_item(const AttentionItem& item, AttentionPlan& plan, int64_t layer);
  AttentionTile gather_rows(const AttentionItem& item, const AttentionPlan& plan, int64_t layer);
  void merge_chunks(const AttentionRows& rows, const AttentionPlan& plan, int64_t layer, int32_t kv_head);
  void finish_rows(const AttentionRows& rows, int32_t kv_head);
  void gate_and_up(const LayerWeights& weights, int64_t group_begin, int64_t group_end);
  void add_residual(float* x, const float* y, const Vector& bias, const Vector& norm, float* scratch);
  void quantize(const float* input, int64_t k, int64_t row_begin, int64_t row_end,
                std::initializer_list<const Matrix*> for_matrices);
  Activations activations(const Matrix& matrix, const float* input) const;
  void multiply(const Matrix& matrix, const float* input, float* out, int64_t stride);

  // One stage: calls body(begin, end) for pieces of [0, total), returns when all of them are done.
  template <class Body>
  void share(int64_t total, int64_t step, Body&& body) {
    stages_.run(next_stage_++, total, step, worker_, body);
  }
  template <class Body>
  void share_rows(Body&& body) {
    share(num_rows_, num_rows_ / (16 * num_workers_), body);
  }
  template <class Body>
  void share_groups(int64_t num_groups, Body&& body) {
    share(num_groups, num_groups / (32 * num_workers_), body);
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
  int64_t num_rows_;  // all tokens; from the last layer's attention on the rows whose logits are wanted
  float* x_;          // residual stream of these rows
};

}  // namespace corral
