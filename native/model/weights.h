#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/matmul.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "quant/pack.h"

namespace corral {

// A packed matrix with what keeps its memory alive: pages of its own, or a mapped file; empty until added.
struct Matrix {
  PackedMatrix packed;
  std::shared_ptr<const void> memory;
  size_t memory_bytes = 0;

  bool empty() const { return packed.data == nullptr; }
};

using Vector = std::vector<float>;  // empty if the model has none

struct LayerWeights {
  Matrix attn_q, attn_k, attn_v, attn_output, ffn_gate, ffn_up, ffn_down;
  Vector attn_norm, ffn_norm, attn_norm_bias, ffn_norm_bias, ffn_up_bias, ffn_down_bias, attn_q_bias, attn_k_bias, attn_v_bias, attn_output_bias, attn_q_norm, attn_k_norm,
      attn_post_norm, ffn_post_norm;
};

// A tensor as it stands in the file.
struct TensorView {
  TensorType type{};
  int64_t rows = 0;  // outputs; 1 for a vector
  int64_t cols = 0;
  const uint8_t* data = nullptr;
  size_t num_bytes = 0;
};

// The weights of one model, with the threads and kernels that compute on them.
class Model {
 public:
  // Throws std::invalid_argument for a config that cannot be.
  Model(DecoderConfig config, int num_threads, bool pin);

  // Packs a matrix, or copies a vector as f32, into memory of its own; a tensor added twice replaces the first.
  // `layer` is ignored for roles of the whole model. Throws std::invalid_argument and changes nothing if role, layer,
  // type, shape or size are wrong.
  void add_tensor(std::string_view role, int64_t layer, const TensorView& tensor);

  // Takes a matrix that is packed already, without a copy: `packed.data` is that of packed_matrix() of another Model,
  // 64-byte aligned, and stays as it is while `memory` lives. Its content is not checked: any bytes compute, if only to
  // nonsense. Throws as add_tensor does, and for a vector.
  void map_tensor(std::string_view role, int64_t layer, const TensorView& packed, std::shared_ptr<const void> memory);

  // A matrix that was added or mapped; throws std::invalid_argument if there is none.
  const Matrix& packed_matrix(std::string_view role, int64_t layer);

  // Throws std::invalid_argument with the names of the tensors that are missing.
  void finish();

  const DecoderConfig& config() const { return config_; }
  const LayerWeights& layer(int64_t index) const { return layers_[static_cast<size_t>(index)]; }
  const Matrix& token_embd() const { return token_embd_; }
  const Matrix& head() const { return output_.empty() ? token_embd_ : output_; }  // tied if the file has no `output`
  const Vector& output_norm() const { return output_norm_; }
  const Vector& output_norm_bias() const { return output_norm_bias_; }
  const Matrix& position_embd() const { return position_embd_; }
  const Matrix& token_types() const { return token_types_; }
  bool finished() const { return finished_; }
  size_t packed_bytes() const;

  ThreadPool& pool() { return pool_; }
  const MatmulKernels& matmul() const { return matmul_; }
  const OpsKernels& ops() const { return ops_; }

 private:
  friend class ModelUse;
  struct Slot;

  Slot find_slot(std::string_view role, int64_t layer);
  void pack(const TensorView& tensor, Matrix& matrix);

  const DecoderConfig config_;
  const MatmulKernels& matmul_;  // of the ISA that was active when the model was made
  const OpsKernels& ops_;
  Matrix token_embd_, output_, position_embd_, token_types_;
  Vector output_norm_, output_norm_bias_;
  std::vector<LayerWeights> layers_;
  bool finished_ = false;
  std::atomic<bool> in_use_{false};
  ThreadPool pool_;
};

// Holds the model's threads for one call; throws std::runtime_error if another thread holds them.
class ModelUse {
 public:
  explicit ModelUse(Model& model);
  ~ModelUse();
  ModelUse(const ModelUse&) = delete;
  ModelUse& operator=(const ModelUse&) = delete;

 private:
  Model& model_;
};

}  // namespace corral
