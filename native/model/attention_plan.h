#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/batch.h"
#include "model/config.h"

namespace corral {

// Query tokens [row_begin, row_end) of one sequence with all heads of one KV head, over chunks [chunk_begin,
// chunk_end).
struct AttentionItem {
  int32_t seq = 0;
  int32_t kv_head = 0;
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t chunk_begin = 0;
  int32_t chunk_end = 0;
  int32_t split = -1;  // index of the split this item is a part of, or -1
  int32_t slot = -1;   // where a part leaves its state
};

// A tile whose chunks are computed by several items; whoever finishes last merges the slots in ascending order.
struct AttentionSplit {
  int32_t first_slot = 0;
  int32_t num_slots = 0;
};

// How the attention of one step is shared out. The plan decides who computes what and when, never the result: chunks
// are cut at fixed positions and merged in ascending order whether one item or many compute them.
class AttentionPlan {
 public:
  AttentionPlan(const DecoderConfig& config, int num_threads, int64_t num_blocks);

  // Plans a step; `window` as DecoderConfig::sliding_window, 0 for layers that see everything.
  void build(const Batch& batch, int64_t window);

  const std::vector<AttentionItem>& items() const { return items_; }  // most work first
  const AttentionSplit& split(int32_t index) const { return splits_[static_cast<size_t>(index)]; }
  int64_t max_slots() const { return max_slots_; }
  int64_t max_tile_rows() const { return max_tile_rows_; }
  int64_t slot_floats() const;  // of one slot: max, sum and acc of a tile

  // True for the item that finishes its split; also makes the split ready for the next layer.
  bool finish_part(int32_t split);

 private:
  void add_tile(const Batch& batch, int32_t seq, int32_t row_begin, int64_t window);
  void divide_large_tiles();

  int64_t num_kv_heads_;
  int64_t heads_per_kv_;
  int64_t padded_dim_;
  int64_t max_tile_rows_;  // rows = tokens x heads of a group
  int64_t tile_tokens_;
  int64_t max_slots_;
  int num_threads_;
  std::vector<AttentionItem> items_;
  std::vector<AttentionItem> tiles_;
  std::vector<AttentionSplit> splits_;
  std::unique_ptr<std::atomic<int32_t>[]> unfinished_;  // [max_slots / 2] parts of each split
};

}  // namespace corral
