#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "model/batch.h"
#include "model/config.h"
#include "model/shared_blocks.h"

namespace corral {

// The keys [begin, end) that a query sees, in a sequence of `length` tokens so far; `window` as
// DecoderConfig::sliding_window, 0 for layers that see everything.
struct VisibleKeys {
  int64_t begin = 0;
  int64_t end = 0;
};
VisibleKeys visible_keys(int64_t position, int64_t length, int64_t window, bool is_causal);

// Query tokens [row_begin, row_end) of one sequence; together they see chunks [chunk_begin, chunk_end). The chunks of a
// divided tile are computed by several items; whoever finishes last merges their states in ascending order.
struct AttentionRows {
  int32_t seq = 0;
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t chunk_begin = 0;
  int32_t chunk_end = 0;
  int32_t num_pages = 0;    // blocks up to the last key
  int32_t divided = -1;     // index among the divided tiles, or -1
  int32_t first_state = 0;  // of a divided tile: see AttentionPlan::state_row
};

// The rows of some tiles with all heads of one KV head, over chunks [chunk_begin, chunk_end). Several tiles have one
// chunk, of which they read the blocks before common_pages together.
struct AttentionItem {
  int32_t kv_head = 0;
  int32_t first_tile = 0;  // of item_tile()
  int32_t num_tiles = 1;
  int32_t chunk_begin = 0;
  int32_t chunk_end = 0;
  int32_t common_pages = INT32_MAX;
  int32_t state_row = -1;  // where the state of its chunk goes; -1: a whole tile, nothing to merge
  int64_t weight = 0;      // work, in rows times keys, by which items are ordered
};

// How the attention of one step is shared out. The plan decides who computes what and when, never the result: chunks
// are cut at fixed positions and merged in ascending order, whoever computes them and in whatever company.
class AttentionPlan {
 public:
  // max_tokens is the most rows of a step.
  AttentionPlan(const DecoderConfig& config, int num_threads, int64_t max_tokens);

  // Plans a step; `window` as DecoderConfig::sliding_window, 0 for layers that see everything.
  void build(const Batch& batch, int64_t window);

  const std::vector<AttentionItem>& items() const { return items_; }  // most work first, sharers of a chunk together
  const AttentionRows& item_tile(const AttentionItem& item, int32_t index) const {
    return tiles_[static_cast<size_t>(item_tiles_[static_cast<size_t>(item.first_tile + index)])];
  }
  int64_t max_item_rows() const { return max_item_rows_; }    // of one item, heads counted
  int64_t max_state_rows() const { return max_state_rows_; }  // one for each row, chunk and KV head of divided tiles
  int64_t state_row(const AttentionRows& tile, int32_t chunk, int32_t kv_head) const {
    return state_rows_[static_cast<size_t>(tile.first_state + chunk - tile.chunk_begin)] + kv_head * num_states_;
  }

  // True for the item that finishes a divided tile; also makes the tile ready for the next layer.
  bool finish_chunk(const AttentionRows& tile, int32_t kv_head);

 private:
  int64_t heads_of(const AttentionRows& tile) const { return (tile.row_end - tile.row_begin) * heads_per_kv_; }
  int64_t work(int64_t rows, int64_t chunks) const;
  void add_tiles(const Batch& batch, int32_t seq, int64_t window);
  void find_sharing(const Batch& batch);
  void divide_tiles();
  void add_group(const SharingGroup& group);
  void add_item(AttentionItem item, const int32_t* tiles, int32_t num_tiles);
  void add_other_items();
  void finish_items();

  const int64_t num_kv_heads_;
  const int64_t heads_per_kv_;
  const bool is_causal_;
  const int64_t max_item_rows_;
  const int64_t tile_tokens_;
  const int64_t max_state_rows_;
  const int num_threads_;
  int64_t num_states_ = 0;  // rows of all states of one KV head
  int64_t next_state_ = 0;  // the first of them that no item has
  int32_t num_divided_ = 0;
  std::vector<AttentionRows> tiles_;
  std::vector<AttentionItem> items_;
  std::vector<int32_t> item_tiles_;
  std::vector<int32_t> state_rows_;  // [divided tile][chunk]
  std::vector<bool> shares_;         // [tile]
  std::vector<int32_t> members_;
  std::vector<SharedBlocks::Candidate> candidates_;
  SharedBlocks shared_;
  std::unique_ptr<std::atomic<int32_t>[]> unfinished_;  // [divided tile][KV head] chunks
};

}  // namespace corral
