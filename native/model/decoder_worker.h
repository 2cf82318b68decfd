#pragma once

#include <array>
#include <cstdint>

#include "model/attention_plan.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace corral {

// One worker's walk through a step. All workers run the same stages in the same order; a stage that others read from
// ends in a barrier. Each stage takes the next WorkQueue.
class DecoderWorker {
 public:
  DecoderWorker(Model& model, const KVCache& kv_cache, const Batch& batch, std::array<AttentionPlan*, 2> plans,
                Scratch& scratch, WorkQueue* queues, int worker);

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
  void finish_tile(const AttentionItem& item, const AttentionState& state);
  void gate_and_up(const LayerWeights& weights, int64_t group_begin, int64_t group_end);
  void add_residual(float* x, const float* y, const Vector& bias, const Vector& norm, float* scratch);
  void quantize(const float* input, int64_t k, int64_t row_begin, int64_t row_end,
                std::initializer_list<const Matrix*> for_matrices);
  Activations activations(const Matrix& matrix, const float* input) const;
  void multiply(const Matrix& matrix, const float* input, float* out, int64_t stride);

  // Rows of which every worker has its own copy, or shares one.
  bool replicated() const { return num_rows_ <= kReplicatedRows; }
  const RowBuffers& rows() const { return replicated() ? own_.rows : scratch_.rows; }

  // Calls body(begin, end) for ranges of [0, num_rows_): all rows if replicated, else this worker's share, then waits.
  template <class Body>
  void for_rows(Body&& body);
  // Shares [0, total) out among the workers, then waits for all of them.
  template <class Body>
  void share(int64_t total, int64_t tail_step, Body&& body);

  Model& model_;
  const KVCache& kv_cache_;
  const DecoderConfig& config_;
  const OpsKernels& ops_;
  const Batch& batch_;
  const std::array<AttentionPlan*, 2> plans_;  // of global and of local layers
  Scratch& scratch_;
  WorkerScratch& own_;
  WorkQueue* next_queue_;
  const int worker_;
  const int num_workers_;
  int64_t num_rows_;  // all tokens; from the last layer's attention on the rows whose logits are wanted
  float* x_;          // residual stream of these rows
};

}  // namespace corral
