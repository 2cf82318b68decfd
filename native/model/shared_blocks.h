#pragma once

#include <cstdint>
#include <vector>

#include "model/batch.h"

namespace corral {

// Sequences whose block tables have the same blocks in a chunk, at least its first ones: their K and V are read once.
struct SharingGroup {
  int32_t chunk = 0;
  int32_t first_member = 0;  // of SharedBlocks::members()
  int32_t num_members = 0;
  int32_t common_pages = 0;  // pages before it are the same blocks for all members, counted from position 0
};

// Finds which sequences of a step share blocks, chunk by chunk: a tree of prefixes becomes larger groups in its early
// chunks and smaller ones further on.
class SharedBlocks {
 public:
  // One sequence that may share: its table up to the last position that its rows see.
  struct Candidate {
    int32_t id = 0;  // what members() names
    const int32_t* blocks = nullptr;
    int32_t chunk_begin = 0;
    int32_t num_pages = 0;
  };

  void find(const std::vector<Candidate>& candidates);

  const std::vector<SharingGroup>& groups() const { return groups_; }  // each of two members or more, by chunk
  const std::vector<int32_t>& members() const { return members_; }

 private:
  void find_in_chunk(int32_t chunk);

  std::vector<Candidate> candidates_;  // those of the chunk at hand and of later ones
  std::vector<Candidate> in_chunk_;
  std::vector<SharingGroup> groups_;
  std::vector<int32_t> members_;
};

}  // namespace corral
