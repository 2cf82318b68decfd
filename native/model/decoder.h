#pragma once

#include <cstdint>

#include "base/thread_pool.h"
#include "model/adapter.h"
#include "model/attention_plan.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/scratch.h"
#include "model/weights.h"

namespace corral {

// One forward pass for the whole batch, for every dense family: llama, qwen2, qwen3, gemma3. The logits and the K and V
// of a row depend only on its own sequence: not on the other rows, the cut of the prompt or the number of threads.
class Decoder {
 public:
  // The model must be finished; model and cache must outlive the decoder. max_tokens is the most rows of a step.
  Decoder(Model& model, const KVCache& kv_cache, int64_t max_tokens);

  // Computes all rows, writes their K and V, and leaves the logits of batch.logit_rows. The batch must be in range:
  // tokens, positions, blocks, rows and adapters are not checked here. The caller holds a ModelUse.
  void forward(const Batch& batch);

  Model& model() { return model_; }
  int64_t max_tokens() const { return max_tokens_; }
  const float* logits() const { return scratch_.logits; }  // [num_logit_rows][logits_stride]
  int64_t logits_stride() const { return scratch_.logits_stride; }
  int64_t num_logit_rows() const { return num_logit_rows_; }  // of the last forward

 private:
  Model& model_;
  const KVCache& kv_cache_;
  const int64_t max_tokens_;
  int64_t num_logit_rows_ = 0;
  StepAdapters adapters_;
  AttentionPlan global_plan_;
  AttentionPlan local_plan_;
  Scratch scratch_;
  StageList stages_;
};

}  // namespace corral
