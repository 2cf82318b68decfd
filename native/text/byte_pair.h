#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/string_table.h"

namespace corral {

// GPT-2's printable character for each byte, in UTF-8: itself where that is printable, else U+0100 upwards, in order.
const std::array<std::string, 256>& byte_alphabet();

// The two parts of a merge, as llama.cpp cuts it: at the first space that is not its first character. Empty if a part
// were empty, the right part had a space, or `merge` is no UTF-8.
struct MergeParts {
  std::string_view left, right;
};
std::optional<MergeParts> cut_merge(std::string_view merge);

// Ids by pairs of ids: open addressing, at most half full.
class PairMap {
 public:
  struct Merge {
    uint32_t rank;  // 0 merges first
    int32_t id;     // of the joined text
  };

  explicit PairMap(size_t max_size);
  // The first one that a pair gets stays. Throws std::invalid_argument for pairs made to have equal hashes.
  void add(int32_t left, int32_t right, Merge merge);
  const Merge* find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  size_t slot_of(uint64_t key, size_t& num_probes) const;

  std::vector<Slot> slots_;
  size_t num_probes_ = 0;
};

// Byte-level BPE: merges the bytes of each word, the merge of the lowest rank first, the leftmost of equal ones.
//
// Merges may lead through texts that are no token: these get ids beyond the vocabulary while merging; one that is left
// over is written as its ASCII characters that are tokens, the others not at all, as llama.cpp does. Immutable.
class BytePairEncoder {
 public:
  // A unit of text to encode is a byte, plus kContinues unless it begins a word.
  static constexpr uint16_t kContinues = 256;

  // `is_usable`: one for each token; plain text never becomes one that is not. `keeps_whole_words`: a word that is a
  // token is taken as it is, without merging. The tokens must outlive the encoder.
  // Throws std::invalid_argument: a merge that cut_merge refuses, or strings made to have equal hashes.
  BytePairEncoder(const StringTable& tokens, const StringIndex& index, const StringTable& merges,
                  std::vector<bool> is_usable, bool keeps_whole_words);

  std::vector<int32_t> encode(const uint16_t* units, size_t num_units) const;

  // Bytes that are no token by themselves.
  int num_missing_bytes() const { return num_missing_bytes_; }
  // The first text of several characters that the merges name and that is no usable token.
  const std::optional<std::string>& first_unnamed() const { return first_unnamed_; }

 private:
  class Word;
  void fetch_parts(std::string_view merge) const;
  std::optional<int32_t> usable(std::string_view text) const;
  int32_t id_of(std::string_view text);
  std::optional<int32_t> whole_word(const uint16_t* units, size_t num_units) const;
  void write(int32_t id, std::vector<int32_t>& out) const;

  const StringTable& tokens_;
  const StringIndex& index_;
  std::vector<bool> is_usable_;
  bool keeps_whole_words_;
  size_t longest_bytes_;
  std::array<int32_t, 256> byte_ids_{};
  // While building: texts without token -> ids beyond the vocabulary. Ordered: a stranger could choose equal hashes.
  std::map<std::string, int32_t, std::less<>> unnamed_;
  std::vector<std::vector<int32_t>> spellings_;  // of these ids, in order
  PairMap merges_;
  int num_missing_bytes_ = 0;
  std::optional<std::string> first_unnamed_;
};

}  // namespace corral
