// String tables from hostile bytes, UTF-8, and byte-pair merging against a plain implementation of its definition.
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "tests/check.h"
#include "text/byte_pair.h"
#include "text/string_table.h"

namespace corral {
namespace {

using Strings = std::vector<std::string>;

StringTable table_of(const Strings& strings) {
  StringTable table;
  for (const std::string& text : strings) table.append(text);
  return table;
}

std::vector<uint8_t> as_written(const Strings& strings) {
  std::vector<uint8_t> bytes;
  for (const std::string& text : strings) {
    for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<uint8_t>(text.size() >> (8 * i)));
    bytes.insert(bytes.end(), text.begin(), text.end());
  }
  return bytes;
}

void test_reading() {
  const Strings strings{"", "a", "\xc3\xa9t\xc3\xa9", std::string(300, 'x'), "\xff"};
  const std::vector<uint8_t> bytes = as_written(strings);
  for (size_t size = 0; size <= bytes.size(); ++size) {  // cut short anywhere; a copy, so that sanitizers see its end
    const std::vector<uint8_t> part(bytes.begin(), bytes.begin() + static_cast<int64_t>(size));
    StringTable table;
    const size_t used = table.read(part.data(), part.size(), strings.size(), 300);
    CHECK(used <= size && used == as_written({strings.begin(), strings.begin() + int64_t(table.size())}).size(),
          "%zu of %zu", used, size);
    CHECK((table.size() == strings.size()) == (size == bytes.size()), "%zu strings", table.size());
    for (size_t i = 0; i < table.size(); ++i) CHECK(table[i] == strings[i], "string %zu", i);
  }
  StringTable limited;
  CHECK(limited.read(bytes.data(), bytes.size(), strings.size(), 299) == 8 + 9 + 13, "the longest was taken");
  CHECK(limited.size() == 3 && limited.longest_bytes() == 5 && limited.longest_characters() == 3, "lengths");
  for (const uint64_t length : {uint64_t{1} << 63, ~uint64_t{0}, ~uint64_t{0} - 7}) {
    std::vector<uint8_t> hostile(24, 0);
    std::memcpy(hostile.data(), &length, 8);
    StringTable none;
    CHECK(none.read(hostile.data(), hostile.size(), 1, SIZE_MAX) == 0 && none.size() == 0, "a length was believed");
  }
}

void test_finding() {
  Strings strings;
  for (int i = 0; i < 5000; ++i) strings.push_back(std::to_string(i * 7919));
  const StringTable table = table_of(strings);
  const StringIndex index(table);
  CHECK(!index.duplicate(), "a duplicate was found");
  for (uint32_t i = 0; i < strings.size(); ++i) CHECK(index.find(strings[i]) == i, "string %u", i);
  CHECK(!index.find("x") && !index.find(""), "a string that is not there was found");

  const StringTable twice = table_of({"a", "b", "", "b", "a"});
  const StringIndex found(twice);
  CHECK(found.duplicate() == std::pair(1U, 3U) && found.find("a") == 0U && found.find("") == 2U, "duplicates");
  const StringTable empty;
  CHECK(!StringIndex(empty).find(""), "an empty table");
}

// Strings of 8 bytes whose hashes are equal: multiplication by an odd number can be undone.
void test_equal_hashes() {
  constexpr uint64_t kMultiplier = 0x9e3779b97f4a7c15;
  uint64_t inverse = kMultiplier;
  for (int i = 0; i < 5; ++i) inverse *= 2 - kMultiplier * inverse;
  StringTable table;
  for (uint64_t low = 0; low < 2000; ++low) {
    const uint64_t bytes = ((uint64_t{1} << 32 | low) * inverse) ^ (8 * kMultiplier);
    char text[8];
    std::memcpy(text, &bytes, 8);
    table.append({text, 8});
  }
  bool is_refused = false;
  try {
    const StringIndex index(table);
  } catch (const std::invalid_argument&) {
    is_refused = true;
  }
  CHECK(is_refused, "a table that takes quadratic time was taken");
}

void test_utf8() {
  for (const char* text : {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                           "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf",
                           "a\xe2\x82\xac"
                           "b"}) {
    CHECK(is_utf8(text), "%s", text);
  }
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xe2\x82"}) {
    CHECK(!is_utf8(text), "%s", text);
  }
}

void test_cutting_merges() {
  const auto parts = cut_merge("ab c");
  CHECK(parts && parts->left == "ab" && parts->right == "c", "ab c");
  const auto space = cut_merge("  c");  // llama.cpp looks for the space from the second character on
  CHECK(space && space->left == " " && space->right == "c", "space and c");
  for (const char* merge : {"", " ", "a", "ab", "a ", " a", "a b c", "a  b", "a \xff"}) {
    CHECK(!cut_merge(merge), "\"%s\"", merge);
  }
}

// A random vocabulary over the bytes a to e, whose merges build on each other.
struct Vocabulary {
  Strings tokens, merges;
};

Vocabulary random_vocabulary(std::mt19937& random) {
  Vocabulary vocabulary;
  for (const std::string& character : byte_alphabet()) vocabulary.tokens.push_back(character);
  Strings parts{"a", "b", "c", "d", "e"};
  std::map<std::string, bool> seen;
  while (vocabulary.merges.size() < 60) {
    const std::string left = parts[random() % parts.size()], right = parts[random() % parts.size()];
    if (left.size() + right.size() > 12 || seen[left + " " + right]) continue;
    seen[left + " " + right] = true;
    vocabulary.merges.push_back(left + " " + right);
    if (seen[left + right]) continue;
    seen[left + right] = true;
    parts.push_back(left + right);
    vocabulary.tokens.push_back(left + right);
  }
  return vocabulary;
}

// The definition: as long as any two neighbours have a merge, the lowest rank, and of that the leftmost, is applied.
std::vector<int32_t> merged_plainly(const Vocabulary& vocabulary, const std::string& word) {
  std::map<std::string, size_t> ranks;
  for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) ranks.emplace(vocabulary.merges[rank], rank);
  Strings symbols;
  for (const char c : word) symbols.emplace_back(1, c);
  for (;;) {
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = ranks.find(symbols[i] + " " + symbols[i + 1]);
      if (found != ranks.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    }
    if (best == SIZE_MAX) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<int64_t>(at) + 1);
  }
  std::vector<int32_t> ids;
  for (const std::string& symbol : symbols) {
    for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
      if (vocabulary.tokens[id] == symbol) ids.push_back(static_cast<int32_t>(id));
    }
  }
  return ids;
}

std::vector<uint16_t> units_of(const Strings& words) {
  std::vector<uint16_t> units;
  for (const std::string& word : words) {
    for (size_t i = 0; i < word.size(); ++i) {
      const auto byte = static_cast<uint16_t>(static_cast<uint8_t>(word[i]));
      units.push_back(i == 0 ? byte : byte | BytePairEncoder::kContinues);
    }
  }
  return units;
}

void test_merging() {
  std::mt19937 random(11);
  for (int round = 0; round < 20; ++round) {
    const Vocabulary vocabulary = random_vocabulary(random);
    const StringTable tokens = table_of(vocabulary.tokens), merges = table_of(vocabulary.merges);
    const StringIndex index(tokens);
    const BytePairEncoder encoder(tokens, index, merges, std::vector<bool>(tokens.size(), true), false);
    CHECK(encoder.num_missing_bytes() == 0 && !encoder.first_unnamed(), "something is missing");
    Strings words;
    std::vector<int32_t> expected;
    for (size_t size : {1, 2, 3, 7, 31, 32, 33, 34, 200}) {  // around the length from which a queue is used
      std::string word;
      while (word.size() < size) word += static_cast<char>('a' + random() % 5);
      const std::vector<int32_t> ids = merged_plainly(vocabulary, word);
      expected.insert(expected.end(), ids.begin(), ids.end());
      words.push_back(word);
    }
    const std::vector<uint16_t> units = units_of(words);
    CHECK(encoder.encode(units.data(), units.size()) == expected, "round %d", round);
  }
}

void test_merges_that_name_no_token() {
  // "ab" is no token, so that what is left of it is spelled; \xfe has no token and is left out.
  Strings texts{"a", "b", "c", "abc", "<x>"};
  const StringTable tokens = table_of(texts), merges = table_of({"a b", "ab c", "< x", "<x >"});
  const StringIndex index(tokens);
  const BytePairEncoder encoder(tokens, index, merges, {true, true, true, true, false}, false);
  CHECK(encoder.num_missing_bytes() == 253 && encoder.first_unnamed() == "ab", "what is missing");
  const std::vector<uint16_t> units = units_of({"abc", "ab", "\xfe", "<x>", "a"});
  CHECK((encoder.encode(units.data(), units.size()) == std::vector<int32_t>{3, 0, 1, 0}), "spelling");
  CHECK(encoder.encode(nullptr, 0).empty(), "no text");
}

void test_whole_words() {
  const StringTable tokens = table_of({"a", "b", "ab", "abb"}), merges = table_of({"a b"});
  const StringIndex index(tokens);
  const std::vector<bool> all(tokens.size(), true);
  const std::vector<uint16_t> units = units_of({"abb", "abba", "ab"});
  const auto ids = [&](bool keeps) {
    return BytePairEncoder(tokens, index, merges, all, keeps).encode(units.data(), units.size());
  };
  CHECK((ids(true) == std::vector<int32_t>{3, 2, 1, 0, 2}), "whole words are kept");
  CHECK((ids(false) == std::vector<int32_t>{2, 1, 2, 1, 0, 2}), "whole words are merged");
}

void test_refusals() {
  const StringTable tokens = table_of({"a", "b"}), bad = table_of({"a b", "ab"});
  const StringIndex index(tokens);
  for (const auto& [merges, num_flags] : {std::pair(bad, size_t{2}), std::pair(table_of({"a b"}), size_t{1})}) {
    bool is_refused = false;
    try {
      BytePairEncoder(tokens, index, merges, std::vector<bool>(num_flags, true), false);
    } catch (const std::invalid_argument&) {
      is_refused = true;
    }
    CHECK(is_refused, "%zu flags", num_flags);
  }
}

}  // namespace
}  // namespace corral

int main() {
  corral::test_reading();
  corral::test_finding();
  corral::test_equal_hashes();
  corral::test_utf8();
  corral::test_cutting_merges();
  corral::test_merging();
  corral::test_merges_that_name_no_token();
  corral::test_whole_words();
  corral::test_refusals();
  return 0;
}
