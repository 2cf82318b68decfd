#include "model/decoder_worker.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace corral {
namespace {

const float* or_null(const Vector& vector) { return vector.empty() ? nullptr : vector.data(); }

}  // namespace

DecoderWorker::DecoderWorker(Model& model, const KVCache& kv_cache, const Batch& batch,
                             std::array<AttentionPlan*, 2> plans, Scratch& scratch, StageList& stages, int worker)
    : model_(model),
      kv_cache_(kv_cache),
      config_(model.config()),
      ops_(model.ops()),
      batch_(batch),
      plans_(plans),
      scratch_(scratch),
      own_(scratch.workers[static_cast<size_t>(worker)]),
      stages_(stages),
      worker_(worker),
      num_workers_(model.pool().num_threads()),
      num_rows_(batch.num_tokens),
      x_(scratch.x) {}

void DecoderWorker::run() {
  embed();
  const int64_t last = config_.num_layers - 1;
  for (int64_t layer = 0; layer <= last; ++layer) {
    attention_input(layer);
    project_qkv(model_.layer(layer));
    rotate_and_store(layer);
    if (layer == last && batch_.num_logit_rows == 0) return;  // K and V are all that was wanted
    attend(layer);
    attention_output(layer);
    feed_forward(model_.layer(layer));
  }
  head();
}

void DecoderWorker::embed() {
  share_rows([&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = x_ + row * config_.hidden_size;
      unpack_row(model_.token_embd().packed, batch_.token_ids[row], x);
      if (config_.embedding_scale != 1.0F) ops_.scale(x, config_.embedding_scale, config_.hidden_size);
      make_rope_table(row);
    }
  });
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

void DecoderWorker::multiply(const Matrix& matrix, const float* input, float* out, int64_t stride) {
  const Activations act = activations(matrix, input);
  share_groups(matrix.packed.num_groups(), [&](int64_t begin, int64_t end) {
    model_.matmul().matmul(matrix.packed, act, out, stride, begin, end);
  });
}

// x += norm(y + bias); bias and norm may be empty. `scratch` holds hidden_size floats.
void DecoderWorker::add_residual(float* x, const float* y, const Vector& bias, const Vector& norm, float* scratch) {
  const int64_t n = config_.hidden_size;
  if (!bias.empty()) {
    std::memcpy(scratch, y, static_cast<size_t>(n) * sizeof(float));
    ops_.add(scratch, bias.data(), n);
    y = scratch;
  }
  if (!norm.empty()) {
    ops_.rms_norm(y, norm.data(), config_.norm_eps, n, scratch);
    y = scratch;
  }
  ops_.add(x, y, n);
}

void DecoderWorker::attention_input(int64_t layer) {
  const LayerWeights& weights = model_.layer(layer);
  float* input = scratch_.input;
  share_rows([&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = x_ + row * config_.hidden_size;
      float* out = input + row * config_.hidden_size;
      if (layer > 0) {
        add_residual(x, scratch_.down + row * scratch_.hidden_stride, {}, model_.layer(layer - 1).ffn_post_norm, out);
      }
      ops_.rms_norm(x, weights.attn_norm.data(), config_.norm_eps, config_.hidden_size, out);
    }
    quantize(input, config_.hidden_size, begin, end, {&weights.attn_q, &weights.attn_k, &weights.attn_v});
  });
}

void DecoderWorker::project_qkv(const LayerWeights& weights) {
  struct Part {
    const Matrix* matrix;
    int64_t offset;  // of the output in a row of qkv
    int64_t first_group;
  };
  const int64_t q_groups = weights.attn_q.packed.num_groups();
  const int64_t k_groups = weights.attn_k.packed.num_groups();
  const std::array<Part, 3> parts = {{{&weights.attn_q, 0, 0},
                                      {&weights.attn_k, scratch_.k_offset, q_groups},
                                      {&weights.attn_v, scratch_.v_offset, q_groups + k_groups}}};
  const int64_t total = q_groups + k_groups + weights.attn_v.packed.num_groups();
  const float* input = scratch_.input;
  share_groups(total, [&](int64_t begin, int64_t end) {
    for (const Part& part : parts) {
      const PackedMatrix& packed = part.matrix->packed;
      const int64_t first = std::max<int64_t>(begin - part.first_group, 0);
      const int64_t stop = std::min(end - part.first_group, packed.num_groups());
      if (first >= stop) continue;
      model_.matmul().matmul(packed, activations(*part.matrix, input), scratch_.qkv + part.offset, scratch_.qkv_stride,
                             first, stop);
    }
  });
}

void DecoderWorker::rotate_and_store(int64_t layer) {
  const LayerWeights& weights = model_.layer(layer);
  const int64_t total = num_rows_ * config_.num_kv_heads;
  share(total, total / (16 * num_workers_), [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      rotate_heads(item / config_.num_kv_heads, item % config_.num_kv_heads, weights, layer);
    }
  });
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

// The last layer drops the rows whose logits nobody wants: only their K and V mattered.
void DecoderWorker::attention_output(int64_t layer) {
  const LayerWeights& weights = model_.layer(layer);
  const int64_t hidden = config_.hidden_size;
  const bool last = layer == config_.num_layers - 1;
  const float* all_x = x_;
  const float* attention = scratch_.attention;
  if (last) {
    num_rows_ = batch_.num_logit_rows;
    x_ = scratch_.selected;
    attention = scratch_.input;
  }
  share_rows([&](int64_t begin, int64_t end) {
    for (int64_t row = begin; last && row < end; ++row) {
      const int64_t source = batch_.logit_rows[row];
      std::memcpy(x_ + row * hidden, all_x + source * hidden, static_cast<size_t>(hidden) * sizeof(float));
      std::memcpy(scratch_.input + row * config_.q_size(), scratch_.attention + source * config_.q_size(),
                  static_cast<size_t>(config_.q_size()) * sizeof(float));
    }
    quantize(attention, config_.q_size(), begin, end, {&weights.attn_output});
  });
  multiply(weights.attn_output, attention, scratch_.projected, scratch_.hidden_stride);
  float* input = scratch_.input;
  share_rows([&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = x_ + row * hidden;
      float* out = input + row * hidden;
      add_residual(x, scratch_.projected + row * scratch_.hidden_stride, weights.attn_output_bias,
                   weights.attn_post_norm, out);
      ops_.rms_norm(x, weights.ffn_norm.data(), config_.norm_eps, hidden, out);
    }
    quantize(input, hidden, begin, end, {&weights.ffn_gate, &weights.ffn_up});
  });
}

void DecoderWorker::feed_forward(const LayerWeights& weights) {
  share_groups(weights.ffn_gate.packed.num_groups(),
               [&](int64_t begin, int64_t end) { gate_and_up(weights, begin, end); });
  share_rows([&](int64_t begin, int64_t end) {
    quantize(scratch_.inner, config_.intermediate_size, begin, end, {&weights.ffn_down});
  });
  multiply(weights.ffn_down, scratch_.inner, scratch_.down, scratch_.hidden_stride);
}

// inner = activation(gate) * up for the outputs of the groups, by tiles that stay in this core's cache.
void DecoderWorker::gate_and_up(const LayerWeights& weights, int64_t group_begin, int64_t group_end) {
  const float* input = scratch_.input;
  const Activations gate_act = activations(weights.ffn_gate, input);
  const Activations up_act = activations(weights.ffn_up, input);
  const int64_t tile_groups = scratch_.tile_floats / (kTileColumns * num_rows_);
  for (int64_t group = group_begin; group < group_end; group += tile_groups) {
    const int64_t stop = std::min(group + tile_groups, group_end);
    const int64_t stride = (stop - group) * kTileColumns;
    const int64_t column = group * kTileColumns;
    const int64_t columns = std::min(stride, config_.intermediate_size - column);
    // The kernels place output n at y[n]: begin the tile `column` floats earlier.
    model_.matmul().matmul(weights.ffn_gate.packed, gate_act, own_.gate - column, stride, group, stop);
    model_.matmul().matmul(weights.ffn_up.packed, up_act, own_.up - column, stride, group, stop);
    for (int64_t row = 0; row < num_rows_; ++row) {
      ops_.gated(own_.gate + row * stride, own_.up + row * stride, config_.activation, columns,
                 scratch_.inner + row * config_.intermediate_size + column);
    }
  }
}

void DecoderWorker::head() {
  const Vector& last_norm = model_.layer(config_.num_layers - 1).ffn_post_norm;
  float* input = scratch_.input;
  share_rows([&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* x = x_ + row * config_.hidden_size;
      float* out = input + row * config_.hidden_size;
      add_residual(x, scratch_.down + row * scratch_.hidden_stride, {}, last_norm, out);
      ops_.rms_norm(x, model_.output_norm().data(), config_.norm_eps, config_.hidden_size, out);
    }
    quantize(input, config_.hidden_size, begin, end, {&model_.head()});
  });
  multiply(model_.head(), input, scratch_.logits, scratch_.logits_stride);
  if (config_.logit_softcap == 0.0F) return;
  share(num_rows_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      ops_.softcap(scratch_.logits + row * scratch_.logits_stride, config_.logit_softcap, config_.vocab_size);
    }
  });
}

}  // namespace corral
