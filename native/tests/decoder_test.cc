// The decoder and the sampler on several threads: the same bits as on one. Built with -fsanitize=thread it shows that
// every value is written before the barrier that its readers have passed.
#include "model/decoder.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "model/adapter.h"
#include "model/kv_cache.h"
#include "model/weights.h"
#include "sampling/sampler.h"
#include "tests/check.h"
#include "tests/random_tensor.h"
#include "tests/shapes.h"

namespace corral {
namespace {

constexpr int32_t kVocab = 70;
constexpr int64_t kTokens = 40;
constexpr int64_t kBlocks = 64;

// ffn_down decides how the feed-forward layer hands its values on: as floats, or quantised by units of 256 columns.
struct Variant {
  TensorType ffn_down;
  int64_t intermediate_size;
  bool post_norm;
  bool adapter = false;  // of the second sequence
};

DecoderConfig make_config(const Variant& variant) {
  DecoderConfig config;
  config.num_layers = 3;
  config.hidden_size = 64;
  config.intermediate_size = variant.intermediate_size;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = kVocab;
  config.norm_eps = 1e-5F;
  config.rope_style = RopeStyle::kHalf;
  config.rope_dim = 16;
  config.inv_freq.assign(8, 0.1F);
  config.local_inv_freq.assign(8, 0.3F);
  config.attn_scale = 0.25F;
  config.sliding_window = 30;
  config.layer_is_local = {true, false, true};
  config.logit_softcap = 10.0F;
  return config;
}

void add(Model& model, const std::string& role, int64_t layer, int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 0.2F);
  std::vector<float> values(static_cast<size_t>(rows * cols));
  for (float& value : values) value = normal(random) + (rows == 1 ? 1.0F : 0.0F);
  model.add_tensor(role, layer,
                   {.type = TensorType::kF32,
                    .rows = rows,
                    .cols = cols,
                    .data = reinterpret_cast<const uint8_t*>(values.data()),
                    .num_bytes = values.size() * sizeof(float)});
}

void add_ffn_down(Model& model, int64_t layer, const Variant& variant, uint32_t seed) {
  const int64_t cols = variant.intermediate_size;
  if (variant.ffn_down == TensorType::kF32) return add(model, "ffn_down", layer, 64, cols, seed);
  const std::vector<uint8_t> data = testing::make_tensor(variant.ffn_down, 64, cols, testing::Fill::kRandom, seed);
  model.add_tensor("ffn_down", layer,
                   {.type = variant.ffn_down, .rows = 64, .cols = cols, .data = data.data(), .num_bytes = data.size()});
}

void fill(Model& model, const Variant& variant) {
  const int64_t inner = variant.intermediate_size;
  uint32_t seed = 1;
  add(model, "token_embd", 0, kVocab, 64, seed++);
  add(model, "output_norm", 0, 1, 64, seed++);
  for (int64_t layer = 0; layer < 3; ++layer) {
    add(model, "attn_q", layer, 96, 64, seed++);
    add(model, "attn_k", layer, 32, 64, seed++);
    add(model, "attn_v", layer, 32, 64, seed++);
    add(model, "attn_output", layer, 64, 96, seed++);
    add(model, "ffn_gate", layer, inner, 64, seed++);
    add(model, "ffn_up", layer, inner, 64, seed++);
    add_ffn_down(model, layer, variant, seed++);
    for (const char* role : {"attn_norm", "ffn_norm", "attn_output_bias"}) add(model, role, layer, 1, 64, seed++);
    for (const char* role : {"attn_post_norm", "ffn_post_norm"}) {
      if (variant.post_norm) add(model, role, layer, 1, 64, seed++);
    }
    add(model, "attn_q_norm", layer, 1, 16, seed++);
  }
  model.finish();
}

// Of rank 5, for every matrix of every layer.
void fill(Adapter& adapter, const DecoderConfig& config) {
  constexpr int64_t kRank = 5;
  struct Role {
    const char* name;
    int64_t rows, cols;
  };
  const int64_t inner = config.intermediate_size;
  const Role roles[] = {{"attn_q", 96, 64},      {"attn_k", 32, 64},    {"attn_v", 32, 64},     {"attn_output", 64, 96},
                        {"ffn_gate", inner, 64}, {"ffn_up", inner, 64}, {"ffn_down", 64, inner}};
  std::mt19937 random(77);
  std::normal_distribution<float> normal(0.0F, 0.2F);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const Role& role : roles) {
      std::vector<float> values(static_cast<size_t>(kRank * (role.rows + role.cols)));
      for (float& value : values) value = normal(random);
      const uint8_t* data = reinterpret_cast<const uint8_t*>(values.data());
      const size_t size_a = static_cast<size_t>(kRank * role.cols) * sizeof(float);
      const size_t size_b = static_cast<size_t>(kRank * role.rows) * sizeof(float);
      adapter.add(
          role.name, layer,
          {.type = TensorType::kF32, .rows = kRank, .cols = role.cols, .data = data, .num_bytes = size_a},
          {.type = TensorType::kF32, .rows = role.rows, .cols = kRank, .data = data + size_a, .num_bytes = size_b},
          0.5F);
    }
  }
}

// Draws a token for each row of logits, with penalties, on the model's threads.
std::vector<int32_t> draw(Sampler& sampler, Model& model, const Decoder& decoder, int64_t num_rows) {
  const size_t rows = static_cast<size_t>(num_rows);
  const std::vector<float> zeros(rows), ones(rows, 1.0F), temperature(rows, 0.8F), penalty(rows, 1.2F);
  const std::vector<int32_t> all(rows, 0), no_bias(rows + 1), starts(rows, 1);
  std::vector<uint64_t> seeds;
  std::vector<int64_t> positions(rows, 5);
  std::vector<int32_t> offsets = {0}, history, ids(rows, -1);
  for (int32_t row = 0; row < num_rows; ++row) {
    seeds.push_back(static_cast<uint64_t>(row));
    history.insert(history.end(), {row % kVocab, (row + 1) % kVocab, row % kVocab});
    offsets.push_back(static_cast<int32_t>(history.size()));
  }
  SamplingBatch batch;
  batch.num_rows = num_rows;
  batch.temperature = temperature.data();
  batch.top_k = all.data();
  batch.top_p = ones.data();
  batch.min_p = zeros.data();
  batch.repetition_penalty = penalty.data();
  batch.presence_penalty = batch.frequency_penalty = ones.data();
  batch.seeds = seeds.data();
  batch.positions = positions.data();
  batch.history_offsets = offsets.data();
  batch.history_ids = history.data();
  batch.output_starts = starts.data();
  batch.bias_offsets = no_bias.data();
  sampler.sample(model.pool(), decoder.logits(), decoder.logits_stride(), batch, ids.data());
  for (const int32_t id : ids) CHECK(id >= 0 && id < kVocab, "token %d", id);
  return ids;
}

// Feeds two sequences in steps of several sizes; returns the logits of all rows and the tokens drawn, step after step.
std::vector<float> run(const Variant& variant, int num_threads) {
  Model model(make_config(variant), num_threads, false);
  fill(model, variant);
  const KVCache cache(model.config(), kBlocks, KvType::kF16);
  Decoder decoder(model, cache, kTokens);
  Adapter adapter(model.config());
  fill(adapter, model.config());
  const Adapter* const adapters[] = {&adapter};
  const int32_t adapter_ids[] = {-1, 0};
  Sampler sampler(model.ops(), kVocab, num_threads);
  std::vector<int32_t> tables;
  for (int32_t block = 0; block < kBlocks; ++block) tables.push_back(kBlocks - 1 - block);
  std::vector<float> all;
  int32_t starts[2] = {0, 0};
  std::vector<int32_t> counts = {1, 2, 5, 20, 1};
  if (!testing::small_shapes()) counts.insert(counts.end(), 12, 20);
  counts.insert(counts.end(), {2, 1});
  for (const int32_t count : counts) {
    std::vector<int32_t> tokens, rows;
    for (int32_t row = 0; row < 2 * count; ++row) {
      tokens.push_back((row * 7 + starts[0]) % kVocab);
      rows.push_back(row);
    }
    const int32_t offsets[3] = {0, count, 2 * count};
    const Batch batch{.num_tokens = 2 * count,
                      .num_seqs = 2,
                      .num_logit_rows = count % 2 == 0 ? 2 * count : 1,
                      .table_stride = kBlocks / 2,
                      .token_ids = tokens.data(),
                      .seq_offsets = offsets,
                      .start_positions = starts,
                      .block_tables = tables.data(),
                      .logit_rows = rows.data(),
                      .adapter_ids = variant.adapter ? adapter_ids : nullptr,
                      .adapters = adapters};
    decoder.forward(batch);
    for (int64_t row = 0; row < batch.num_logit_rows; ++row) {
      const float* logits = decoder.logits() + row * decoder.logits_stride();
      all.insert(all.end(), logits, logits + kVocab);
    }
    for (const int32_t id : draw(sampler, model, decoder, batch.num_logit_rows)) all.push_back(static_cast<float>(id));
    for (int32_t& start : starts) start += count;
  }
  return all;
}

void test_cache_blocks() {
  const DecoderConfig config = make_config({TensorType::kF32, 96, false});
  const KVCache cache(config, 8, KvType::kF16);
  CHECK(cache.block_bytes() == 3 * 2 * 2 * 16 * 16 * 2, "%ld", static_cast<long>(cache.block_bytes()));
  uint8_t* first = cache.pages(0, 0);
  std::memset(first + cache.block_bytes(), 0x5a, static_cast<size_t>(cache.block_bytes()));
  cache.copy_block(1, 6);
  CHECK(std::memcmp(first + 6 * cache.block_bytes(), first + cache.block_bytes(),
                    static_cast<size_t>(cache.block_bytes())) == 0,
        "copy");
  CHECK(first[5 * cache.block_bytes() + cache.block_bytes() - 1] == 0 && first[7 * cache.block_bytes()] == 0, "bounds");
  const int32_t all[] = {7, 1, 3, 2, 0, 5, 6, 4};
  cache.release_blocks(all, 8);
  CHECK(cache.resident_bytes() == 0, "%zu", cache.resident_bytes());
}

}  // namespace
}  // namespace corral

int main() {
  using namespace corral;
  constexpr Variant kVariants[] = {{TensorType::kF32, 96, true},        {TensorType::kQ8_0, 544, true},
                                   {TensorType::kQ4_1, 544, false},     {TensorType::kQ4_K, 768, false},
                                   {TensorType::kF32, 96, false, true}, {TensorType::kQ8_0, 544, true, true}};
  for (const Variant& variant : kVariants) {
    const std::vector<float> want = run(variant, 1);
    for (const float value : want) CHECK(std::isfinite(value), "%s", testing::type_name(variant.ffn_down));
    for (const int num_threads : {2, 3}) {
      const std::vector<float> got = run(variant, num_threads);
      CHECK(got.size() == want.size(), "%zu", got.size());
      CHECK(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)) == 0, "%s on %d threads",
            testing::type_name(variant.ffn_down), num_threads);
    }
  }
  test_cache_blocks();
  return 0;
}
