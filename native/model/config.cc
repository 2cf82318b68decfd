#include "model/config.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace corral {
namespace {

constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxSize = int64_t{1} << 24;  // of a width or the vocabulary: products stay far inside int64

void need_between(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; it must be from " +
                              std::to_string(low) + " to " + std::to_string(high));
}

void need_number(const char* name, float value, bool positive) {
  if (std::isfinite(value) && (positive ? value > 0.0F : value >= 0.0F)) return;
  throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; it must be a finite number " +
                              (positive ? "above 0" : "of at least 0"));
}

void need_frequencies(const char* name, const std::vector<float>& frequencies, int64_t count) {
  if (static_cast<int64_t>(frequencies.size()) != count) {
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(frequencies.size()) +
                                " values; rope_dim / 2 is " + std::to_string(count));
  }
  for (const float frequency : frequencies) {
    if (!std::isfinite(frequency)) throw std::invalid_argument(std::string(name) + " holds a value that is not finite");
  }
}

}  // namespace

void DecoderConfig::check() const {
  need_between("num_layers", num_layers, 1, 4096);
  need_between("hidden_size", hidden_size, 1, kMaxSize);
  need_between("intermediate_size", intermediate_size, 1, kMaxSize);
  need_between("num_heads", num_heads, 1, 4096);
  need_between("num_kv_heads", num_kv_heads, 1, num_heads);
  need_between("head_dim", head_dim, 2, kMaxHeadDim);
  need_between("vocab_size", vocab_size, 1, kMaxSize);
  need_between("num_positions", num_positions, 0, kMaxSize);
  need_between("num_token_types", num_token_types, 0, kMaxSize);
  need_between("rope_dim", rope_dim, 0, head_dim);
  need_between("sliding_window", sliding_window, 0, INT32_MAX);
  if (num_heads % num_kv_heads != 0) {
    throw std::invalid_argument("num_heads is " + std::to_string(num_heads) +
                                "; it must be a multiple of num_kv_heads, " + std::to_string(num_kv_heads));
  }
  if (rope_dim % 2 != 0) {
    throw std::invalid_argument("rope_dim is " + std::to_string(rope_dim) + "; it must be even");
  }
  need_number("norm_eps", norm_eps, false);
  need_number("rope_attn_factor", rope_attn_factor, true);
  need_number("attn_scale", attn_scale, true);
  need_number("embedding_scale", embedding_scale, true);
  need_number("attn_softcap", attn_softcap, false);
  need_number("logit_softcap", logit_softcap, false);
  need_frequencies("inv_freq", inv_freq, rope_dim / 2);
  if (!local_inv_freq.empty()) need_frequencies("local_inv_freq", local_inv_freq, rope_dim / 2);
  if (static_cast<int64_t>(layer_is_local.size()) != num_layers) {
    throw std::invalid_argument("layer_is_local has " + std::to_string(layer_is_local.size()) +
                                " values; num_layers is " + std::to_string(num_layers));
  }
}

}  // namespace corral
