#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace corral {

// An array of strings in one block: a vocabulary has 10^5 of them, and an object for each takes longer than all else in
// opening a model. Strings are bytes; files do not always hold UTF-8.
class StringTable {
 public:
  // Reads strings as GGUF files write them, a little-endian u64 length and that many bytes each, from [data, data +
  // size) until there are `count`. Stops before one that goes beyond the end or is longer than `max_bytes`. Returns how
  // many bytes were read; the table has fewer than `count` strings where it stopped.
  size_t read(const uint8_t* data, size_t size, size_t count, size_t max_bytes);

  void append(std::string_view text);

  size_t size() const { return ends_.size(); }
  std::string_view operator[](size_t index) const;

  size_t longest_bytes() const;
  // Characters of the longest string. Bytes that are no UTF-8 count as one each, or as none after a character's start.
  size_t longest_characters() const;

 private:
  std::string block_;
  std::vector<size_t> ends_;  // where each string ends in block_
};

// Finds the strings of a table, which must outlive it and not change.
class StringIndex {
 public:
  // Throws std::invalid_argument for a table whose strings were made to have equal hashes.
  explicit StringIndex(const StringTable& table);

  // The first string equal to `text`.
  std::optional<uint32_t> find(std::string_view text) const;
  // Begins to bring the place of `text` into the cache.
  void prefetch(std::string_view text) const;
  const StringTable& table() const { return table_; }
  // The first string that has occurred before: where it did, and where it does again.
  const std::optional<std::pair<uint32_t, uint32_t>>& duplicate() const { return duplicate_; }

 private:
  struct Slot {
    uint32_t hash = 0;
    uint32_t index_plus_1 = 0;  // 0: empty
  };
  // Where `text` stands, or the empty slot where it would; adds to `num_probes` how many others were looked at.
  size_t slot_of(std::string_view text, uint32_t hash, size_t& num_probes) const;

  const StringTable& table_;
  std::vector<Slot> slots_;  // a power of two, at most half of them taken
  std::optional<std::pair<uint32_t, uint32_t>> duplicate_;
};

// Whether `text` is UTF-8 as Unicode defines it: shortest forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text);

}  // namespace corral
