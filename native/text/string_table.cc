#include "text/string_table.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <stdexcept>

namespace corral {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxProbes = 32;  // for each string, on average; an honest vocabulary needs less than one

uint64_t read_length(const uint8_t* data) {
  uint64_t value = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) value |= uint64_t{data[i]} << (8 * i);
  return value;
}

uint64_t load(const char* data, size_t size) {
  uint64_t value = 0;
  std::memcpy(&value, data, size);
  return value;
}

// Multiply and fold, eight bytes at a time.
uint32_t hash_of(std::string_view text) {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  uint64_t hash = text.size() * kMultiplier;
  const char* data = text.data();
  size_t left = text.size();
  for (; left > 8; left -= 8, data += 8) {
    hash = (hash ^ load(data, 8)) * kMultiplier;
    hash ^= hash >> 32;
  }
  hash = (hash ^ load(data, left)) * kMultiplier;
  return static_cast<uint32_t>(hash >> 32);
}

bool is_continuation(char byte) { return (static_cast<uint8_t>(byte) & 0xc0) == 0x80; }

// Bytes of the UTF-8 character at the start of `text`, which is not empty; 0 if there is none.
size_t character_bytes(std::string_view text) {
  const auto byte = [text](size_t at) { return at < text.size() ? static_cast<uint8_t>(text[at]) : uint8_t{0}; };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const size_t size = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  // Only the second byte may be bounded further: no longer form than needed, no surrogate, nothing beyond U+10FFFF.
  const uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
  const uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
  if (byte(1) < low || byte(1) > high) return 0;
  for (size_t at = 2; at < size; ++at) {
    if (byte(at) < 0x80 || byte(at) > 0xbf) return 0;
  }
  return size;
}

}  // namespace

size_t StringTable::read(const uint8_t* data, size_t size, size_t count, size_t max_bytes) {
  size_t offset = 0;
  for (size_t i = 0; i < count; ++i) {
    if (size - offset < kLengthBytes) break;
    const uint64_t length = read_length(data + offset);
    if (length > max_bytes || length > size - offset - kLengthBytes) break;
    append({reinterpret_cast<const char*>(data + offset + kLengthBytes), static_cast<size_t>(length)});
    offset += kLengthBytes + static_cast<size_t>(length);
  }
  return offset;
}

void StringTable::append(std::string_view text) {
  block_.append(text);
  ends_.push_back(block_.size());
}

std::string_view StringTable::operator[](size_t index) const {
  const size_t begin = index == 0 ? 0 : ends_[index - 1];
  return std::string_view(block_).substr(begin, ends_[index] - begin);
}

size_t StringTable::longest_bytes() const {
  size_t longest = 0;
  for (size_t i = 0; i < size(); ++i) longest = std::max(longest, (*this)[i].size());
  return longest;
}

size_t StringTable::longest_characters() const {
  size_t longest = 0;
  for (size_t i = 0; i < size(); ++i) {
    const std::string_view text = (*this)[i];
    if (text.size() <= longest) continue;
    const auto continuations = static_cast<size_t>(std::count_if(text.begin(), text.end(), is_continuation));
    longest = std::max(longest, text.size() - continuations);
  }
  return longest;
}

StringIndex::StringIndex(const StringTable& table) : table_(table) {
  if (table.size() >= UINT32_MAX) throw std::invalid_argument("a table of 2^32 strings or more cannot be searched");
  slots_.resize(std::bit_ceil(2 * table.size() + 1));
  size_t num_probes = 0;
  for (uint32_t index = 0; index < table.size(); ++index) {
    const uint32_t hash = hash_of(table[index]);
    Slot& slot = slots_[slot_of(table[index], hash, num_probes)];
    if (num_probes > kMaxProbes * (table.size() + 1)) {
      throw std::invalid_argument("the strings were chosen to have equal hashes");
    }
    if (slot.index_plus_1 == 0) {
      slot = {hash, index + 1};
    } else if (!duplicate_) {
      duplicate_ = {slot.index_plus_1 - 1, index};
    }
  }
}

std::optional<uint32_t> StringIndex::find(std::string_view text) const {
  size_t num_probes = 0;
  const Slot& slot = slots_[slot_of(text, hash_of(text), num_probes)];
  if (slot.index_plus_1 == 0) return std::nullopt;
  return slot.index_plus_1 - 1;
}

void StringIndex::prefetch(std::string_view text) const {
  __builtin_prefetch(&slots_[hash_of(text) & (slots_.size() - 1)]);
}

size_t StringIndex::slot_of(std::string_view text, uint32_t hash, size_t& num_probes) const {
  const size_t mask = slots_.size() - 1;
  for (size_t at = hash & mask;; at = (at + 1) & mask, ++num_probes) {
    const Slot& slot = slots_[at];
    if (slot.index_plus_1 == 0 || (slot.hash == hash && table_[slot.index_plus_1 - 1] == text)) return at;
  }
}

bool is_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const size_t size = character_bytes(text.substr(at));
    if (size == 0) return false;
    at += size;
  }
  return true;
}

}  // namespace corral
