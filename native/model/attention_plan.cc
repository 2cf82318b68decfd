#include "model/attention_plan.h"

#include <algorithm>

#include "kernels/ops.h"

namespace corral {
namespace {

constexpr int64_t kItemRows = 32;                      // query rows that share the loads of one chunk
constexpr int64_t kSharingRows = kItemRows / 2;        // tiles of more rows are bound by arithmetic, not by loads
constexpr int64_t kLeastWorkRows = 8;                  // fewer take as long: then it is the loads that count
constexpr int64_t kMaxStateBytes = int64_t{64} << 20;  // beyond it tiles stay whole

}  // namespace

AttentionPlan::AttentionPlan(const DecoderConfig& config, int num_threads, int64_t max_tokens)
    : num_kv_heads_(config.num_kv_heads),
      heads_per_kv_(config.heads_per_kv()),
      is_causal_(config.is_causal),
      max_item_rows_(std::max(kItemRows, config.heads_per_kv())),
      tile_tokens_(std::max<int64_t>(1, kItemRows / config.heads_per_kv())),
      max_state_rows_(kMaxStateBytes / ((config.padded_head_dim() + 2) * static_cast<int64_t>(sizeof(float)))),
      num_threads_(num_threads),
      unfinished_(std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(max_tokens * config.num_kv_heads))) {}

VisibleKeys visible_keys(int64_t position, int64_t length, int64_t window, bool is_causal) {
  if (is_causal) return {window == 0 ? 0 : std::max<int64_t>(0, position - window + 1), position + 1};
  if (window == 0) return {0, length};
  return {std::max<int64_t>(0, position - window / 2), std::min(length, position + window / 2 + 1)};
}

void AttentionPlan::build(const Batch& batch, int64_t window) {
  tiles_.clear();
  items_.clear();
  item_tiles_.clear();
  state_rows_.clear();
  for (int32_t seq = 0; seq < batch.num_seqs; ++seq) add_tiles(batch, seq, window);
  find_sharing(batch);
  divide_tiles();
  for (const SharingGroup& group : shared_.groups()) add_group(group);
  add_other_items();
  finish_items();
}

int64_t AttentionPlan::work(int64_t rows, int64_t chunks) const {
  return std::max(rows, kLeastWorkRows) * chunks * kChunkKeys;
}

void AttentionPlan::add_tiles(const Batch& batch, int32_t seq, int64_t window) {
  const int32_t row_stop = batch.seq_offsets[seq + 1];
  const int64_t origin = int64_t{batch.start_positions[seq]} - batch.seq_offsets[seq];
  for (int32_t row = batch.seq_offsets[seq]; row < row_stop; row += static_cast<int32_t>(tile_tokens_)) {
    AttentionRows tile;
    tile.seq = seq;
    tile.row_begin = row;
    tile.row_end = std::min(row + static_cast<int32_t>(tile_tokens_), row_stop);
    const VisibleKeys first = visible_keys(origin + row, origin + row_stop, window, is_causal_);
    const VisibleKeys last = visible_keys(origin + tile.row_end - 1, origin + row_stop, window, is_causal_);
    tile.chunk_begin = static_cast<int32_t>(first.begin / kChunkKeys);
    tile.chunk_end = static_cast<int32_t>((last.end + kChunkKeys - 1) / kChunkKeys);
    tile.num_pages = static_cast<int32_t>((last.end + kBlockTokens - 1) / kBlockTokens);
    tiles_.push_back(tile);
  }
}

void AttentionPlan::find_sharing(const Batch& batch) {
  candidates_.clear();
  for (size_t index = 0; index < tiles_.size(); ++index) {
    const AttentionRows& tile = tiles_[index];
    if (heads_of(tile) > kSharingRows) continue;
    candidates_.push_back({.id = static_cast<int32_t>(index),
                           .blocks = batch.block_table(tile.seq),
                           .chunk_begin = tile.chunk_begin,
                           .num_pages = tile.num_pages});
  }
  shared_.find(candidates_);
  shares_.assign(tiles_.size(), false);
  for (const int32_t member : shared_.members()) shares_[static_cast<size_t>(member)] = true;
}

// Tiles that share blocks, and those that are large beside the share of a thread.
void AttentionPlan::divide_tiles() {
  int64_t total = 0;
  for (const AttentionRows& tile : tiles_) total += work(heads_of(tile), tile.chunk_end - tile.chunk_begin);
  total *= num_kv_heads_;
  num_states_ = 0;
  next_state_ = 0;
  num_divided_ = 0;
  for (size_t index = 0; index < tiles_.size(); ++index) {
    AttentionRows& tile = tiles_[index];
    const int64_t chunks = tile.chunk_end - tile.chunk_begin;
    const bool large = num_threads_ > 1 && chunks > 1 && work(heads_of(tile), chunks) * 2 * num_threads_ > total;
    const int64_t states = heads_of(tile) * chunks;
    if ((!large && !shares_[index]) || (num_states_ + states) * num_kv_heads_ > max_state_rows_) continue;
    num_states_ += states;
    tile.divided = num_divided_++;
    tile.first_state = static_cast<int32_t>(state_rows_.size());
    state_rows_.resize(state_rows_.size() + static_cast<size_t>(chunks), -1);
    for (int64_t head = 0; head < num_kv_heads_; ++head) {
      unfinished_[static_cast<size_t>(tile.divided * num_kv_heads_ + head)].store(static_cast<int32_t>(chunks),
                                                                                  std::memory_order_relaxed);
    }
  }
}

// One item of KV head 0; its tiles must be divided if it has a state.
void AttentionPlan::add_item(AttentionItem item, const int32_t* tiles, int32_t num_tiles) {
  item.first_tile = static_cast<int32_t>(item_tiles_.size());
  item.num_tiles = num_tiles;
  for (int32_t i = 0; i < num_tiles; ++i) {
    const AttentionRows& tile = tiles_[static_cast<size_t>(tiles[i])];
    item_tiles_.push_back(tiles[i]);
    if (tile.divided < 0) continue;
    if (i == 0) item.state_row = static_cast<int32_t>(next_state_);
    state_rows_[static_cast<size_t>(tile.first_state + item.chunk_begin - tile.chunk_begin)] =
        static_cast<int32_t>(next_state_);
    next_state_ += heads_of(tile);
  }
  items_.push_back(item);
}

// As many items as the rows take, of nearly equal size: one after the other, they find the blocks in the cache.
void AttentionPlan::add_group(const SharingGroup& group) {
  members_.clear();
  int64_t rows = 0;
  for (int32_t i = 0; i < group.num_members; ++i) {
    const int32_t index = shared_.members()[static_cast<size_t>(group.first_member + i)];
    const AttentionRows& tile = tiles_[static_cast<size_t>(index)];
    if (tile.divided < 0) continue;
    members_.push_back(index);
    rows += heads_of(tile);
  }
  AttentionItem item;
  item.chunk_begin = group.chunk;
  item.chunk_end = group.chunk + 1;
  item.common_pages = group.common_pages;
  const int64_t num_items = (rows + max_item_rows_ - 1) / max_item_rows_;
  item.weight = work(std::min(rows, max_item_rows_), 1);
  const int64_t wanted_rows = num_items == 0 ? 0 : (rows + num_items - 1) / num_items;
  for (size_t begin = 0; begin < members_.size();) {
    size_t end = begin;
    int64_t item_rows = 0;
    while (end < members_.size() && item_rows < wanted_rows) {
      const int64_t more = heads_of(tiles_[static_cast<size_t>(members_[end])]);
      if (item_rows + more > max_item_rows_) break;
      item_rows += more;
      ++end;
    }
    add_item(item, members_.data() + begin, static_cast<int32_t>(end - begin));
    begin = end;
  }
}

// Whole tiles, and the chunks of divided ones that no group has.
void AttentionPlan::add_other_items() {
  for (size_t index = 0; index < tiles_.size(); ++index) {
    const AttentionRows& tile = tiles_[index];
    const int32_t tile_index = static_cast<int32_t>(index);
    AttentionItem item;
    if (tile.divided < 0) {
      item.chunk_begin = tile.chunk_begin;
      item.chunk_end = tile.chunk_end;
      item.weight = work(heads_of(tile), tile.chunk_end - tile.chunk_begin);
      add_item(item, &tile_index, 1);
      continue;
    }
    item.weight = work(heads_of(tile), 1);
    for (int32_t chunk = tile.chunk_begin; chunk < tile.chunk_end; ++chunk) {
      if (state_rows_[static_cast<size_t>(tile.first_state + chunk - tile.chunk_begin)] >= 0) continue;
      item.chunk_begin = chunk;
      item.chunk_end = chunk + 1;
      add_item(item, &tile_index, 1);
    }
  }
}

// The items of the other KV heads, and the order.
void AttentionPlan::finish_items() {
  const size_t per_head = items_.size();
  items_.reserve(per_head * static_cast<size_t>(num_kv_heads_));
  for (int32_t head = 1; head < num_kv_heads_; ++head) {
    for (size_t i = 0; i < per_head; ++i) {
      AttentionItem item = items_[i];
      item.kv_head = head;
      if (item.state_row >= 0) item.state_row += static_cast<int32_t>(head * num_states_);
      items_.push_back(item);
    }
  }
  std::stable_sort(items_.begin(), items_.end(),
                   [](const AttentionItem& a, const AttentionItem& b) { return a.weight > b.weight; });
}

bool AttentionPlan::finish_chunk(const AttentionRows& tile, int32_t kv_head) {
  std::atomic<int32_t>& unfinished = unfinished_[static_cast<size_t>(tile.divided * num_kv_heads_ + kv_head)];
  if (unfinished.fetch_sub(1, std::memory_order_acq_rel) != 1) return false;
  unfinished.store(tile.chunk_end - tile.chunk_begin, std::memory_order_relaxed);
  return true;
}

}  // namespace corral
