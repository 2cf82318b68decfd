#include "model/decoder_worker.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace corral {
namespace {

const float* or_null(const Vector& vector) { return vector.empty() ? nullptr : vector.data(); }

}  // namespace

DecoderWorker::DecoderWorker(Model& model, const KVCache& kv_cache, const Batch& batch, const StepAdapters& adapters,
                             std::array<AttentionPlan*, 2> plans, Scratch& scratch, StageList& stages, int worker)
    : model_(model),
      kv_cache_(kv_cache),
      config_(model.config()),
      ops_(model.ops()),
      batch_(batch),
      adapters_(adapters),
      plans_(plans),
      scratch_(scratch),
      own_(scratch.workers[static_cast<size_t>(worker)]),
      stages_(stages),
      worker_(worker),
      num_workers_(model.pool().num_threads()),
      num_rows_(batch.num_tokens),
      x_(scratch.x),
      adapter_rows_(adapters.all.empty() ? nullptr : &adapters.all) {}

void DecoderWorker::run() {
  embed();
  const int64_t last = config_.num_layers - 1;
  for (int64_t layer = 0; layer <= last; ++layer) {
    project_qkv(layer);
    if (layer == last) {
      if (batch_.num_logit_rows == 0) return;  // K and V are all that was wanted
      keep_logit_rows();
    }
    attend(layer);
    attention_output(layer);
    feed_forward(layer);
  }
  head();
}

void DecoderWorker::embed() {
  share_evenly(num_rows_, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = x_ + row * config_.hidden_size;
      unpack_row(model_.token_embd().packed, batch_.token_ids[row], x);
      if (config_.embedding_scale != 1.0F) ops_.scale(x, config_.embedding_scale, config_.hidden_size);
      make_rope_table(row);
    }
    next_layer_input(0, begin, end);
  });
}

// The last layer goes on without the rows whose logits nobody wants: only their K and V mattered.
void DecoderWorker::keep_logit_rows() {
  num_rows_ = batch_.num_logit_rows;
  x_ = scratch_.selected;
  if (adapter_rows_ != nullptr) adapter_rows_ = &adapters_.logit_rows;
}

// Angles in double: at position 100,000 an f32 angle would be off by 0.004.
void DecoderWorker::make_rope_table(int64_t row) {
  const int64_t half = config_.rope_dim / 2;
  const double position = scratch_.row_position[static_cast<size_t>(row)];
  const int num_tables = config_.local_inv_freq.empty() ? 1 : 2;
  for (int table = 0; table < num_tables; ++table) {
    const std::vector<float>& inv_freq = table == 0 ? config_.inv_freq : config_.local_inv_freq;
    float* cos = scratch_.cos[static_cast<size_t>(table)] + row * half;
    float* sin = scratch_.sin[static_cast<size_t>(table)] + row * half;
    for (int64_t i = 0; i < half; ++i) {
      const double angle = position * static_cast<double>(inv_freq[static_cast<size_t>(i)]);
      cos[i] = static_cast<float>(std::cos(angle)) * config_.rope_attn_factor;
      sin[i] = static_cast<float>(std::sin(angle)) * config_.rope_attn_factor;
    }
  }
}

Activations DecoderWorker::activations(const Matrix& matrix, const float* input) const {
  const ActForm form = act_form(matrix.packed.type);
  Activations act =
      make_activations(form, num_rows_, matrix.packed.cols, scratch_.activations[static_cast<size_t>(form)]);
  act.f32 = input;
  return act;
}

// Quantises rows of the input once for each form that the matrices want.
void DecoderWorker::quantize(const float* input, int64_t k, int64_t row_begin, int64_t row_end,
                             std::initializer_list<const Matrix*> for_matrices) {
  std::array<bool, kNumActForms> done{};
  done[static_cast<size_t>(ActForm::kF32)] = true;
  for (const Matrix* matrix : for_matrices) {
    bool& is_done = done[static_cast<size_t>(act_form(matrix->packed.type))];
    if (!is_done) model_.matmul().quantize(input, k, activations(*matrix, input), row_begin, row_end);
    is_done = true;
  }
}

Activations DecoderWorker::inner_activations(const Matrix& ffn_down) const {
  const ActForm form = act_form(ffn_down.packed.type);
  Activations act = make_activations(form, num_rows_, ffn_down.packed.cols, scratch_.inner_activations);
  act.f32 = scratch_.inner;
  return act;
}

// The input of a layer's next matmul: norm(x), quantised.
void DecoderWorker::normalize(const Vector& norm, std::initializer_list<const Matrix*> for_matrices, int64_t row_begin,
                              int64_t row_end) {
  const int64_t hidden = config_.hidden_size;
  for (int64_t row = row_begin; row < row_end; ++row) {
    ops_.rms_norm(x_ + row * hidden, norm.data(), config_.norm_eps, hidden, scratch_.input + row * hidden);
  }
  quantize(scratch_.input, hidden, row_begin, row_end, for_matrices);
}

// After the last layer follows the head.
void DecoderWorker::next_layer_input(int64_t layer, int64_t row_begin, int64_t row_end) {
  if (layer == config_.num_layers) return normalize(model_.output_norm(), {&model_.head()}, row_begin, row_end);
  const LayerWeights& weights = model_.layer(layer);
  normalize(weights.attn_norm, {&weights.attn_q, &weights.attn_k, &weights.attn_v}, row_begin, row_end);
}

// x += target * act + bias for the outputs of the groups, by tiles that stay in this core's cache.
void DecoderWorker::add_product(const Target& target, const Activations& act, const Vector& bias, int64_t group_begin,
                                int64_t group_end) {
  const int64_t tile_groups = scratch_.tile_floats / (kTileColumns * num_rows_);
  for (int64_t group = group_begin; group < group_end; group += tile_groups) {
    const int64_t stop = std::min(group + tile_groups, group_end);
    const int64_t stride = (stop - group) * kTileColumns;
    const int64_t column = group * kTileColumns;
    const int64_t columns = std::min(stride, config_.hidden_size - column);
    // The kernels place output n at y[n]: begin the tile `column` floats earlier.
    model_.matmul().matmul(target.matrix.packed, act, own_.tile - column, stride, group, stop);
    add_adapters(target.layer, target.role, column, columns, own_.tile, stride);
    for (int64_t row = 0; row < num_rows_; ++row) {
      float* product = own_.tile + row * stride;
      if (!bias.empty()) ops_.add(product, bias.data() + column, columns);
      ops_.add(x_ + row * config_.hidden_size + column, product, columns);
    }
  }
}

// x += norm(projected + bias)
void DecoderWorker::add_projected(const Vector& bias, const Vector& norm, int64_t row_begin, int64_t row_end) {
  const int64_t hidden = config_.hidden_size;
  for (int64_t row = row_begin; row < row_end; ++row) {
    float* projected = scratch_.projected + row * scratch_.hidden_stride;
    if (!bias.empty()) ops_.add(projected, bias.data(), hidden);
    ops_.rms_norm(projected, norm.data(), config_.norm_eps, hidden, projected);
    ops_.add(x_ + row * hidden, projected, hidden);
  }
}

// Matmul of all three; then bias, norm and rotation, and K and V to the cache.
void DecoderWorker::project_qkv(int64_t layer) {
  struct Part {
    const Matrix* matrix;
    AdapterRole role;
    int64_t offset;  // of the output in a row of qkv
    int64_t first_group;
  };
  const LayerWeights& weights = model_.layer(layer);
  const int64_t q_groups = weights.attn_q.packed.num_groups();
  const int64_t k_groups = weights.attn_k.packed.num_groups();
  const std::array<Part, 3> parts = {{{&weights.attn_q, AdapterRole::kAttnQ, 0, 0},
                                      {&weights.attn_k, AdapterRole::kAttnK, scratch_.k_offset, q_groups},
                                      {&weights.attn_v, AdapterRole::kAttnV, scratch_.v_offset, q_groups + k_groups}}};
  const int64_t total = q_groups + k_groups + weights.attn_v.packed.num_groups();
  const auto project = [&](int64_t begin, int64_t end) {
    for (const Part& part : parts) {
      const PackedMatrix& packed = part.matrix->packed;
      const int64_t first = std::max<int64_t>(begin - part.first_group, 0);
      const int64_t stop = std::min(end - part.first_group, packed.num_groups());
      if (first >= stop) continue;
      model_.matmul().matmul(packed, activations(*part.matrix, scratch_.input), scratch_.qkv + part.offset,
                             scratch_.qkv_stride, first, stop);
      const int64_t column = first * kTileColumns;
      add_adapters(layer, part.role, column, std::min(stop * kTileColumns, packed.rows) - column,
                   scratch_.qkv + part.offset + column, scratch_.qkv_stride);
    }
  };
  const auto rotate = [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      rotate_heads(item / config_.num_kv_heads, item % config_.num_kv_heads, weights, layer);
    }
  };
  adapters_down(layer, {AdapterRole::kAttnQ, AdapterRole::kAttnK, AdapterRole::kAttnV},
                plain_rows(scratch_.input, config_.hidden_size));
  share_then(total, kMaxGroups, project, num_rows_ * config_.num_kv_heads, rotate);
}

// Bias, norm and rotation of the heads of one group of one row; K and V go to the cache.
void DecoderWorker::rotate_heads(int64_t row, int64_t kv_head, const LayerWeights& weights, int64_t layer) {
  const int64_t dim = config_.head_dim;
  const size_t table = config_.is_local(layer) && !config_.local_inv_freq.empty() ? 1 : 0;
  const float* cos = scratch_.cos[table] + row * config_.rope_dim / 2;
  const float* sin = scratch_.sin[table] + row * config_.rope_dim / 2;
  const auto prepare = [&](float* head, const float* bias, const float* norm) {
    if (bias != nullptr) ops_.add(head, bias, dim);
    if (norm != nullptr) ops_.rms_norm(head, norm, config_.norm_eps, dim, head);
    ops_.rope(head, cos, sin, config_.rope_dim, config_.rope_style);
  };
  const auto bias_of = [](const Vector& bias, int64_t offset) { return bias.empty() ? nullptr : bias.data() + offset; };
  float* qkv = scratch_.qkv + row * scratch_.qkv_stride;
  const int64_t group = config_.heads_per_kv();
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    float* q = qkv + head * dim;
    prepare(q, bias_of(weights.attn_q_bias, head * dim), or_null(weights.attn_q_norm));
    ops_.scale(q, config_.attn_scale, dim);
  }
  float* k = qkv + scratch_.k_offset + kv_head * dim;
  float* v = qkv + scratch_.v_offset + kv_head * dim;
  prepare(k, bias_of(weights.attn_k_bias, kv_head * dim), or_null(weights.attn_k_norm));
  if (!weights.attn_v_bias.empty()) ops_.add(v, weights.attn_v_bias.data() + kv_head * dim, dim);
  const int64_t position = scratch_.row_position[static_cast<size_t>(row)];
  const int64_t block = batch_.block_table(scratch_.row_seq[static_cast<size_t>(row)])[position / kBlockTokens];
  ops_.kv_of(kv_cache_.type())
      .store(k, v, dim, config_.padded_head_dim(), position % kBlockTokens,
             kv_cache_.pages(layer, kv_head) + block * kv_cache_.block_bytes());
}

// The input of attn_output; the last layer gathers the rows that it goes on with.
void DecoderWorker::quantize_attention(int64_t layer, int64_t row_begin, int64_t row_end) {
  const bool last = layer == config_.num_layers - 1;
  const int64_t hidden = config_.hidden_size;
  const int64_t width = config_.q_size();
  for (int64_t row = row_begin; last && row < row_end; ++row) {
    const int64_t source = batch_.logit_rows[row];
    std::memcpy(x_ + row * hidden, scratch_.x + source * hidden, static_cast<size_t>(hidden) * sizeof(float));
    std::memcpy(scratch_.input + row * width, scratch_.attention + source * width,
                static_cast<size_t>(width) * sizeof(float));
  }
  quantize(last ? scratch_.input : scratch_.attention, width, row_begin, row_end, {&model_.layer(layer).attn_output});
}

void DecoderWorker::attention_output(int64_t layer) {
  const LayerWeights& weights = model_.layer(layer);
  const bool last = layer == config_.num_layers - 1;
  const float* input = last ? scratch_.input : scratch_.attention;
  const Activations act = activations(weights.attn_output, input);
  const Target target{weights.attn_output, layer, AdapterRole::kAttnOutput};
  adapters_down(layer, {target.role}, plain_rows(input, config_.q_size()));
  add_to_residual(target, act, weights.attn_output_bias, weights.attn_post_norm, [&](int64_t begin, int64_t end) {
    normalize(weights.ffn_norm, {&weights.ffn_gate, &weights.ffn_up}, begin, end);
  });
}

void DecoderWorker::feed_forward(int64_t layer) {
  const LayerWeights& weights = model_.layer(layer);
  const int64_t num_groups = weights.ffn_gate.packed.num_groups();
  adapters_down(layer, {AdapterRole::kFfnGate, AdapterRole::kFfnUp}, plain_rows(scratch_.input, config_.hidden_size));
  share(num_groups, kMaxGroups, [&](int64_t begin, int64_t end) { gate_and_up(layer, begin, end); });
  const Target target{weights.ffn_down, layer, AdapterRole::kFfnDown};
  adapters_down(layer, {target.role}, inner_rows(weights.ffn_down));
  add_to_residual(target, inner_activations(weights.ffn_down), {}, weights.ffn_post_norm,
                  [&](int64_t begin, int64_t end) { next_layer_input(layer + 1, begin, end); });
}

// inner = activation(gate) * up for the outputs of the groups, by tiles that stay in this core's cache.
void DecoderWorker::gate_and_up(int64_t layer, int64_t group_begin, int64_t group_end) {
  const LayerWeights& weights = model_.layer(layer);
  const Activations gate_act = activations(weights.ffn_gate, scratch_.input);
  const Activations up_act = activations(weights.ffn_up, scratch_.input);
  const bool quantized = act_form(weights.ffn_down.packed.type) != ActForm::kF32;
  const int64_t inner_stride = quantized ? kUnitColumns : config_.intermediate_size;
  const int64_t tile_groups = scratch_.tile_floats / (kTileColumns * num_rows_);
  for (int64_t group = group_begin, stop = 0; group < group_end; group = stop) {
    const int64_t unit = group / kUnitGroups;
    stop = std::min({group + tile_groups, group_end, (unit + 1) * kUnitGroups});
    const int64_t stride = (stop - group) * kTileColumns;
    const int64_t column = group * kTileColumns;
    const int64_t columns = std::min(stride, config_.intermediate_size - column);
    // The kernels place output n at y[n]: begin the tile `column` floats earlier.
    model_.matmul().matmul(weights.ffn_gate.packed, gate_act, own_.tile - column, stride, group, stop);
    model_.matmul().matmul(weights.ffn_up.packed, up_act, own_.up - column, stride, group, stop);
    add_adapters(layer, AdapterRole::kFfnGate, column, columns, own_.tile, stride);
    add_adapters(layer, AdapterRole::kFfnUp, column, columns, own_.up, stride);
    float* inner = scratch_.inner + column;
    if (quantized) inner += unit * kUnitColumns * (num_rows_ - 1);
    for (int64_t row = 0; row < num_rows_; ++row) {
      ops_.gated(own_.tile + row * stride, own_.up + row * stride, config_.activation, columns,
                 inner + row * inner_stride);
    }
    if (quantized) finish_groups(weights.ffn_down, unit, stop - group);
  }
}

// Whoever ends the last groups of a unit of `inner` quantises it while it is in the cache.
void DecoderWorker::finish_groups(const Matrix& ffn_down, int64_t unit, int64_t groups) {
  const int64_t column = unit * kUnitColumns;
  const int64_t columns = std::min(kUnitColumns, config_.intermediate_size - column);
  std::atomic<int64_t>& done = scratch_.unit_groups[static_cast<size_t>(unit)];
  if (done.fetch_add(groups, std::memory_order_acq_rel) + groups != round_up_16(columns) / kTileColumns) return;
  done.store(0, std::memory_order_relaxed);  // nobody touches it again before the next layer
  model_.matmul().quantize(scratch_.inner + column * num_rows_, kUnitColumns,
                           activation_columns(inner_activations(ffn_down), column, columns), 0, num_rows_);
}

void DecoderWorker::head() {
  const PackedMatrix& packed = model_.head().packed;
  const Activations act = activations(model_.head(), scratch_.input);
  share(packed.num_groups(), kMaxGroups, [&](int64_t begin, int64_t end) {
    model_.matmul().matmul(packed, act, scratch_.logits, scratch_.logits_stride, begin, end);
    if (config_.logit_softcap == 0.0F) return;
    const int64_t column = begin * kTileColumns;
    const int64_t columns = std::min(end * kTileColumns, config_.vocab_size) - column;
    for (int64_t row = 0; row < num_rows_; ++row) {
      ops_.softcap(scratch_.logits + row * scratch_.logits_stride + column, config_.logit_softcap, columns);
    }
  });
}

}  // namespace corral
