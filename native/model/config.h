#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace corral {

// What the decoder needs to know of a model: shapes, and the places where the dense families differ.
struct DecoderConfig {
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  float norm_eps = 0.0F;
  NormKind norm_kind = NormKind::kRms;
  bool is_post_norm = false;  // what a norm gives replaces the residual stream (BERT), not only feeds the next matmul
  bool is_causal = true;      // else a row sees its whole sequence, of which all rows come in one step
  bool is_gated = true;       // else the feed-forward is activation(up), without a gate
  Activation activation = Activation::kSilu;
  RopeStyle rope_style = RopeStyle::kInterleaved;
  int64_t num_positions = 0;          // learned position embeddings; 0: none
  int64_t num_token_types = 0;        // token type embeddings, of which 0 is added to all tokens; 0: none
  int64_t rope_dim = 0;               // the first rope_dim values of a head are rotated
  std::vector<float> inv_freq;        // [rope_dim / 2] radians per token
  std::vector<float> local_inv_freq;  // [rope_dim / 2] of the local layers; empty: as inv_freq
  float rope_attn_factor = 1.0F;      // multiplies cos and sin
  float attn_scale = 0.0F;            // multiplies q . k
  float embedding_scale = 1.0F;
  // Local layers: key j is visible to query i iff i - j < sliding_window, or |i - j| <= sliding_window / 2 if not
  // causal; 0: all.
  int64_t sliding_window = 0;
  std::vector<bool> layer_is_local;  // [num_layers]
  float attn_softcap = 0.0F;         // 0: none
  float logit_softcap = 0.0F;        // 0: none

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
  int64_t heads_per_kv() const { return num_heads / num_kv_heads; }
  int64_t padded_head_dim() const { return (head_dim + 15) / 16 * 16; }
  bool is_local(int64_t layer) const { return layer_is_local[static_cast<size_t>(layer)]; }

  // Throws std::invalid_argument that names the field, its value and what is allowed.
  void check() const;
};

}  // namespace corral
