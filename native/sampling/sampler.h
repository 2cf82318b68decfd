#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "base/virtual_memory.h"
#include "kernels/ops.h"

namespace corral {

// Sampling settings of `num_rows` rows of logits: a view of the caller's arrays, checked by the caller.
struct SamplingBatch {
  int64_t num_rows = 0;
  const float* temperature = nullptr;         // [num_rows] 0: the greatest logit, lowest id among equals
  const int32_t* top_k = nullptr;             // [num_rows] 0 or -1: all
  const float* top_p = nullptr;               // [num_rows] 1: all
  const float* min_p = nullptr;               // [num_rows] 0: all
  const float* repetition_penalty = nullptr;  // [num_rows] 1: none
  const float* presence_penalty = nullptr;    // [num_rows] 0: none
  const float* frequency_penalty = nullptr;   // [num_rows] 0: none
  const uint64_t* seeds = nullptr;            // [num_rows]
  const int64_t* positions = nullptr;         // [num_rows]
  const int32_t* history_offsets = nullptr;   // [num_rows + 1] tokens so far: history_ids[offsets[r], offsets[r + 1])
  const int32_t* history_ids = nullptr;
  const int32_t* output_starts = nullptr;  // [num_rows] where in its history a row's output begins
  const int32_t* bias_offsets = nullptr;   // [num_rows + 1]
  const int32_t* bias_ids = nullptr;
  const float* bias_values = nullptr;
  const uint32_t* mask = nullptr;  // [num_rows][ceil(vocab / 32)] bit set: token allowed; null: all are
};

// Draws one token for each row. Steps: mask, bias, penalties (repetition, then frequency and presence), temperature,
// min_p, top_k, top_p (of what top_k left), draw. A row's result depends only on its logits and settings.
class Sampler {
 public:
  Sampler(const OpsKernels& ops, int64_t vocab_size, int num_threads);

  // logits: [num_rows][stride], left as they are. out[r] is a token id, or -1 if the row's logits hold NaN or nothing
  // is allowed.
  void sample(ThreadPool& pool, const float* logits, int64_t stride, const SamplingBatch& batch, int32_t* out);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  // Memory of one worker; touched by the rows that need it.
  struct Worker {
    float* logits = nullptr;    // [vocab] edited copy of a row
    int32_t* counts = nullptr;  // [vocab] zero between rows: 1 + occurrences in the output
    int32_t* ids = nullptr;     // [vocab] selected tokens
    float* weights = nullptr;   // [vocab]
    std::vector<Candidate> candidates;
  };
  // A row after the edits: weight of token t = exp((logits[t] - max) * scale) if logits[t] >= floor.
  struct Row {
    const float* logits;
    float max;
    float scale;
    float floor;
    double uniform;
  };

  int32_t sample_row(const float* logits, const SamplingBatch& batch, int64_t row, Worker& worker) const;
  const float* edit(const float* logits, const SamplingBatch& batch, int64_t row, Worker& worker) const;
  void penalize(const SamplingBatch& batch, int64_t row, Worker& worker) const;
  int32_t draw_from_all(const Row& row, Worker& worker) const;
  int32_t draw_from_top(const Row& row, int64_t top_k, float top_p, Worker& worker) const;
  void select_candidates(const Row& row, float floor, Worker& worker) const;
  void sort_candidates(const Row& row, int64_t count, Worker& worker) const;
  double total_weight(const Row& row, Worker& worker) const;

  const OpsKernels& ops_;
  const int64_t vocab_size_;
  VirtualMemory memory_;
  std::vector<Worker> workers_;
};

}  // namespace corral
