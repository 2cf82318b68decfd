#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/held_buffer.h"
#include "model/config.h"
#include "quant/tile_format.h"

namespace corral::bind {
namespace {

constexpr int64_t kMaxThreads = 1024;

std::vector<float> floats(const AnyArray& array, const char* name) {
  const Array<float, 1> values = take<float>(array, name);
  return {values.data, values.data + values.size()};
}

Activation activation_of(const std::string& name) {
  if (name == "silu") return Activation::kSilu;
  if (name == "gelu_tanh") return Activation::kGeluTanh;
  if (name == "gelu") return Activation::kGelu;
  refuse("activation is \"" + name + "\"; it must be \"silu\", \"gelu_tanh\" or \"gelu\"");
}

NormKind norm_kind_of(const std::string& name) {
  if (name == "rms") return NormKind::kRms;
  if (name == "layer") return NormKind::kLayer;
  refuse("norm_kind is \"" + name + "\"; it must be \"rms\" or \"layer\"");
}

RopeStyle rope_style_of(const std::string& name) {
  if (name == "interleaved") return RopeStyle::kInterleaved;
  if (name == "half") return RopeStyle::kHalf;
  refuse("rope_style is \"" + name + "\"; it must be \"interleaved\" or \"half\"");
}

void init_config(DecoderConfig* self, int64_t num_layers, int64_t hidden_size, int64_t intermediate_size,
                 int64_t num_heads, int64_t num_kv_heads, int64_t head_dim, int64_t vocab_size, float norm_eps,
                 const std::string& activation, const std::string& rope_style, int64_t rope_dim,
                 const AnyArray& inv_freq, const std::optional<AnyArray>& local_inv_freq, float rope_attn_factor,
                 float attn_scale, float embedding_scale, int64_t sliding_window,
                 const std::vector<bool>& layer_is_local, float attn_softcap, float logit_softcap,
                 const std::string& norm_kind, bool is_post_norm, bool is_causal, bool is_gated, int64_t num_positions,
                 int64_t num_token_types) {
  DecoderConfig config;
  config.num_layers = num_layers;
  config.hidden_size = hidden_size;
  config.intermediate_size = intermediate_size;
  config.num_heads = num_heads;
  config.num_kv_heads = num_kv_heads;
  config.head_dim = head_dim;
  config.vocab_size = vocab_size;
  config.norm_eps = norm_eps;
  config.activation = activation_of(activation);
  config.rope_style = rope_style_of(rope_style);
  config.rope_dim = rope_dim;
  config.inv_freq = floats(inv_freq, "inv_freq");
  if (local_inv_freq) config.local_inv_freq = floats(*local_inv_freq, "local_inv_freq");
  config.rope_attn_factor = rope_attn_factor;
  config.attn_scale = attn_scale;
  config.embedding_scale = embedding_scale;
  config.sliding_window = sliding_window;
  config.layer_is_local = layer_is_local;
  config.attn_softcap = attn_softcap;
  config.logit_softcap = logit_softcap;
  config.norm_kind = norm_kind_of(norm_kind);
  config.is_post_norm = is_post_norm;
  config.is_causal = is_causal;
  config.is_gated = is_gated;
  config.num_positions = num_positions;
  config.num_token_types = num_token_types;
  config.check();
  new (self) DecoderConfig(std::move(config));
}

void init_model(Model* self, const DecoderConfig& config, int64_t num_threads, bool pin) {
  need_between("num_threads", num_threads, 1, kMaxThreads);
  new (self) Model(config, static_cast<int>(num_threads), pin);
}

TensorView view_of(int64_t type, int64_t rows, int64_t cols, const HeldBuffer& buffer) {
  need_between("type", type, 0, UINT32_MAX);
  return {.type = static_cast<TensorType>(type),
          .rows = rows,
          .cols = cols,
          .data = buffer.data(),
          .num_bytes = buffer.size()};
}

void add_tensor(Model& model, const std::string& role, int64_t layer, int64_t type, int64_t rows, int64_t cols,
                nb::handle data) {
  const HeldBuffer buffer(data);
  const TensorView tensor = view_of(type, rows, cols, buffer);
  const ModelUse use(model);
  const nb::gil_scoped_release released;
  model.add_tensor(role, layer, tensor);
}

void map_tensor(Model& model, const std::string& role, int64_t layer, int64_t type, int64_t rows, int64_t cols,
                nb::handle data) {
  // The model may let go of the buffer on any thread.
  const std::shared_ptr<const HeldBuffer> buffer(new HeldBuffer(data), [](const HeldBuffer* held) {
    const nb::gil_scoped_acquire acquired;
    delete held;
  });
  const TensorView packed = view_of(type, rows, cols, *buffer);
  const ModelUse use(model);
  const nb::gil_scoped_release released;
  model.map_tensor(role, layer, packed, buffer);
}

using PackedView = nb::ndarray<nb::memview, const uint8_t, nb::ndim<1>>;

PackedView packed_tensor(Model& model, const std::string& role, int64_t layer) {
  const ModelUse use(model);
  const Matrix& matrix = model.packed_matrix(role, layer);
  const PackedMatrix& packed = matrix.packed;
  // The view shares the memory, so that it outlives the model and a tensor that replaces this one.
  auto shared = std::make_unique<std::shared_ptr<const void>>(matrix.memory);
  const nb::capsule owner(shared.get(),
                          [](void* held) noexcept { delete static_cast<std::shared_ptr<const void>*>(held); });
  shared.release();
  return PackedView(packed.data, {packed_bytes(packed.type, packed.rows, packed.cols)}, owner);
}

KvType kv_type_of(const std::string& name) {
  if (name == "f16") return KvType::kF16;
  if (name == "int8") return KvType::kInt8;
  refuse("dtype is \"" + name + "\"; it must be \"f16\" or \"int8\"");
}

void init_kv_cache(BoundKVCache* self, Model& model, int64_t num_blocks, const std::string& dtype) {
  need_between("num_blocks", num_blocks, 1, INT32_MAX);
  new (self) BoundKVCache(model, num_blocks, kv_type_of(dtype));
}

void copy_blocks(const BoundKVCache& cache, const AnyArray& src, const AnyArray& dst) {
  const Array<int32_t, 1> sources = take<int32_t>(src, "src");
  const Array<int32_t, 1> targets = take<int32_t>(dst, "dst");
  need_size(targets, sources.size());
  need_values<int32_t>(sources, int64_t{0}, cache.num_blocks() - 1);
  need_values<int32_t>(targets, int64_t{0}, cache.num_blocks() - 1);
  const ModelUse use(cache.model);
  const nb::gil_scoped_release released;
  for (int64_t i = 0; i < sources.size(); ++i) cache.copy_block(sources.data[i], targets.data[i]);
}

void release_blocks(const BoundKVCache& cache, const AnyArray& ids) {
  const Array<int32_t, 1> blocks = take<int32_t>(ids, "ids");
  need_values<int32_t>(blocks, int64_t{0}, cache.num_blocks() - 1);
  const ModelUse use(cache.model);
  const nb::gil_scoped_release released;
  cache.release_blocks(blocks.data, blocks.size());
}

}  // namespace

void bind_model(nb::module_& module) {
  using nb::arg;
  module.def("packed_layout", [] { return kPackedLayout; }, "Number of the layout of packed matrices.");

  nb::class_<DecoderConfig>(module, "DecoderConfig", "Shapes of a model, and where the dense families differ.")
      .def("__init__", init_config, nb::kw_only(), arg("num_layers"), arg("hidden_size"), arg("intermediate_size"),
           arg("num_heads"), arg("num_kv_heads"), arg("head_dim"), arg("vocab_size"), arg("norm_eps"),
           arg("activation"), arg("rope_style"), arg("rope_dim"), arg("inv_freq").noconvert(),
           arg("local_inv_freq").noconvert().none(), arg("rope_attn_factor"), arg("attn_scale"), arg("embedding_scale"),
           arg("sliding_window"), arg("layer_is_local"), arg("attn_softcap"), arg("logit_softcap"),
           arg("norm_kind") = "rms", arg("is_post_norm") = false, arg("is_causal") = true, arg("is_gated") = true,
           arg("num_positions") = 0, arg("num_token_types") = 0);

  nb::class_<Model>(module, "Model", "The packed weights of one model, with the threads that compute on them.")
      .def("__init__", init_model, arg("config"), arg("num_threads"), arg("pin") = true)
      .def("add_tensor", add_tensor, arg("role"), arg("layer"), arg("type"), arg("rows"), arg("cols"), arg("data"),
           "Packs a matrix, or copies a vector as float32.")
      .def("map_tensor", map_tensor, arg("role"), arg("layer"), arg("type"), arg("rows"), arg("cols"), arg("data"),
           "Takes a packed matrix as it stands in a mapped file, without a copy.")
      .def("packed_tensor", packed_tensor, arg("role"), arg("layer"), "The bytes of a packed matrix, read-only.")
      .def("finish", &Model::finish, "Call after the last tensor; ValueError names those that are missing.")
      .def_prop_ro("packed_bytes", &Model::packed_bytes, "Memory of the weights in bytes.")
      .def_prop_ro("num_threads", [](Model& model) { return model.pool().num_threads(); }, "Workers of the model.");

  nb::class_<BoundKVCache>(module, "KVCache", "Keys and values in blocks of 16 tokens.")
      .def("__init__", init_kv_cache, arg("model"), arg("num_blocks"), arg("dtype") = "f16", nb::keep_alive<1, 2>())
      .def_prop_ro(
          "block_bytes", [](const BoundKVCache& cache) { return cache.block_bytes(); },
          "Bytes of one block, all layers.")
      .def_prop_ro(
          "num_blocks", [](const BoundKVCache& cache) { return cache.num_blocks(); }, "Blocks of the pool.")
      .def_prop_ro(
          "block_size", [](const BoundKVCache&) { return kBlockTokens; }, "Tokens in a block: 16.")
      .def("copy_blocks", copy_blocks, arg("src").noconvert(), arg("dst").noconvert(), "Copies block src[i] to dst[i].")
      .def("release_blocks", release_blocks, arg("ids").noconvert(), "Gives the blocks' memory back.")
      .def(
          "resident_bytes", [](const BoundKVCache& cache) { return cache.resident_bytes(); },
          "Bytes of the cache that are in memory now.");
}

}  // namespace corral::bind
