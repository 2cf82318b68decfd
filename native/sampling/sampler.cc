#include "sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "sampling/random.h"

namespace corral {
namespace {

constexpr int64_t kBlock = 1024;                                 // tokens whose weights are summed as one
constexpr float kLowest = std::numeric_limits<float>::lowest();  // a floor that only drops -inf

}  // namespace

Sampler::Sampler(const OpsKernels& ops, int64_t vocab_size, int num_threads)
    : ops_(ops), vocab_size_(vocab_size), workers_(static_cast<size_t>(num_threads)) {
  const size_t array = (static_cast<size_t>(vocab_size) * sizeof(float) + 63) / 64 * 64;
  memory_ = VirtualMemory(array * 4 * workers_.size());
  uint8_t* next = memory_.data();
  for (Worker& worker : workers_) {
    worker.logits = reinterpret_cast<float*>(next);
    worker.counts = reinterpret_cast<int32_t*>(next + array);
    worker.ids = reinterpret_cast<int32_t*>(next + 2 * array);
    worker.weights = reinterpret_cast<float*>(next + 3 * array);
    next += 4 * array;
  }
}

void Sampler::sample(ThreadPool& pool, const float* logits, int64_t stride, const SamplingBatch& batch, int32_t* out) {
  WorkQueue queue;
  const auto body = [&](int worker) {
    queue.take(batch.num_rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        out[row] = sample_row(logits + row * stride, batch, row, workers_[static_cast<size_t>(worker)]);
      }
    });
  };
  if (batch.num_rows > 1) {
    pool.run(body);
  } else {
    body(0);
  }
}

int32_t Sampler::sample_row(const float* logits, const SamplingBatch& batch, int64_t row, Worker& worker) const {
  logits = edit(logits, batch, row, worker);
  float max = 0.0F;
  int64_t best = -1;
  ops_.argmax(logits, vocab_size_, &max, &best);
  if (best < 0 || max == -std::numeric_limits<float>::infinity()) return -1;
  const float temperature = batch.temperature[row];
  const float scale = 1.0F / temperature;
  if (temperature == 0.0F || !std::isfinite(scale) || !std::isfinite(max)) return static_cast<int32_t>(best);

  const float min_p = batch.min_p[row];
  float floor = kLowest;
  if (min_p > 0.0F) {
    floor = std::max(kLowest, static_cast<float>(max + std::log(static_cast<double>(min_p)) * temperature));
  }
  const double uniform = uniform_at(batch.seeds[row], static_cast<uint64_t>(batch.positions[row]));
  const Row view{logits, max, scale, floor, uniform};
  const int64_t top_k = batch.top_k[row] <= 0 ? vocab_size_ : batch.top_k[row];
  if (top_k >= vocab_size_ && batch.top_p[row] >= 1.0F) return draw_from_all(view, worker);
  return draw_from_top(view, top_k, batch.top_p[row], worker);
}

// Returns the row itself if nothing is to be changed, else an edited copy.
const float* Sampler::edit(const float* logits, const SamplingBatch& batch, int64_t row, Worker& worker) const {
  const bool has_bias = batch.bias_offsets[row] != batch.bias_offsets[row + 1];
  const bool has_penalty = batch.history_offsets[row] != batch.history_offsets[row + 1] &&
                           (batch.repetition_penalty[row] != 1.0F || batch.presence_penalty[row] != 0.0F ||
                            batch.frequency_penalty[row] != 0.0F);
  if (batch.mask == nullptr && !has_bias && !has_penalty) return logits;
  std::memcpy(worker.logits, logits, static_cast<size_t>(vocab_size_) * sizeof(float));
  if (batch.mask != nullptr) {
    const uint32_t* words = batch.mask + row * ((vocab_size_ + 31) / 32);
    for (int64_t begin = 0; begin < vocab_size_; begin += 32) {
      const uint32_t word = words[begin / 32];
      if (word == ~0U) continue;
      const int64_t end = std::min(begin + 32, vocab_size_);
      for (int64_t id = begin; id < end; ++id) {
        if ((word >> (id - begin) & 1U) == 0) worker.logits[id] = -std::numeric_limits<float>::infinity();
      }
    }
  }
  for (int32_t i = batch.bias_offsets[row]; i < batch.bias_offsets[row + 1]; ++i) {
    worker.logits[batch.bias_ids[i]] += batch.bias_values[i];
  }
  if (has_penalty) penalize(batch, row, worker);
  return worker.logits;
}

void Sampler::penalize(const SamplingBatch& batch, int64_t row, Worker& worker) const {
  const int32_t* begin = batch.history_ids + batch.history_offsets[row];
  const int32_t* end = batch.history_ids + batch.history_offsets[row + 1];
  const int32_t* output = begin + batch.output_starts[row];
  for (const int32_t* id = begin; id != end; ++id) {
    int32_t& count = worker.counts[*id];
    if (count == 0) count = 1;
    if (id >= output) ++count;
  }
  const float repetition = batch.repetition_penalty[row];
  for (const int32_t* id = begin; id != end; ++id) {
    const int32_t in_output = worker.counts[*id] - 1;
    if (in_output < 0) continue;  // done at an earlier occurrence
    worker.counts[*id] = 0;
    float& logit = worker.logits[*id];
    logit = logit > 0.0F ? logit / repetition : logit * repetition;
    if (in_output > 0) {
      logit -= batch.frequency_penalty[row] * static_cast<float>(in_output) + batch.presence_penalty[row];
    }
  }
}

// Weights of all tokens by id: first the block that holds the drawn point, then the token within it.
int32_t Sampler::draw_from_all(const Row& row, Worker& worker) const {
  const double point = row.uniform * total_weight(row, worker);  // leaves the block sums in worker.weights
  const int64_t num_blocks = (vocab_size_ + kBlock - 1) / kBlock;
  double passed = 0.0;
  int64_t chosen = 0;
  for (int64_t block = 0; block < num_blocks; ++block) {
    const double sum = static_cast<double>(worker.weights[block]);
    if (sum == 0.0) continue;
    chosen = block;  // the last block with weight, should rounding carry the point past it
    if (passed + sum > point) break;
    passed += sum;
  }
  const int64_t begin = chosen * kBlock;
  const int64_t count = std::min(kBlock, vocab_size_ - begin);
  ops_.exp_weights(row.logits + begin, count, row.max, row.scale, row.floor, worker.weights);
  int64_t token = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (worker.weights[i] == 0.0F) continue;
    token = i;
    passed += static_cast<double>(worker.weights[i]);
    if (passed > point) break;
  }
  return static_cast<int32_t>(begin + token);
}

// Sum of all weights; the sums of the blocks stay in worker.weights.
double Sampler::total_weight(const Row& row, Worker& worker) const {
  ops_.exp_sums(row.logits, vocab_size_, kBlock, row.max, row.scale, row.floor, worker.weights);
  double total = 0.0;
  for (int64_t block = 0; block < (vocab_size_ + kBlock - 1) / kBlock; ++block) {
    total += static_cast<double>(worker.weights[block]);
  }
  return total;
}

void Sampler::select_candidates(const Row& row, float floor, Worker& worker) const {
  const int64_t count = ops_.select(row.logits, vocab_size_, floor, worker.ids, vocab_size_);
  worker.candidates.clear();
  for (int64_t i = 0; i < count; ++i) worker.candidates.push_back({row.logits[worker.ids[i]], worker.ids[i]});
}

// Keeps the `count` likeliest candidates (the lower id first among equals), in that order, with their weights.
void Sampler::sort_candidates(const Row& row, int64_t count, Worker& worker) const {
  std::vector<Candidate>& candidates = worker.candidates;
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (count < static_cast<int64_t>(candidates.size())) {
    std::nth_element(candidates.begin(), candidates.begin() + count, candidates.end(), likelier);
    candidates.resize(static_cast<size_t>(count));
  }
  std::sort(candidates.begin(), candidates.end(), likelier);
  for (size_t i = 0; i < candidates.size(); ++i) worker.weights[i] = candidates[i].logit;
  ops_.exp_weights(worker.weights, static_cast<int64_t>(candidates.size()), row.max, row.scale, row.floor,
                   worker.weights);
}

// Sorts only the head of the distribution: candidates are taken within a distance of the greatest logit, which grows
// until they are enough. What is kept does not depend on the distances tried.
int32_t Sampler::draw_from_top(const Row& row, int64_t top_k, float top_p, Worker& worker) const {
  const bool by_count = top_k < vocab_size_;
  const double all = by_count ? 0.0 : total_weight(row, worker);
  for (float distance = by_count ? 4.0F : 4.0F / row.scale;; distance *= 2.0F) {
    const float floor = std::max(row.floor, row.max - distance);
    const bool complete = !(floor > row.floor);
    select_candidates(row, complete ? row.floor : floor, worker);
    if (by_count && !complete && static_cast<int64_t>(worker.candidates.size()) < top_k) continue;
    sort_candidates(row, top_k, worker);
    const size_t count = worker.candidates.size();
    double total = all;
    for (size_t i = 0; by_count && i < count; ++i) total += static_cast<double>(worker.weights[i]);
    size_t kept = 0;
    double kept_weight = 0.0;
    const double wanted = top_p >= 1.0F ? std::numeric_limits<double>::infinity() : static_cast<double>(top_p) * total;
    while (kept < count && (kept == 0 || kept_weight < wanted))
      kept_weight += static_cast<double>(worker.weights[kept++]);
    if (!by_count && !complete && kept_weight < wanted) continue;
    const double point = row.uniform * kept_weight;
    double passed = 0.0;
    size_t chosen = 0;
    for (size_t i = 0; i < kept; ++i) {
      if (worker.weights[i] == 0.0F) break;
      chosen = i;
      passed += static_cast<double>(worker.weights[i]);
      if (passed > point) break;
    }
    return worker.candidates[chosen].id;
  }
}

}  // namespace corral
