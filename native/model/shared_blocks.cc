#include "model/shared_blocks.h"

#include <algorithm>

#include "kernels/ops.h"

namespace corral {
namespace {

constexpr int32_t kChunkPages = kChunkKeys / kBlockTokens;
constexpr int32_t kMinCommonPages = 4;  // fewer are not worth the states that a group leaves and merges

struct Pages {
  const int32_t* begin;
  const int32_t* end;
};

Pages pages_of(const SharedBlocks::Candidate& candidate, int32_t chunk) {
  return {candidate.blocks + chunk * kChunkPages,
          candidate.blocks + std::min(candidate.num_pages, (chunk + 1) * kChunkPages)};
}

int32_t count_common(const Pages& a, const Pages& b) {
  return static_cast<int32_t>(std::mismatch(a.begin, a.end, b.begin, b.end).first - a.begin);
}

}  // namespace

void SharedBlocks::find(const std::vector<Candidate>& candidates) {
  groups_.clear();
  members_.clear();
  if (candidates.size() < 2) return;
  candidates_ = candidates;
  int32_t last_chunk = 0;
  for (const Candidate& candidate : candidates) {
    last_chunk = std::max(last_chunk, (candidate.num_pages - 1) / kChunkPages);
  }
  for (int32_t chunk = 0; chunk <= last_chunk; ++chunk) find_in_chunk(chunk);
}

// Sorted by their blocks, sharers are neighbours. A sequence joins the group before it if that lowers the number of
// pages read: n members that read c pages together and the rest alone lose n * (c - c') when only c' stay common, and
// the newcomer saves c'.
void SharedBlocks::find_in_chunk(int32_t chunk) {
  in_chunk_.clear();
  for (const Candidate& candidate : candidates_) {
    if (candidate.chunk_begin <= chunk && candidate.num_pages > chunk * kChunkPages) in_chunk_.push_back(candidate);
  }
  std::sort(in_chunk_.begin(), in_chunk_.end(), [&](const Candidate& a, const Candidate& b) {
    const Pages left = pages_of(a, chunk);
    const Pages right = pages_of(b, chunk);
    return std::lexicographical_compare(left.begin, left.end, right.begin, right.end);
  });
  for (size_t begin = 0; begin < in_chunk_.size();) {
    const Pages first = pages_of(in_chunk_[begin], chunk);
    int32_t common = static_cast<int32_t>(first.end - first.begin);
    size_t end = begin + 1;
    for (; end < in_chunk_.size(); ++end) {
      // In sorted order the newcomer has no more in common with any member than with the first.
      const int32_t with_next = std::min(common, count_common(first, pages_of(in_chunk_[end], chunk)));
      if (with_next < kMinCommonPages) break;
      const int32_t others = static_cast<int32_t>(end - begin) - 1;
      if (others * (common - with_next) > with_next) break;
      common = with_next;
    }
    if (end - begin > 1) {
      groups_.push_back({.chunk = chunk,
                         .first_member = static_cast<int32_t>(members_.size()),
                         .num_members = static_cast<int32_t>(end - begin),
                         .common_pages = chunk * kChunkPages + common});
      for (size_t i = begin; i < end; ++i) members_.push_back(in_chunk_[i].id);
    }
    begin = end;
  }
}

}  // namespace corral
