#include "model/scratch.h"

#include <algorithm>

namespace corral {
namespace {

constexpr int64_t kTileFloats = int64_t{1} << 16;  // 256 KiB: two tiles stay in a core's L2 cache

// Bytes that an input of the matrix needs for `rows` rows in one form; 0 if the matrix wants another.
size_t input_bytes(const Matrix& matrix, ActForm form, int64_t rows) {
  return act_form(matrix.packed.type) == form ? activation_bytes(form, rows, matrix.packed.cols) : 0;
}

// The most that an input of any matrix but ffn_down needs.
size_t largest_input(const Model& model, ActForm form, int64_t rows) {
  size_t bytes = input_bytes(model.head(), form, rows);
  for (int64_t index = 0; index < model.config().num_layers; ++index) {
    const LayerWeights& layer = model.layer(index);
    for (const Matrix* matrix :
         {&layer.attn_q, &layer.attn_k, &layer.attn_v, &layer.attn_output, &layer.ffn_gate, &layer.ffn_up}) {
      bytes = std::max(bytes, input_bytes(*matrix, form, rows));
    }
  }
  return bytes;
}

// The same for ffn_down, in whichever form.
size_t largest_inner(const Model& model, int64_t rows) {
  size_t bytes = 0;
  for (int64_t index = 0; index < model.config().num_layers; ++index) {
    for (const ActForm form : {ActForm::kQ8x32, ActForm::kQ8x256}) {
      bytes = std::max(bytes, input_bytes(model.layer(index).ffn_down, form, rows));
    }
  }
  return bytes;
}

}  // namespace

// Hands out 64-byte aligned pieces of one range. Run twice: first with no memory to learn the size, then for real.
struct Scratch::Layout {
  uint8_t* base = nullptr;
  size_t used = 0;

  uint8_t* bytes(size_t count) {
    uint8_t* piece = base == nullptr ? nullptr : base + used;
    used += (count + 63) / 64 * 64;
    return piece;
  }
  float* floats(int64_t count) { return reinterpret_cast<float*>(bytes(static_cast<size_t>(count) * sizeof(float))); }

  AttentionState states(int64_t rows, int64_t padded_dim) {
    return {.max = floats(rows), .sum = floats(rows), .acc = floats(rows * padded_dim)};
  }
};

Scratch::Scratch(const Model& model, const AttentionPlan& plan, int64_t max_tokens, int num_threads)
    : row_seq(static_cast<size_t>(max_tokens)),
      row_position(static_cast<size_t>(max_tokens)),
      workers(static_cast<size_t>(num_threads)) {
  const DecoderConfig& config = model.config();
  k_offset = round_up_16(config.q_size());
  v_offset = k_offset + round_up_16(config.kv_size());
  qkv_stride = v_offset + round_up_16(config.kv_size());
  hidden_stride = round_up_16(config.hidden_size);
  logits_stride = round_up_16(config.vocab_size);
  tile_floats = std::max(kTileFloats, kTileColumns * max_tokens);
  const int64_t num_units = (config.intermediate_size + kUnitColumns - 1) / kUnitColumns;
  unit_groups = std::make_unique<std::atomic<int64_t>[]>(static_cast<size_t>(num_units));
  for (Layout layout;;) {
    layout.used = 0;
    x = layout.floats(max_tokens * config.hidden_size);
    selected = layout.floats(max_tokens * config.hidden_size);
    input = layout.floats(max_tokens * std::max(config.hidden_size, config.q_size()));
    for (const ActForm form : {ActForm::kQ8x32, ActForm::kQ8x256}) {
      activations[static_cast<size_t>(form)] = layout.bytes(largest_input(model, form, max_tokens));
    }
    inner_activations = layout.bytes(largest_inner(model, max_tokens));
    qkv = layout.floats(max_tokens * qkv_stride);
    attention = layout.floats(max_tokens * config.q_size());
    low_rank = layout.floats(max_tokens * kMaxSharedInput * kMaxAdapterRank);
    projected = layout.floats(max_tokens * hidden_stride);
    inner = layout.floats(max_tokens * num_units * kUnitColumns);
    logits = layout.floats(max_tokens * logits_stride);
    for (size_t table = 0; table < 2; ++table) {
      cos[table] = layout.floats(max_tokens * config.rope_dim / 2);
      sin[table] = layout.floats(max_tokens * config.rope_dim / 2);
      states[table] = layout.states(plan.max_state_rows(), config.padded_head_dim());
    }
    for (WorkerScratch& worker : workers) {
      worker.tile = layout.floats(tile_floats);
      worker.up = layout.floats(tile_floats);
      worker.scores = layout.floats(plan.max_item_rows() * kChunkKeys);
      worker.state = layout.states(plan.max_item_rows(), config.padded_head_dim());
      worker.part = layout.states(plan.max_item_rows(), config.padded_head_dim());
    }
    if (layout.base != nullptr) break;
    memory_ = VirtualMemory(layout.used);
    memory_.advise_huge_pages(false);  // only the rows in use take memory
    layout.base = memory_.data();
  }
  for (WorkerScratch& worker : workers) {
    const size_t item_rows = static_cast<size_t>(plan.max_item_rows());
    worker.queries.resize(item_rows);
    worker.block_tables.resize(item_rows);
    worker.key_begin.resize(item_rows);
    worker.key_end.resize(item_rows);
  }
}

}  // namespace corral
