// Attention stage of DecoderWorker.
#include <algorithm>
#include <cstring>
#include <limits>

#include "model/decoder_worker.h"

namespace corral {
namespace {

AttentionState slot_state(float* slots, const AttentionPlan& plan, int64_t slot) {
  float* memory = slots + slot * plan.slot_floats();
  return {memory, memory + plan.max_tile_rows(), memory + 2 * plan.max_tile_rows()};
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
  const int64_t group = config_.heads_per_kv();
  const bool local = config_.is_local(layer) && config_.sliding_window > 0;
  AttentionTile tile;
  for (int32_t row = item.row_begin; row < item.row_end; ++row) {
    const int32_t position = scratch_.row_position[static_cast<size_t>(row)];
    const int64_t first_key = local ? std::max<int64_t>(0, position - config_.sliding_window + 1) : 0;
    const float* q = scratch_.qkv + row * scratch_.qkv_stride + item.kv_head * group * config_.head_dim;
    for (int64_t head = 0; head < group; ++head) {
      const size_t tile_row = static_cast<size_t>(tile.num_rows++);
      own_.queries[tile_row] = q + head * config_.head_dim;
      own_.key_begin[tile_row] = static_cast<int32_t>(first_key);
      own_.key_end[tile_row] = position + 1;
    }
  }
  tile.queries = own_.queries.data();
  tile.key_begin = own_.key_begin.data();
  tile.key_end = own_.key_end.data();
  tile.block_table = batch_.block_table(item.seq);
  tile.pages = kv_cache_.pages(layer, item.kv_head);
  tile.block_bytes = kv_cache_.block_bytes();
  tile.head_dim = config_.head_dim;
  tile.padded_dim = config_.padded_head_dim();
  tile.softcap = config_.attn_softcap;

  float* slots = scratch_.slots[config_.is_local(layer) ? 1 : 0];
  if (item.split >= 0) {
    ops_.attend_chunk(tile, item.chunk_begin * kChunkKeys, own_.scores, slot_state(slots, plan, item.slot));
    if (!plan.finish_part(item.split)) return;
  }
  std::fill_n(own_.state.max, tile.num_rows, -std::numeric_limits<float>::infinity());
  if (item.split >= 0) {
    const AttentionSplit& split = plan.split(item.split);
    for (int32_t slot = split.first_slot; slot < split.first_slot + split.num_slots; ++slot) {
      ops_.merge(own_.state, slot_state(slots, plan, slot), tile.num_rows, tile.padded_dim);
    }
  } else {
    for (int64_t chunk = item.chunk_begin; chunk < item.chunk_end; ++chunk) {
      ops_.attend_chunk(tile, chunk * kChunkKeys, own_.scores, own_.part);
      ops_.merge(own_.state, own_.part, tile.num_rows, tile.padded_dim);
    }
  }
  finish_tile(item, own_.state);
}

// Divides by the softmax sums and writes the heads side by side.
void DecoderWorker::finish_tile(const AttentionItem& item, const AttentionState& state) {
  const int64_t group = config_.heads_per_kv();
  const int64_t dim = config_.head_dim;
  int64_t tile_row = 0;
  for (int64_t row = item.row_begin; row < item.row_end; ++row) {
    float* out = scratch_.attention + row * config_.q_size() + item.kv_head * group * dim;
    for (int64_t head = 0; head < group; ++head, ++tile_row) {
      std::memcpy(out + head * dim, state.acc + tile_row * config_.padded_head_dim(),
                  static_cast<size_t>(dim) * sizeof(float));
      ops_.scale(out + head * dim, 1.0F / state.sum[tile_row], dim);
    }
  }
}

}  // namespace corral
