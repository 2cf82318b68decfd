#include "sampling/log_probs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace corral {
namespace {

constexpr int64_t kBlock = 1024;  // tokens that are looked at together

// Log of the sum of exp(logit - max), by blocks in a fixed order.
double log_total(const OpsKernels& ops, const float* logits, int64_t vocab_size, float max) {
  double total = 0.0;
  for (int64_t begin = 0; begin < vocab_size; begin += kBlock) {
    float sum = 0.0F;
    ops.exp_sums(logits + begin, std::min(kBlock, vocab_size - begin), kBlock, max, 1.0F,
                 std::numeric_limits<float>::lowest(), &sum);
    total += static_cast<double>(sum);
  }
  return std::log(total);
}

// Ids of the `top` greatest logits, in order; by ascending id, so that an equal logit never displaces a lower id.
void find_top(const OpsKernels& ops, const float* logits, int64_t vocab_size, int64_t top, int32_t* ids) {
  std::array<int32_t, kBlock> found;
  int64_t count = 0;
  for (int64_t begin = 0; begin < vocab_size; begin += kBlock) {
    const float floor = count < top ? -std::numeric_limits<float>::infinity() : logits[ids[top - 1]];
    const int64_t num_found =
        ops.select(logits + begin, std::min(kBlock, vocab_size - begin), floor, found.data(), kBlock);
    for (int64_t i = 0; i < num_found; ++i) {
      const int32_t id = static_cast<int32_t>(begin) + found[static_cast<size_t>(i)];
      if (count == top && !(logits[id] > logits[ids[top - 1]])) continue;
      int64_t place = count < top ? count++ : top - 1;
      for (; place > 0 && logits[id] > logits[ids[place - 1]]; --place) ids[place] = ids[place - 1];
      ids[place] = id;
    }
  }
}

}  // namespace

void log_probs(const OpsKernels& ops, const float* logits, int64_t vocab_size, int32_t token, int64_t top,
               LogProbs& out) {
  float max = 0.0F;
  int64_t best = 0;
  ops.argmax(logits, vocab_size, &max, &best);
  if (best < 0) {
    out.token = std::numeric_limits<float>::quiet_NaN();
    std::fill_n(out.top_ids, top, 0);
    std::fill_n(out.top, top, out.token);
    return;
  }
  const double total = log_total(ops, logits, vocab_size, max);
  const auto log_prob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[id]) - static_cast<double>(max) - total);
  };
  out.token = log_prob(token);
  if (top > 0) find_top(ops, logits, vocab_size, top, out.top_ids);
  for (int64_t i = 0; i < top; ++i) out.top[i] = log_prob(out.top_ids[i]);
}

}  // namespace corral
