#include "model/decoder.h"

#include <stdexcept>

#include "model/decoder_worker.h"

namespace corral {
namespace {

constexpr int64_t kStagesPerLayer = 9;         // of DecoderWorker, at most
constexpr int64_t kAdapterStagesPerLayer = 4;  // more of a step with adapters
constexpr int64_t kOtherStages = 2;            // embedding and head

Model& finished(Model& model) {
  if (!model.finished()) throw std::invalid_argument("the model is not finished; call finish() after the last tensor");
  return model;
}

}  // namespace

Decoder::Decoder(Model& model, const KVCache& kv_cache, int64_t max_tokens)
    : model_(finished(model)),
      kv_cache_(kv_cache),
      max_tokens_(max_tokens),
      global_plan_(model.config(), model.pool().num_threads(), max_tokens),
      local_plan_(model.config(), model.pool().num_threads(), max_tokens),
      scratch_(model, global_plan_, max_tokens, model.pool().num_threads()),
      stages_(model.config().num_layers * (kStagesPerLayer + kAdapterStagesPerLayer) + kOtherStages,
              model.pool().num_threads()) {}

void Decoder::forward(const Batch& batch) {
  const DecoderConfig& config = model_.config();
  num_logit_rows_ = batch.num_logit_rows;
  if (batch.num_tokens == 0) return;
  for (int64_t seq = 0; seq < batch.num_seqs; ++seq) {
    for (int32_t row = batch.seq_offsets[seq]; row < batch.seq_offsets[seq + 1]; ++row) {
      scratch_.row_seq[static_cast<size_t>(row)] = static_cast<int32_t>(seq);
      scratch_.row_position[static_cast<size_t>(row)] = batch.start_positions[seq] + row - batch.seq_offsets[seq];
    }
  }
  bool any_global = false;
  bool any_local = false;
  for (const bool local : config.layer_is_local) (local ? any_local : any_global) = true;
  if (any_global) global_plan_.build(batch, 0);
  if (any_local) local_plan_.build(batch, config.sliding_window);
  adapters_.all.build_all(batch);
  adapters_.logit_rows.build_logit_rows(batch, scratch_.row_seq);
  const int64_t adapter_stages = adapters_.all.empty() ? 0 : kAdapterStagesPerLayer;
  stages_.reset(config.num_layers * (kStagesPerLayer + adapter_stages) + kOtherStages);
  model_.pool().run([&](int worker) {
    DecoderWorker(model_, kv_cache_, batch, adapters_, {&global_plan_, &local_plan_}, scratch_, stages_, worker).run();
  });
}

}  // namespace corral
