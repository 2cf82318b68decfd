#include "text/byte_pair.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <queue>
#include <stdexcept>
#include <utility>

namespace corral {
namespace {

constexpr size_t kMaxProbes = 32;  // for each pair, on average; an honest vocabulary needs less than one
constexpr size_t kAhead = 12;      // merges whose places in the index are fetched while others are looked up
constexpr size_t kShortWord = 32;  // up to so many bytes, looking through all pairs is faster than a queue

std::string utf8_of(uint32_t code) {  // below U+0800
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

std::array<std::string, 256> make_alphabet() {
  std::array<std::string, 256> alphabet;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    alphabet[byte] = utf8_of(is_printable ? byte : next++);
  }
  return alphabet;
}

bool has_two_characters(std::string_view text) {
  const auto starts = [](char byte) { return (static_cast<uint8_t>(byte) & 0xc0) != 0x80; };
  return std::count_if(text.begin(), text.end(), starts) > 1;
}

}  // namespace

const std::array<std::string, 256>& byte_alphabet() {
  static const std::array<std::string, 256> alphabet = make_alphabet();
  return alphabet;
}

std::optional<MergeParts> cut_merge(std::string_view merge) {
  const size_t cut = merge.find(' ', 1);
  if (cut == std::string_view::npos) return std::nullopt;
  const MergeParts parts{merge.substr(0, cut), merge.substr(cut + 1)};
  if (parts.right.empty() || parts.right.find(' ') != std::string_view::npos || !is_utf8(merge)) return std::nullopt;
  return parts;
}

PairMap::PairMap(size_t max_size) : slots_(std::bit_ceil(2 * max_size + 1)) {}

void PairMap::add(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  Slot& slot = slots_[slot_of(key, num_probes_)];
  if (num_probes_ > kMaxProbes * slots_.size())
    throw std::invalid_argument("the merges were chosen to have equal hashes");
  if (slot.key == kEmpty) slot = {key, merge};
}

const PairMap::Merge* PairMap::find(int32_t left, int32_t right) const {
  size_t num_probes = 0;
  const uint64_t key = uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  const Slot& slot = slots_[slot_of(key, num_probes)];
  return slot.key == kEmpty ? nullptr : &slot.merge;
}

size_t PairMap::slot_of(uint64_t key, size_t& num_probes) const {
  const size_t mask = slots_.size() - 1;
  const uint64_t hash = (key ^ key >> 29) * 0x9e3779b97f4a7c15;
  for (size_t at = (hash >> 32) & mask;; at = (at + 1) & mask, ++num_probes) {
    if (slots_[at].key == kEmpty || slots_[at].key == key) return at;
  }
}

// One word while it is merged: symbols in a doubly linked list, each at the position of its first byte.
class BytePairEncoder::Word {
 public:
  Word(const PairMap& merges, const std::array<int32_t, 256>& byte_ids, const uint16_t* units, size_t num_units)
      : merges_(merges) {
    symbols_.reserve(num_units);
    const auto size = static_cast<int32_t>(num_units);
    for (int32_t at = 0; at < size; ++at) {
      symbols_.push_back({byte_ids[units[at] & 0xff], at - 1, at + 1 < size ? at + 1 : kNone, nullptr});
    }
    for (int32_t at = 0; at < size; ++at) find_merge(at);
  }

  void merge() {
    if (symbols_.size() <= kShortWord) {
      merge_by_scan();
    } else {
      merge_by_queue();
    }
  }

  template <class Write>
  void for_each(const Write& write) const {
    for (int32_t at = 0; at != kNone; at = symbols_[static_cast<size_t>(at)].next) {
      write(symbols_[static_cast<size_t>(at)].id);
    }
  }

 private:
  static constexpr int32_t kNone = -1;
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
    const PairMap::Merge* merge;  // with the next one; null: none, also once this one has become part of another
  };
  struct Candidate {
    uint32_t rank;
    int32_t at;  // of the left symbol
    bool operator>(const Candidate& other) const { return std::pair(rank, at) > std::pair(other.rank, other.at); }
  };

  Symbol& symbol(int32_t at) { return symbols_[static_cast<size_t>(at)]; }

  void find_merge(int32_t at) {
    Symbol& left = symbol(at);
    left.merge = left.next == kNone ? nullptr : merges_.find(left.id, symbol(left.next).id);
  }

  // Merges the symbol at `at` with the one after it.
  void join(int32_t at) {
    Symbol& left = symbol(at);
    Symbol& right = symbol(left.next);
    left.id = left.merge->id;
    left.next = right.next;
    right.merge = nullptr;
    if (left.next != kNone) symbol(left.next).previous = at;
    find_merge(at);
    if (left.previous != kNone) find_merge(left.previous);
  }

  void merge_by_scan() {
    for (;;) {
      int32_t best = kNone;
      for (int32_t at = 0; at != kNone; at = symbol(at).next) {
        if (symbol(at).merge == nullptr) continue;
        if (best == kNone || symbol(at).merge->rank < symbol(best).merge->rank) best = at;
      }
      if (best == kNone) return;
      join(best);
    }
  }

  void merge_by_queue() {
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto push = [this, &queue](int32_t at) {
      if (const PairMap::Merge* merge = symbol(at).merge) queue.push({merge->rank, at});
    };
    for (int32_t at = 0; at != kNone; at = symbol(at).next) push(at);
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      // A rank has one pair: where it is no longer what stands there, the entry is out of date.
      const PairMap::Merge* merge = symbol(top.at).merge;
      if (merge == nullptr || merge->rank != top.rank) continue;
      join(top.at);
      push(top.at);
      if (symbol(top.at).previous != kNone) push(symbol(top.at).previous);
    }
  }

  const PairMap& merges_;
  std::vector<Symbol> symbols_;
};

BytePairEncoder::BytePairEncoder(const StringTable& tokens, const StringIndex& index, const StringTable& merges,
                                 std::vector<bool> is_usable, bool keeps_whole_words)
    : tokens_(tokens),
      index_(index),
      is_usable_(std::move(is_usable)),
      keeps_whole_words_(keeps_whole_words),
      longest_bytes_(tokens.longest_bytes()),
      merges_(merges.size()) {
  if (is_usable_.size() != tokens.size()) throw std::invalid_argument("is_usable must have a value for each token");
  for (size_t byte = 0; byte < 256; ++byte) {
    byte_ids_[byte] = id_of(byte_alphabet()[byte]);
    if (static_cast<size_t>(byte_ids_[byte]) >= tokens.size()) ++num_missing_bytes_;
  }
  std::string joined;
  size_t next = 0;  // token after the one that the last merge made: most vocabularies list them in the order of merges
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    if (rank + kAhead < merges.size()) fetch_parts(merges[rank + kAhead]);
    const std::optional<MergeParts> parts = cut_merge(merges[rank]);
    if (!parts) throw std::invalid_argument("merge " + std::to_string(rank) + " is no pair");
    joined.assign(parts->left).append(parts->right);
    const bool is_next = next < tokens.size() && tokens[next] == joined;
    const std::optional<uint32_t> whole = is_next ? static_cast<uint32_t>(next) : index_.find(joined);
    if (whole) next = *whole + 1;
    if (whole && !is_usable_[*whole]) continue;  // plain text never becomes it
    const int32_t left = id_of(parts->left);
    const int32_t right = id_of(parts->right);
    merges_.add(left, right, {static_cast<uint32_t>(rank), whole ? static_cast<int32_t>(*whole) : id_of(joined)});
  }
  unnamed_ = {};
}

void BytePairEncoder::fetch_parts(std::string_view merge) const {
  const size_t cut = merge.find(' ', 1);
  if (cut == std::string_view::npos) return;
  index_.prefetch(merge.substr(0, cut));
  index_.prefetch(merge.substr(cut + 1));
}

std::optional<int32_t> BytePairEncoder::usable(std::string_view text) const {
  const std::optional<uint32_t> found = index_.find(text);
  if (!found || !is_usable_[*found]) return std::nullopt;
  return static_cast<int32_t>(*found);
}

int32_t BytePairEncoder::id_of(std::string_view text) {
  if (const std::optional<int32_t> id = usable(text)) return *id;
  if (const auto known = unnamed_.find(text); known != unnamed_.end()) return known->second;
  const auto id = static_cast<int32_t>(tokens_.size() + spellings_.size());
  unnamed_.emplace(text, id);
  std::vector<int32_t>& spelling = spellings_.emplace_back();
  for (const char& character : text) {
    if (static_cast<uint8_t>(character) >= 0x80) continue;
    if (const std::optional<int32_t> ascii = usable({&character, 1})) spelling.push_back(*ascii);
  }
  if (!first_unnamed_ && has_two_characters(text)) first_unnamed_ = text;
  return id;
}

std::vector<int32_t> BytePairEncoder::encode(const uint16_t* units, size_t num_units) const {
  std::vector<int32_t> ids;
  ids.reserve(num_units / 3);
  size_t begin = 0;
  while (begin < num_units) {
    size_t end = begin + 1;
    while (end < num_units && (units[end] & kContinues) != 0) ++end;
    if (const std::optional<int32_t> id = whole_word(units + begin, end - begin)) {
      ids.push_back(*id);
    } else {
      Word word(merges_, byte_ids_, units + begin, end - begin);
      word.merge();
      word.for_each([this, &ids](int32_t id) { write(id, ids); });
    }
    begin = end;
  }
  return ids;
}

std::optional<int32_t> BytePairEncoder::whole_word(const uint16_t* units, size_t num_units) const {
  if (!keeps_whole_words_ || num_units > longest_bytes_) return std::nullopt;
  std::string text;
  for (size_t at = 0; at < num_units; ++at) text += byte_alphabet()[units[at] & 0xff];
  return usable(text);
}

void BytePairEncoder::write(int32_t id, std::vector<int32_t>& out) const {
  const auto num_tokens = static_cast<int32_t>(tokens_.size());
  if (id < num_tokens) {
    out.push_back(id);
  } else {
    const std::vector<int32_t>& spelling = spellings_[static_cast<size_t>(id - num_tokens)];
    out.insert(out.end(), spelling.begin(), spelling.end());
  }
}

}  // namespace corral
