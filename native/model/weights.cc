#include "model/weights.h"

#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/virtual_memory.h"

namespace corral {
namespace {

// Sizes that a shape is made of, as functions of the config.
using Size = int64_t (*)(const DecoderConfig&);

int64_t hidden(const DecoderConfig& c) { return c.hidden_size; }
int64_t inner(const DecoderConfig& c) { return c.intermediate_size; }
int64_t queries(const DecoderConfig& c) { return c.q_size(); }
int64_t keys(const DecoderConfig& c) { return c.kv_size(); }
int64_t head(const DecoderConfig& c) { return c.head_dim; }

struct MatrixRole {
  std::string_view name;
  Matrix LayerWeights::* member;
  Size rows;
  Size cols;
};

constexpr std::array kMatrixRoles = {
    MatrixRole{"attn_q", &LayerWeights::attn_q, queries, hidden},
    MatrixRole{"attn_k", &LayerWeights::attn_k, keys, hidden},
    MatrixRole{"attn_v", &LayerWeights::attn_v, keys, hidden},
    MatrixRole{"attn_output", &LayerWeights::attn_output, hidden, queries},
    MatrixRole{"ffn_gate", &LayerWeights::ffn_gate, inner, hidden},
    MatrixRole{"ffn_up", &LayerWeights::ffn_up, inner, hidden},
    MatrixRole{"ffn_down", &LayerWeights::ffn_down, hidden, inner},
};

struct VectorRole {
  std::string_view name;
  Vector LayerWeights::* member;
  Size size;
  bool required;
};

constexpr std::array kVectorRoles = {
    VectorRole{"attn_norm", &LayerWeights::attn_norm, hidden, true},
    VectorRole{"ffn_norm", &LayerWeights::ffn_norm, hidden, true},
    VectorRole{"attn_norm_bias", &LayerWeights::attn_norm_bias, hidden, false},
    VectorRole{"ffn_norm_bias", &LayerWeights::ffn_norm_bias, hidden, false},
    VectorRole{"ffn_up_bias", &LayerWeights::ffn_up_bias, inner, false},
    VectorRole{"ffn_down_bias", &LayerWeights::ffn_down_bias, hidden, false},
    VectorRole{"attn_q_bias", &LayerWeights::attn_q_bias, queries, false},
    VectorRole{"attn_k_bias", &LayerWeights::attn_k_bias, keys, false},
    VectorRole{"attn_v_bias", &LayerWeights::attn_v_bias, keys, false},
    VectorRole{"attn_output_bias", &LayerWeights::attn_output_bias, hidden, false},
    VectorRole{"attn_q_norm", &LayerWeights::attn_q_norm, head, false},
    VectorRole{"attn_k_norm", &LayerWeights::attn_k_norm, head, false},
    VectorRole{"attn_post_norm", &LayerWeights::attn_post_norm, hidden, false},
    VectorRole{"ffn_post_norm", &LayerWeights::ffn_post_norm, hidden, false},
};

std::string known_roles() {
  std::string names = "token_embd, output, position_embd, token_types, output_norm, output_norm_bias";
  for (const MatrixRole& role : kMatrixRoles) names.append(", ").append(role.name);
  for (const VectorRole& role : kVectorRoles) names.append(", ").append(role.name);
  return names;
}

std::string tensor_name(std::string_view role, int64_t layer) {
  return std::string(role) + " of layer " + std::to_string(layer);
}

void check_shape(const std::string& name, const TensorView& tensor, int64_t rows, int64_t cols) {
  if (tensor.rows != rows || tensor.cols != cols) {
    throw std::invalid_argument(name + " has shape [" + std::to_string(tensor.rows) + ", " +
                                std::to_string(tensor.cols) + "]; the config asks for [" + std::to_string(rows) + ", " +
                                std::to_string(cols) + "]");
  }
  const int64_t block = block_size(tensor.type);
  const std::string type = std::to_string(static_cast<uint32_t>(tensor.type));
  if (block == 0) throw std::invalid_argument(name + " has tensor type " + type + ", which is not known");
  if (cols % block != 0) {
    throw std::invalid_argument(name + " has rows of " + std::to_string(cols) + " values; tensor type " + type +
                                " needs a multiple of " + std::to_string(block));
  }
}

void check_bytes(const std::string& name, const TensorView& tensor, size_t bytes) {
  if (tensor.num_bytes == bytes) return;
  throw std::invalid_argument(name + " has " + std::to_string(tensor.num_bytes) + " bytes; its shape and type make " +
                              std::to_string(bytes));
}

size_t file_bytes(const TensorView& tensor) {
  return static_cast<size_t>(tensor.rows * (tensor.cols / block_size(tensor.type)) * block_bytes(tensor.type));
}

PackedMatrix packed_view(const TensorView& tensor, const uint8_t* data) {
  return {.type = tensor.type,
          .rows = tensor.rows,
          .cols = tensor.cols,
          .group_bytes = packed_group_bytes(tensor.type, tensor.cols),
          .data = data};
}

// Reads ahead and maps the pages of a file, in order and on one thread: that is how the system reads fast, and two
// threads that fault the same huge page at once would get it as small ones.
void touch_pages(const uint8_t* data, size_t bytes) {
  constexpr size_t kFaultBytes = size_t{64} << 10;  // what one fault maps of pages that are cached
  uint8_t sum = 0;
  for (size_t offset = 0; offset < bytes; offset += kFaultBytes) {
    sum = static_cast<uint8_t>(sum + *static_cast<const volatile uint8_t*>(data + offset));
  }
  static_cast<void>(sum);
}

}  // namespace

// Where a tensor goes and what shape it must have; exactly one of the pointers is set.
struct Model::Slot {
  std::string name;
  Matrix* matrix = nullptr;
  Vector* vector = nullptr;
  int64_t rows = 1;
  int64_t cols = 0;
};

Model::Model(DecoderConfig config, int num_threads, bool pin)
    : config_((config.check(), std::move(config))),
      matmul_(matmul_kernels()),
      ops_(ops_kernels()),
      layers_(static_cast<size_t>(config_.num_layers)),
      pool_(num_threads, pin) {}

Model::Slot Model::find_slot(std::string_view role, int64_t layer) {
  if (role == "token_embd") return {"token_embd", &token_embd_, nullptr, config_.vocab_size, config_.hidden_size};
  if (role == "output") return {"output", &output_, nullptr, config_.vocab_size, config_.hidden_size};
  if (role == "position_embd" && config_.num_positions > 0) {
    return {"position_embd", &position_embd_, nullptr, config_.num_positions, config_.hidden_size};
  }
  if (role == "token_types" && config_.num_token_types > 0) {
    return {"token_types", &token_types_, nullptr, config_.num_token_types, config_.hidden_size};
  }
  if (role == "output_norm") return {"output_norm", nullptr, &output_norm_, 1, config_.hidden_size};
  if (role == "output_norm_bias") return {"output_norm_bias", nullptr, &output_norm_bias_, 1, config_.hidden_size};
  if (layer < 0 || layer >= config_.num_layers) {
    throw std::invalid_argument("layer is " + std::to_string(layer) + " for " + std::string(role) +
                                "; it must be from 0 to " + std::to_string(config_.num_layers - 1));
  }
  LayerWeights& weights = layers_[static_cast<size_t>(layer)];
  for (const MatrixRole& known : kMatrixRoles) {
    if (known.name == role) {
      return {tensor_name(role, layer), &(weights.*known.member), nullptr, known.rows(config_), known.cols(config_)};
    }
  }
  for (const VectorRole& known : kVectorRoles) {
    if (known.name == role) {
      return {tensor_name(role, layer), nullptr, &(weights.*known.member), 1, known.size(config_)};
    }
  }
  throw std::invalid_argument("role is \"" + std::string(role) + "\"; it must be one of " + known_roles());
}

void Model::add_tensor(std::string_view role, int64_t layer, const TensorView& tensor) {
  const Slot slot = find_slot(role, layer);
  check_shape(slot.name, tensor, slot.rows, slot.cols);
  check_bytes(slot.name, tensor, file_bytes(tensor));
  if (slot.matrix != nullptr) {
    Matrix matrix;
    pack(tensor, matrix);
    *slot.matrix = std::move(matrix);
    return;
  }
  if (tensor.type != TensorType::kF32 && tensor.type != TensorType::kF16 && tensor.type != TensorType::kBF16) {
    throw std::invalid_argument(slot.name + " has tensor type " + std::to_string(static_cast<uint32_t>(tensor.type)) +
                                "; a vector must be F32, F16 or BF16");
  }
  Vector values(static_cast<size_t>(tensor.cols));
  dequantize_row(tensor.type, tensor.data, tensor.cols, values.data());
  *slot.vector = std::move(values);
}

void Model::pack(const TensorView& tensor, Matrix& matrix) {
  auto memory = std::make_shared<VirtualMemory>(::corral::packed_bytes(tensor.type, tensor.rows, tensor.cols));
  memory->advise_huge_pages(true);
  uint8_t* data = memory->data();
  matrix.packed = packed_view(tensor, data);
  matrix.memory_bytes = memory->size();
  matrix.memory = std::move(memory);
  WorkQueue queue;
  pool_.run([&](int) {
    queue.take(matrix.packed.num_groups(), 4, [&](int64_t begin, int64_t end) {
      pack_groups(tensor.type, tensor.rows, tensor.cols, tensor.data, data, begin, end);
    });
  });
}

void Model::map_tensor(std::string_view role, int64_t layer, const TensorView& packed,
                       std::shared_ptr<const void> memory) {
  const Slot slot = find_slot(role, layer);
  if (slot.matrix == nullptr) throw std::invalid_argument(slot.name + " is a vector; only matrices are mapped");
  check_shape(slot.name, packed, slot.rows, slot.cols);
  check_bytes(slot.name, packed, ::corral::packed_bytes(packed.type, packed.rows, packed.cols));
  const uintptr_t misalignment = reinterpret_cast<uintptr_t>(packed.data) % kPackedAlignment;
  if (misalignment != 0) {
    throw std::invalid_argument(slot.name + " begins " + std::to_string(misalignment) + " bytes after a multiple of " +
                                std::to_string(kPackedAlignment) + "; it must begin at one");
  }
  touch_pages(packed.data, packed.num_bytes);
  *slot.matrix = {
      .packed = packed_view(packed, packed.data), .memory = std::move(memory), .memory_bytes = packed.num_bytes};
}

const Matrix& Model::packed_matrix(std::string_view role, int64_t layer) {
  const Slot slot = find_slot(role, layer);
  if (slot.matrix == nullptr) throw std::invalid_argument(slot.name + " is a vector; only matrices are packed");
  if (slot.matrix->empty()) throw std::invalid_argument(slot.name + " has not been added");
  return *slot.matrix;
}

void Model::finish() {
  std::string missing;
  const auto need = [&](const std::string& name, bool present) {
    if (!present) missing.append(missing.empty() ? "" : ", ").append(name);
  };
  need("token_embd", !token_embd_.empty());
  need("output_norm", !output_norm_.empty());
  need("position_embd", config_.num_positions == 0 || !position_embd_.empty());
  need("token_types", config_.num_token_types == 0 || !token_types_.empty());
  for (int64_t index = 0; index < config_.num_layers; ++index) {
    for (const MatrixRole& role : kMatrixRoles) {
      if (role.member == &LayerWeights::ffn_gate && !config_.is_gated) continue;
      need(tensor_name(role.name, index), !(layer(index).*role.member).empty());
    }
    for (const VectorRole& role : kVectorRoles) {
      if (role.required) need(tensor_name(role.name, index), !(layer(index).*role.member).empty());
    }
  }
  if (!missing.empty()) throw std::invalid_argument("the model lacks " + missing);
  finished_ = true;
}

size_t Model::packed_bytes() const {
  size_t bytes = (output_norm_.size() + output_norm_bias_.size()) * sizeof(float);
  for (const Matrix* matrix : {&token_embd_, &output_, &position_embd_, &token_types_}) bytes += matrix->memory_bytes;
  for (const LayerWeights& weights : layers_) {
    for (const MatrixRole& role : kMatrixRoles) bytes += (weights.*role.member).memory_bytes;
    for (const VectorRole& role : kVectorRoles) bytes += (weights.*role.member).size() * sizeof(float);
  }
  return bytes;
}

ModelUse::ModelUse(Model& model) : model_(model) {
  if (model_.in_use_.exchange(true, std::memory_order_acquire)) {
    throw std::runtime_error("the model is in use by a call on another thread; make one call at a time");
  }
}

ModelUse::~ModelUse() { model_.in_use_.store(false, std::memory_order_release); }

}  // namespace corral
