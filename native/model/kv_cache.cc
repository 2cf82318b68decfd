#include "model/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <vector>

namespace corral {
namespace {

size_t cache_bytes(int64_t num_blocks, int64_t block_bytes) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<size_t>(num_blocks), static_cast<size_t>(block_bytes), &bytes)) {
    throw std::bad_alloc();
  }
  return bytes;
}

int64_t head_bytes(KvType type, int64_t padded_dim) {
  const int64_t values = 2 * padded_dim * kBlockTokens;
  if (type == KvType::kF16) return values * static_cast<int64_t>(sizeof(uint16_t));
  return values + 2 * num_scales(padded_dim) * kBlockTokens * static_cast<int64_t>(sizeof(uint16_t));
}

}  // namespace

KVCache::KVCache(const DecoderConfig& config, int64_t num_blocks, KvType type)
    : type_(type),
      num_blocks_(num_blocks),
      num_kv_heads_(config.num_kv_heads),
      head_bytes_(head_bytes(type, config.padded_head_dim())),
      block_bytes_(config.num_layers * num_kv_heads_ * head_bytes_),
      memory_(cache_bytes(num_blocks, block_bytes_)) {
  memory_.advise_huge_pages(false);  // memory follows the tokens that are held
}

void KVCache::copy_block(int64_t source, int64_t target) const {
  if (source == target) return;
  std::memcpy(memory_.data() + target * block_bytes_, memory_.data() + source * block_bytes_,
              static_cast<size_t>(block_bytes_));
}

void KVCache::release_blocks(const int32_t* blocks, int64_t count) const {
  std::vector<int32_t> sorted(blocks, blocks + count);
  std::sort(sorted.begin(), sorted.end());
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = begin + 1;
    while (end < sorted.size() && sorted[end] - sorted[end - 1] <= 1) ++end;
    const int64_t run = sorted[end - 1] - sorted[begin] + 1;
    memory_.release(static_cast<size_t>(sorted[begin] * block_bytes_), static_cast<size_t>(run * block_bytes_));
    begin = end;
  }
}

}  // namespace corral
