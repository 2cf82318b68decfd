// Attention stage of DecoderWorker.
#include <algorithm>
#include <cstring>
#include <limits>

#include "model/decoder_worker.h"

namespace corral {
namespace {

AttentionState rows_from(const AttentionState& states, int64_t row, int64_t padded_dim) {
  return {states.max + row, states.sum + row, states.acc + row * padded_dim};
}

}  // namespace

void DecoderWorker::attend(int64_t layer) {
  AttentionPlan& plan = *plans_[config_.is_local(layer) ? 1 : 0];
  const std::vector<AttentionItem>& items = plan.items();
  const auto attend_items = [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) attend_item(items[static_cast<size_t>(index)], plan, layer);
  };
  share_then_rows(static_cast<int64_t>(items.size()), 1, attend_items,
                  [&](int64_t begin, int64_t end) { quantize_attention(layer, begin, end); });
}

void DecoderWorker::attend_item(const AttentionItem& item, AttentionPlan& plan, int64_t layer) {
  const AttentionTile tile = gather_rows(item, plan, layer);
  const KvKernels& kernels = ops_.kv_of(kv_cache_.type());
  if (item.state_row < 0) {
    std::fill_n(own_.state.max, tile.num_rows, -std::numeric_limits<float>::infinity());
    for (int64_t chunk = item.chunk_begin; chunk < item.chunk_end; ++chunk) {
      kernels.attend_chunk(tile, chunk * kChunkKeys, own_.scores, own_.part);
      ops_.merge(own_.state, own_.part, tile.num_rows, tile.padded_dim);
    }
    finish_rows(plan.item_tile(item, 0), item.kv_head);
    return;
  }
  const AttentionState& states = scratch_.states[config_.is_local(layer) ? 1 : 0];
  kernels.attend_chunk(tile, item.chunk_begin * kChunkKeys, own_.scores,
                       rows_from(states, item.state_row, tile.padded_dim));
  for (int32_t index = 0; index < item.num_tiles; ++index) {
    const AttentionRows& rows = plan.item_tile(item, index);
    if (plan.finish_chunk(rows, item.kv_head)) merge_chunks(rows, plan, layer, item.kv_head);
  }
}

AttentionTile DecoderWorker::gather_rows(const AttentionItem& item, const AttentionPlan& plan, int64_t layer) {
  const int64_t group = config_.heads_per_kv();
  const int64_t window = config_.is_local(layer) ? config_.sliding_window : 0;
  AttentionTile tile;
  for (int32_t index = 0; index < item.num_tiles; ++index) {
    const AttentionRows& rows = plan.item_tile(item, index);
    const int64_t length = batch_.end_position(rows.seq);
    for (int32_t row = rows.row_begin; row < rows.row_end; ++row) {
      const int64_t position = scratch_.row_position[static_cast<size_t>(row)];
      const VisibleKeys keys = visible_keys(position, length, window, config_.is_causal);
      const float* q = scratch_.qkv + row * scratch_.qkv_stride + item.kv_head * group * config_.head_dim;
      for (int64_t head = 0; head < group; ++head) {
        const size_t tile_row = static_cast<size_t>(tile.num_rows++);
        own_.queries[tile_row] = q + head * config_.head_dim;
        own_.block_tables[tile_row] = batch_.block_table(rows.seq);
        own_.key_begin[tile_row] = static_cast<int32_t>(keys.begin);
        own_.key_end[tile_row] = static_cast<int32_t>(keys.end);
      }
    }
  }
  tile.queries = own_.queries.data();
  tile.key_begin = own_.key_begin.data();
  tile.key_end = own_.key_end.data();
  tile.block_tables = own_.block_tables.data();
  tile.common_pages = item.common_pages;
  tile.pages = kv_cache_.pages(layer, item.kv_head);
  tile.block_bytes = kv_cache_.block_bytes();
  tile.head_dim = config_.head_dim;
  tile.padded_dim = config_.padded_head_dim();
  tile.softcap = config_.attn_softcap;
  return tile;
}

void DecoderWorker::merge_chunks(const AttentionRows& rows, const AttentionPlan& plan, int64_t layer, int32_t kv_head) {
  const int64_t padded_dim = config_.padded_head_dim();
  const int64_t num_rows = (rows.row_end - rows.row_begin) * config_.heads_per_kv();
  const AttentionState& states = scratch_.states[config_.is_local(layer) ? 1 : 0];
  std::fill_n(own_.state.max, num_rows, -std::numeric_limits<float>::infinity());
  for (int32_t chunk = rows.chunk_begin; chunk < rows.chunk_end; ++chunk) {
    ops_.merge(own_.state, rows_from(states, plan.state_row(rows, chunk, kv_head), padded_dim), num_rows, padded_dim);
  }
  finish_rows(rows, kv_head);
}

// Divides own_.state by the softmax sums and writes the heads side by side.
void DecoderWorker::finish_rows(const AttentionRows& rows, int32_t kv_head) {
  const int64_t group = config_.heads_per_kv();
  const int64_t dim = config_.head_dim;
  int64_t state_row = 0;
  for (int64_t row = rows.row_begin; row < rows.row_end; ++row) {
    float* out = scratch_.attention + row * config_.q_size() + kv_head * group * dim;
    for (int64_t head = 0; head < group; ++head, ++state_row) {
      std::memcpy(out + head * dim, own_.state.acc + state_row * config_.padded_head_dim(),
                  static_cast<size_t>(dim) * sizeof(float));
      ops_.scale(out + head * dim, 1.0F / own_.state.sum[state_row], dim);
    }
  }
}

}  // namespace corral
