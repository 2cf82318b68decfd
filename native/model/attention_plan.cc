#include "model/attention_plan.h"

#include <algorithm>

#include "kernels/ops.h"

namespace corral {
namespace {

constexpr int64_t kTileRows = 32;                     // query rows that share the loads of one chunk
constexpr int64_t kMaxSlotBytes = int64_t{64} << 20;  // of all slots; beyond it tiles stay whole

int64_t work(const AttentionItem& item) {
  return static_cast<int64_t>(item.row_end - item.row_begin) * (item.chunk_end - item.chunk_begin);
}

}  // namespace

AttentionPlan::AttentionPlan(const DecoderConfig& config, int num_threads, int64_t num_blocks)
    : num_kv_heads_(config.num_kv_heads),
      heads_per_kv_(config.heads_per_kv()),
      padded_dim_(config.padded_head_dim()),
      max_tile_rows_(std::max(kTileRows, config.heads_per_kv())),
      tile_tokens_(std::max<int64_t>(1, kTileRows / config.heads_per_kv())),
      max_slots_(0),
      num_threads_(num_threads) {
  // At most 2 * threads tiles are larger than the share that makes them worth dividing.
  const int64_t max_chunks = num_blocks * kBlockTokens / kChunkKeys + 1;
  const int64_t slot_bytes = slot_floats() * static_cast<int64_t>(sizeof(float));
  max_slots_ = num_threads == 1 ? 0 : std::min(2 * num_threads * max_chunks, kMaxSlotBytes / slot_bytes);
  unfinished_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(max_slots_ / 2 + 1));
}

int64_t AttentionPlan::slot_floats() const { return (max_tile_rows_ * (padded_dim_ + 2) + 15) / 16 * 16; }

void AttentionPlan::build(const Batch& batch, int64_t window) {
  tiles_.clear();
  items_.clear();
  splits_.clear();
  for (int32_t seq = 0; seq < batch.num_seqs; ++seq) {
    for (int32_t row = batch.seq_offsets[seq]; row < batch.seq_offsets[seq + 1];
         row += static_cast<int32_t>(tile_tokens_)) {
      add_tile(batch, seq, row, window);
    }
  }
  divide_large_tiles();
  std::sort(items_.begin(), items_.end(),
            [](const AttentionItem& a, const AttentionItem& b) { return work(a) > work(b); });
}

void AttentionPlan::add_tile(const Batch& batch, int32_t seq, int32_t row_begin, int64_t window) {
  AttentionItem tile;
  tile.seq = seq;
  tile.row_begin = row_begin;
  tile.row_end = std::min(row_begin + static_cast<int32_t>(tile_tokens_), batch.seq_offsets[seq + 1]);
  const int64_t origin = int64_t{batch.start_positions[seq]} - batch.seq_offsets[seq];
  const int64_t first_key = window == 0 ? 0 : std::max<int64_t>(0, origin + row_begin - window + 1);
  tile.chunk_begin = static_cast<int32_t>(first_key / kChunkKeys);
  tile.chunk_end = static_cast<int32_t>((origin + tile.row_end + kChunkKeys - 1) / kChunkKeys);
  for (int32_t head = 0; head < num_kv_heads_; ++head) {
    tile.kv_head = head;
    tiles_.push_back(tile);
  }
}

void AttentionPlan::divide_large_tiles() {
  int64_t total = 0;
  for (const AttentionItem& tile : tiles_) total += work(tile);
  int64_t num_slots = 0;
  for (const AttentionItem& tile : tiles_) {
    const int64_t chunks = tile.chunk_end - tile.chunk_begin;
    const bool large = chunks > 1 && work(tile) * 2 * num_threads_ > total;
    if (!large || num_slots + chunks > max_slots_) {
      items_.push_back(tile);
      continue;
    }
    AttentionItem part = tile;
    part.split = static_cast<int32_t>(splits_.size());
    splits_.push_back({static_cast<int32_t>(num_slots), static_cast<int32_t>(chunks)});
    unfinished_[static_cast<size_t>(part.split)].store(static_cast<int32_t>(chunks), std::memory_order_relaxed);
    for (int32_t chunk = tile.chunk_begin; chunk < tile.chunk_end; ++chunk) {
      part.chunk_begin = chunk;
      part.chunk_end = chunk + 1;
      part.slot = static_cast<int32_t>(num_slots++);
      items_.push_back(part);
    }
  }
}

bool AttentionPlan::finish_part(int32_t split) {
  std::atomic<int32_t>& unfinished = unfinished_[static_cast<size_t>(split)];
  if (unfinished.fetch_sub(1, std::memory_order_acq_rel) != 1) return false;
  unfinished.store(splits_[static_cast<size_t>(split)].num_slots, std::memory_order_relaxed);
  return true;
}

}  // namespace corral
