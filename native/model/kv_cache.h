#pragma once

#include <cstddef>
#include <cstdint>

#include "base/virtual_memory.h"
#include "model/config.h"

namespace corral {

// Keys and values of all sequences: `num_blocks` blocks of 16 tokens in one virtual range, untouched until used.
// Block: [layer][kv head][K page | V page | scales, if any]; see KvType (kernels/ops.h).
class KVCache {
 public:
  KVCache(const DecoderConfig& config, int64_t num_blocks, KvType type);

  KvType type() const { return type_; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t block_bytes() const { return block_bytes_; }

  // Pages of a layer and KV head in block 0; those of block b lie b * block_bytes() further.
  uint8_t* pages(int64_t layer, int64_t kv_head) const {
    return memory_.data() + (layer * num_kv_heads_ + kv_head) * head_bytes_;
  }

  void copy_block(int64_t source, int64_t target) const;
  // Gives the memory pages that lie wholly in these blocks back; neighbours are given back together.
  void release_blocks(const int32_t* blocks, int64_t count) const;
  size_t resident_bytes() const { return memory_.resident_bytes(); }

 private:
  KvType type_;
  int64_t num_blocks_;
  int64_t num_kv_heads_;
  int64_t head_bytes_;   // a K and a V page, and their scales
  int64_t block_bytes_;  // a multiple of 64
  VirtualMemory memory_;
};

}  // namespace corral
