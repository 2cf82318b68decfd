#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "model/decoder.h"
#include "sampling/log_probs.h"
#include "sampling/sampler.h"

namespace corral::bind {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 20;  // rows of a step

// Decoder and sampler of one model, as Python sees them.
struct BoundDecoder {
  BoundDecoder(Model& model, const BoundKVCache& kv_cache, int64_t max_tokens, int64_t most_seqs)
      : decoder(model, kv_cache, max_tokens),
        sampler(model.ops(), model.config().vocab_size, model.pool().num_threads()),
        cache(kv_cache),
        max_seqs(most_seqs) {}

  Decoder decoder;
  Sampler sampler;
  const BoundKVCache& cache;
  int64_t max_seqs;
};

void init_decoder(BoundDecoder* self, Model& model, const BoundKVCache& kv_cache, int64_t max_tokens,
                  int64_t max_seqs) {
  if (&kv_cache.model != &model) refuse("kv_cache was made for another model");
  need_between("max_tokens", max_tokens, 1, kMaxTokens);
  need_between("max_seqs", max_seqs, 1, max_tokens);
  new (self) BoundDecoder(model, kv_cache, max_tokens, max_seqs);
}

// Positions fit into an int32 and their blocks into the table and the pool.
void check_sequences(const Batch& batch, int64_t num_blocks) {
  for (int64_t seq = 0; seq < batch.num_seqs; ++seq) {
    const int64_t num_rows = batch.seq_offsets[seq + 1] - batch.seq_offsets[seq];
    if (num_rows == 0) continue;
    const int64_t start = batch.start_positions[seq];
    const int64_t num_pages = (start + num_rows + kBlockTokens - 1) / kBlockTokens;
    const std::string name = "sequence " + std::to_string(seq);
    if (num_pages > batch.table_stride) {
      refuse(name + " reaches position " + std::to_string(start + num_rows - 1) + ", which needs " +
             std::to_string(num_pages) + " blocks; its block table has " + std::to_string(batch.table_stride));
    }
    for (int64_t page = 0; page < num_pages; ++page) {
      const int32_t block = batch.block_table(seq)[page];
      if (block >= 0 && block < num_blocks) continue;
      refuse("block_tables[" + std::to_string(seq) + ", " + std::to_string(page) + "] is " + std::to_string(block) +
             "; it must be from 0 to " + std::to_string(num_blocks - 1));
    }
  }
}

// The adapters of a step, each made for this model; the indices lie among them.
std::vector<const Adapter*> take_adapters(const std::vector<BoundAdapter*>& adapters, const Array<int32_t, 1>& ids,
                                          const DecoderConfig& config) {
  need_values(ids, int64_t{-1}, static_cast<int64_t>(adapters.size()) - 1);
  std::vector<const Adapter*> taken;
  for (BoundAdapter* bound : adapters) {
    if (bound == nullptr || !bound->adapter.fits(config)) {
      refuse("adapters[" + std::to_string(taken.size()) + "] was made for a model of other sizes");
    }
    bound->use();
    taken.push_back(&bound->adapter);
  }
  return taken;
}

void forward(BoundDecoder& self, const AnyArray& token_ids, const AnyArray& seq_offsets,
             const AnyArray& start_positions, const AnyArray& block_tables, const AnyArray& logit_rows,
             const std::optional<AnyArray>& adapter_ids, const std::vector<BoundAdapter*>& adapters) {
  const ModelUse use(self.decoder.model());
  const auto tokens = take<int32_t>(token_ids, "token_ids");
  const auto offsets = take<int32_t>(seq_offsets, "seq_offsets");
  const auto starts = take<int32_t>(start_positions, "start_positions");
  const auto tables = take<int32_t, 2>(block_tables, "block_tables");
  const auto rows = take<int32_t>(logit_rows, "logit_rows");
  Batch batch{.num_tokens = tokens.size(),
              .num_seqs = starts.size(),
              .num_logit_rows = rows.size(),
              .table_stride = tables.shape[1],
              .token_ids = tokens.data,
              .seq_offsets = offsets.data,
              .start_positions = starts.data,
              .block_tables = tables.data,
              .logit_rows = rows.data};
  need_between("the number of token_ids", tokens.size(), 1, self.decoder.max_tokens());
  need_between("the number of sequences", starts.size(), 1, self.max_seqs);
  need_between("the number of logit_rows", rows.size(), 0, self.decoder.max_tokens());
  need_between("the number of block_tables", tables.shape[0], starts.size(), starts.size());
  need_offsets(offsets, starts.size(), tokens.size());
  need_values(tokens, int64_t{0}, self.decoder.model().config().vocab_size - 1);
  need_values(starts, int64_t{0}, int64_t{INT32_MAX} - kMaxTokens);
  need_values(rows, int64_t{0}, tokens.size() - 1);
  check_sequences(batch, self.cache.num_blocks());
  std::vector<const Adapter*> taken;
  if (adapter_ids) {
    const auto ids = take<int32_t>(*adapter_ids, "adapter_ids");
    need_size(ids, starts.size());
    taken = take_adapters(adapters, ids, self.decoder.model().config());
    batch.adapter_ids = ids.data;
    batch.adapters = taken.data();
  }
  const nb::gil_scoped_release released;
  self.decoder.forward(batch);
}

// Finite settings in their ranges; see SamplingBatch.
void check_settings(const SamplingBatch& batch, int64_t history_size) {
  const auto need = [&](const char* name, const float* values, bool (*is_allowed)(float), const char* allowed) {
    for (int64_t row = 0; row < batch.num_rows; ++row) {
      if (is_allowed(values[row])) continue;
      refuse(std::string(name) + "[" + std::to_string(row) + "] is " + std::to_string(values[row]) + "; it must be " +
             allowed);
    }
  };
  constexpr float kMost = 3.402823466e38F;
  need("temperature", batch.temperature, [](float x) { return x >= 0.0F && x <= kMost; }, "finite and at least 0");
  need("top_p", batch.top_p, [](float x) { return x > 0.0F && x <= 1.0F; }, "above 0 and at most 1");
  need("min_p", batch.min_p, [](float x) { return x >= 0.0F && x <= 1.0F; }, "from 0 to 1");
  need(
      "repetition_penalty", batch.repetition_penalty, [](float x) { return x > 0.0F && x <= kMost; },
      "finite and above 0");
  const auto is_finite = [](float x) { return x >= -kMost && x <= kMost; };
  need("presence_penalty", batch.presence_penalty, is_finite, "finite");
  need("frequency_penalty", batch.frequency_penalty, is_finite, "finite");
  for (int64_t row = 0; row < batch.num_rows; ++row) {
    const int64_t length = batch.history_offsets[row + 1] - batch.history_offsets[row];
    if (batch.output_starts[row] < 0 || batch.output_starts[row] > length) {
      refuse("output_starts[" + std::to_string(row) + "] is " + std::to_string(batch.output_starts[row]) +
             "; it must be from 0 to " + std::to_string(length) + ", the length of the row's history (of " +
             std::to_string(history_size) + " in all)");
    }
  }
}

nb::object sample(BoundDecoder& self, const AnyArray& temperature, const AnyArray& top_k, const AnyArray& top_p,
                  const AnyArray& min_p, const AnyArray& repetition_penalty, const AnyArray& presence_penalty,
                  const AnyArray& frequency_penalty, const AnyArray& seeds, const AnyArray& positions,
                  const AnyArray& history_offsets, const AnyArray& history_ids, const AnyArray& output_starts,
                  const AnyArray& bias_offsets, const AnyArray& bias_ids, const AnyArray& bias_values,
                  const std::optional<AnyArray>& mask) {
  const ModelUse use(self.decoder.model());
  const int64_t num_rows = self.decoder.num_logit_rows();
  const int64_t vocab_size = self.decoder.model().config().vocab_size;
  SamplingBatch batch;
  batch.num_rows = num_rows;
  const auto rows_of = [&]<class T>(const T*& target, const AnyArray& array, const char* name) {
    const Array<T, 1> values = take<T>(array, name);
    need_size(values, num_rows);
    target = values.data;
  };
  rows_of(batch.temperature, temperature, "temperature");
  rows_of(batch.top_k, top_k, "top_k");
  rows_of(batch.top_p, top_p, "top_p");
  rows_of(batch.min_p, min_p, "min_p");
  rows_of(batch.repetition_penalty, repetition_penalty, "repetition_penalty");
  rows_of(batch.presence_penalty, presence_penalty, "presence_penalty");
  rows_of(batch.frequency_penalty, frequency_penalty, "frequency_penalty");
  rows_of(batch.seeds, seeds, "seeds");
  rows_of(batch.positions, positions, "positions");
  rows_of(batch.output_starts, output_starts, "output_starts");

  const auto history = take<int32_t>(history_ids, "history_ids");
  const auto history_parts = take<int32_t>(history_offsets, "history_offsets");
  need_offsets(history_parts, num_rows, history.size());
  need_values(history, int64_t{0}, vocab_size - 1);
  const auto biased = take<int32_t>(bias_ids, "bias_ids");
  const auto biases = take<float>(bias_values, "bias_values");
  const auto bias_parts = take<int32_t>(bias_offsets, "bias_offsets");
  need_offsets(bias_parts, num_rows, biased.size());
  need_size(biases, biased.size());
  need_values(biased, int64_t{0}, vocab_size - 1);
  need_values(biases, -3.402823466e38F, 3.402823466e38F);
  batch.history_offsets = history_parts.data;
  batch.history_ids = history.data;
  batch.bias_offsets = bias_parts.data;
  batch.bias_ids = biased.data;
  batch.bias_values = biases.data;
  if (mask) {
    const auto words = take<uint32_t, 2>(*mask, "mask");
    need_between("the number of mask rows", words.shape[0], num_rows, num_rows);
    need_between("the number of words in a mask row", words.shape[1], (vocab_size + 31) / 32, (vocab_size + 31) / 32);
    batch.mask = words.data;
  }
  check_settings(batch, history.size());

  int32_t* ids = new int32_t[static_cast<size_t>(num_rows)];
  nb::capsule owner(ids, [](void* memory) noexcept { delete[] static_cast<int32_t*>(memory); });
  {
    const nb::gil_scoped_release released;
    self.sampler.sample(self.decoder.model().pool(), self.decoder.logits(), self.decoder.logits_stride(), batch, ids);
  }
  return nb::cast(nb::ndarray<nb::numpy, int32_t, nb::ndim<1>>(ids, {static_cast<size_t>(num_rows)}, owner));
}

template <class T, class... Sizes>
nb::object owned_array(T* values, Sizes... sizes) {
  const nb::capsule owner(values, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
  return nb::cast(
      nb::ndarray<nb::numpy, T, nb::ndim<sizeof...(Sizes)>>(values, {static_cast<size_t>(sizes)...}, owner));
}

nb::object log_probs_of(BoundDecoder& self, const AnyArray& rows, const AnyArray& token_ids, int64_t top) {
  const ModelUse use(self.decoder.model());
  const int64_t vocab_size = self.decoder.model().config().vocab_size;
  const auto wanted = take<int32_t>(rows, "rows");
  const auto tokens = take<int32_t>(token_ids, "token_ids");
  need_size(tokens, wanted.size());
  need_values(wanted, int64_t{0}, self.decoder.num_logit_rows() - 1);
  need_values(tokens, int64_t{0}, vocab_size - 1);
  need_between("top", top, 0, std::min(kMaxTopLogProbs, vocab_size));
  const size_t count = static_cast<size_t>(wanted.size());
  float* own = new float[count];
  const nb::object own_array = owned_array(own, count);
  int32_t* ids = new int32_t[count * static_cast<size_t>(top)];
  const nb::object ids_array = owned_array(ids, count, top);
  float* others = new float[count * static_cast<size_t>(top)];
  const nb::object others_array = owned_array(others, count, top);
  {
    const nb::gil_scoped_release released;
    WorkQueue queue;
    self.decoder.model().pool().run([&](int) {
      queue.take(wanted.size(), 1, [&](int64_t begin, int64_t) {
        const float* logits = self.decoder.logits() + wanted.data[begin] * self.decoder.logits_stride();
        LogProbs out{.top_ids = ids + begin * top, .top = others + begin * top};
        log_probs(self.decoder.model().ops(), logits, vocab_size, tokens.data[begin], top, out);
        own[begin] = out.token;
      });
    });
  }
  return nb::make_tuple(own_array, ids_array, others_array);
}

nb::object logits(BoundDecoder& self) {
  const ModelUse use(self.decoder.model());
  const int64_t num_rows = self.decoder.num_logit_rows();
  const int64_t vocab_size = self.decoder.model().config().vocab_size;
  float* copy = new float[static_cast<size_t>(num_rows * vocab_size)];
  nb::capsule owner(copy, [](void* memory) noexcept { delete[] static_cast<float*>(memory); });
  for (int64_t row = 0; row < num_rows; ++row) {
    std::memcpy(copy + row * vocab_size, self.decoder.logits() + row * self.decoder.logits_stride(),
                static_cast<size_t>(vocab_size) * sizeof(float));
  }
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(
      copy, {static_cast<size_t>(num_rows), static_cast<size_t>(vocab_size)}, owner));
}

}  // namespace

void bind_decoder(nb::module_& module) {
  using nb::arg;
  nb::class_<BoundDecoder>(module, "Decoder", "Forward pass and sampling over one model and one KV cache.")
      .def("__init__", init_decoder, arg("model"), arg("kv_cache"), arg("max_tokens"), arg("max_seqs"),
           nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>())
      .def("forward", forward, arg("token_ids").noconvert(), arg("seq_offsets").noconvert(),
           arg("start_positions").noconvert(), arg("block_tables").noconvert(), arg("logit_rows").noconvert(),
           arg("adapter_ids").noconvert().none() = nb::none(), arg("adapters") = std::vector<BoundAdapter*>(),
           "Computes one step; the logits of logit_rows stay native.")
      .def("sample", sample, arg("temperature").noconvert(), arg("top_k").noconvert(), arg("top_p").noconvert(),
           arg("min_p").noconvert(), arg("repetition_penalty").noconvert(), arg("presence_penalty").noconvert(),
           arg("frequency_penalty").noconvert(), arg("seeds").noconvert(), arg("positions").noconvert(),
           arg("history_offsets").noconvert(), arg("history_ids").noconvert(), arg("output_starts").noconvert(),
           arg("bias_offsets").noconvert(), arg("bias_ids").noconvert(), arg("bias_values").noconvert(),
           arg("mask").noconvert().none(), "Draws a token for each row of the last forward's logits.")
      .def("log_probs", log_probs_of, arg("rows").noconvert(), arg("token_ids").noconvert(), arg("top"),
           "Log-probabilities of tokens, and the likeliest, of some rows of the last forward's logits.")
      .def("logits", logits, "A copy of the last forward's logits.");
}

}  // namespace corral::bind
