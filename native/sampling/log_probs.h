#pragma once

#include <cstdint>

#include "kernels/ops.h"

namespace corral {

inline constexpr int64_t kMaxTopLogProbs = 64;

// One row's log-softmax at some tokens, in nats.
struct LogProbs {
  float token = 0.0F;          // of the token asked for
  int32_t* top_ids = nullptr;  // [top] the likeliest, the lower id first among equals
  float* top = nullptr;        // [top]
};

// logits: [vocab_size], top from 0 to min(kMaxTopLogProbs, vocab_size). All are NaN if a logit is. Allocates nothing.
void log_probs(const OpsKernels& ops, const float* logits, int64_t vocab_size, int32_t token, int64_t top,
               LogProbs& out);

}  // namespace corral
