#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "base/virtual_memory.h"
#include "kernels/matmul.h"
#include "kernels/ops.h"
#include "model/adapter.h"
#include "model/attention_plan.h"
#include "model/weights.h"

namespace corral {

inline constexpr int kNumActForms = 3;  // of ActForm

// Columns of the feed-forward layer that are quantised together: a tile of activations in every form.
inline constexpr int64_t kUnitColumns = 256;
inline constexpr int64_t kUnitGroups = kUnitColumns / kTileColumns;

inline int64_t round_up_16(int64_t n) { return (n + 15) / 16 * 16; }

struct WorkerScratch {
  float* tile = nullptr;    // a matmul's output before its epilogue, tile_floats
  float* up = nullptr;      // the same for ffn_up, while `tile` holds the gate
  float* scores = nullptr;  // [item rows][kChunkKeys]
  AttentionState state;
  AttentionState part;
  std::vector<const float*> queries;  // [item rows]
  std::vector<const int32_t*> block_tables;
  std::vector<int32_t> key_begin;
  std::vector<int32_t> key_end;
};

// All memory of a step, made once; pages are touched when first used.
struct Scratch {
  Scratch(const Model& model, const AttentionPlan& plan, int64_t max_tokens, int num_threads);

  float* x = nullptr;                                // [rows][hidden] the residual stream
  float* selected = nullptr;                         // [rows][hidden] the same for the rows whose logits are wanted
  float* input = nullptr;                            // [rows][k] input of the next matmul
  std::array<uint8_t*, kNumActForms> activations{};  // the input in the quantised forms
  float* qkv = nullptr;                              // [rows][qkv_stride] q, k, v, each begins at a multiple of 16
  float* attention = nullptr;                        // [rows][q size]
  float* low_rank = nullptr;                         // [rows][kMaxSharedInput][rank] A x of the rows with an adapter
  float* projected = nullptr;                        // [rows][hidden_stride] what a post-norm still has to go over
  float* inner = nullptr;  // input of ffn_down: [rows][intermediate], or [unit][rows][kUnitColumns] if it is quantised
  uint8_t* inner_activations = nullptr;                 // the same quantised, while `activations` are still read
  std::unique_ptr<std::atomic<int64_t>[]> unit_groups;  // [unit] groups of `inner` that are done; all 0 between stages
  float* logits = nullptr;                              // [rows][logits_stride]
  std::array<float*, 2> cos{};                          // [rows][rope_dim / 2] of global and of local layers
  std::array<float*, 2> sin{};
  std::array<AttentionState, 2> states{};  // [max_state_rows] of both plans
  std::vector<int32_t> row_seq;            // [rows]
  std::vector<int32_t> row_position;       // [rows]
  std::vector<WorkerScratch> workers;

  int64_t k_offset = 0;  // in a row of qkv
  int64_t v_offset = 0;
  int64_t qkv_stride = 0;
  int64_t hidden_stride = 0;
  int64_t logits_stride = 0;
  int64_t tile_floats = 0;

 private:
  struct Layout;
  VirtualMemory memory_;
};

}  // namespace corral
