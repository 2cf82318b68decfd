// How attention is shared out: who reads which blocks together, and that every chunk of every row is computed once.
#include "model/attention_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <tuple>
#include <vector>

#include "kernels/ops.h"
#include "tests/check.h"

namespace corral {
namespace {

constexpr int32_t kPages = static_cast<int32_t>(kChunkKeys / kBlockTokens);  // of a chunk

DecoderConfig make_config(int64_t heads_per_kv) {
  DecoderConfig config;
  config.num_kv_heads = 2;
  config.num_heads = 2 * heads_per_kv;
  config.head_dim = 64;
  return config;
}

// Sequences with one query row each.
struct Step {
  std::vector<std::vector<int32_t>> tables;
  std::vector<int32_t> positions;
  std::vector<int32_t> offsets{0};
  std::vector<int32_t> flat;
  int32_t next_block = 0;

  // `shared` blocks of an earlier sequence, then blocks of its own up to `position`.
  void add(int32_t position, int32_t parent = -1, int32_t shared = 0) {
    std::vector<int32_t> table;
    if (parent >= 0) {
      const std::vector<int32_t>& source = tables[static_cast<size_t>(parent)];
      table.assign(source.begin(), source.begin() + shared);
    }
    while (static_cast<int32_t>(table.size()) <= position / kBlockTokens) table.push_back(next_block++);
    tables.push_back(table);
    positions.push_back(position);
    offsets.push_back(offsets.back() + 1);
  }

  Batch batch() {
    size_t width = 0;
    for (const std::vector<int32_t>& table : tables) width = std::max(width, table.size());
    flat.assign(width * tables.size(), 0);
    for (size_t i = 0; i < tables.size(); ++i) std::copy(tables[i].begin(), tables[i].end(), flat.data() + i * width);
    return {.num_tokens = offsets.back(),
            .num_seqs = static_cast<int64_t>(tables.size()),
            .num_logit_rows = 0,
            .table_stride = static_cast<int64_t>(width),
            .token_ids = nullptr,
            .seq_offsets = offsets.data(),
            .start_positions = positions.data(),
            .block_tables = flat.data(),
            .logit_rows = nullptr};
  }
};

// Every chunk that a row sees is computed once for each KV head, sharers have the blocks they are said to have, states
// do not overlap, and a tile is finished by its last chunk. Returns the pages that one KV head's items read.
int64_t check_plan(AttentionPlan& plan, Step& step, int64_t heads_per_kv) {
  std::set<std::tuple<int32_t, int32_t, int32_t>> computed;  // kv head, sequence, chunk
  std::set<int64_t> states;
  std::map<std::pair<int32_t, int32_t>, int32_t> finished;
  int64_t pages_read = 0;
  size_t expected = 0;
  for (const AttentionItem& item : plan.items()) {
    int64_t rows = 0;
    for (int32_t index = 0; index < item.num_tiles; ++index) {
      const AttentionRows& tile = plan.item_tile(item, index);
      const std::vector<int32_t>& table = step.tables[static_cast<size_t>(tile.seq)];
      const std::vector<int32_t>& first = step.tables[static_cast<size_t>(plan.item_tile(item, 0).seq)];
      for (int32_t chunk = item.chunk_begin; chunk < item.chunk_end; ++chunk) {
        CHECK(computed.insert({item.kv_head, tile.seq, chunk}).second, "twice");
        const int32_t stop = std::min(static_cast<int32_t>(table.size()), (chunk + 1) * kPages);
        const int32_t common = std::min(item.common_pages, stop);
        for (int32_t page = chunk * kPages; page < common; ++page) {
          CHECK(table[static_cast<size_t>(page)] == first[static_cast<size_t>(page)], "page %d is not shared", page);
        }
        if (item.kv_head == 0) pages_read += stop - (index == 0 ? chunk * kPages : common);
        if (item.state_row < 0) continue;
        CHECK(plan.state_row(tile, chunk, item.kv_head) == item.state_row + rows, "state");
        for (int64_t head = 0; head < heads_per_kv; ++head) {
          CHECK(states.insert(item.state_row + rows + head).second, "states overlap");
        }
        const bool is_last = ++finished[{tile.seq, item.kv_head}] == tile.chunk_end - tile.chunk_begin;
        CHECK(plan.finish_chunk(tile, item.kv_head) == is_last, "finish");
      }
      CHECK(item.state_row >= 0 || item.num_tiles == 1, "a shared item leaves states");
      rows += (tile.row_end - tile.row_begin) * heads_per_kv;
    }
    CHECK(rows <= plan.max_item_rows(), "%ld rows", static_cast<long>(rows));
  }
  for (const int32_t position : step.positions) expected += 2 * static_cast<size_t>(position / kChunkKeys + 1);
  CHECK(computed.size() == expected, "%zu of %zu", computed.size(), expected);
  CHECK(states.empty() || *states.rbegin() < plan.max_state_rows(), "states beyond the memory");
  return pages_read;
}

int64_t pages_read(Step& step, int64_t heads_per_kv, int num_threads) {
  AttentionPlan plan(make_config(heads_per_kv), num_threads, 64);
  plan.build(step.batch(), 0);
  const int64_t pages = check_plan(plan, step, heads_per_kv);
  CHECK(check_plan(plan, step, heads_per_kv) == pages, "the plan serves every layer");
  return pages;
}

int64_t pages_of(const Step& step) {
  return std::accumulate(
      step.tables.begin(), step.tables.end(), int64_t{0},
      [](int64_t sum, const std::vector<int32_t>& table) { return sum + static_cast<int64_t>(table.size()); });
}

void test_nothing_shared_is_read_alone() {
  Step step;
  for (int32_t i = 0; i < 9; ++i) step.add(100 * i);
  CHECK(pages_read(step, 4, 2) == pages_of(step), "alone");
}

void test_a_common_prompt_is_read_once() {
  Step step;
  step.add(352);
  for (int32_t i = 1; i < 5; ++i) step.add(352 + i, 0, 22);
  // One page of its own for each, 22 for all: five sequences of 6 rows are one item.
  CHECK(pages_read(step, 6, 1) == 22 + 5, "%ld", static_cast<long>(pages_read(step, 6, 1)));
}

void test_many_sharers_take_as_few_items_as_their_rows_allow() {
  Step step;
  step.add(1504);
  for (int32_t i = 1; i < 32; ++i) step.add(1504 + i, 0, 94);
  const int64_t items = 32 * 6 / 30 + 1;
  CHECK(pages_read(step, 6, 2) == items * 94 + (pages_of(step) - 32 * 94), "%ld",
        static_cast<long>(pages_read(step, 6, 2)));
}

void test_a_tree_is_shared_as_far_as_its_branches_go() {
  Step step;
  step.add(700);         // 44 pages
  step.add(700, 0, 40);  // chunks 0 and 1 wholly, 8 pages of chunk 2
  step.add(700, 1, 20);  // chunk 0 wholly, 4 pages of chunk 1 with the others
  step.add(700, 2, 44);  // all of it
  step.add(700, 0, 3);   // too few to be worth it
  // Chunk 0: 16 + 16; chunk 1: 16 for two pairs and 16; chunk 2: 8 + 2 * 4, 12 for a pair, 12.
  CHECK(pages_read(step, 2, 1) == 32 + 48 + 16 + 12 + 12, "%ld", static_cast<long>(pages_read(step, 2, 1)));
}

void test_one_long_sequence_is_divided_among_threads() {
  Step step;
  step.add(5000);
  step.add(10);
  AttentionPlan alone(make_config(2), 1, 64);
  alone.build(step.batch(), 0);
  CHECK(alone.items().size() == 4, "%zu", alone.items().size());
  AttentionPlan plan(make_config(2), 2, 64);
  plan.build(step.batch(), 0);
  CHECK(plan.items().size() == 2 * (5000 / 256 + 1 + 1), "%zu", plan.items().size());
  check_plan(plan, step, 2);
}

void test_too_many_states_leave_tiles_whole() {
  Step step;
  step.add(200000);
  for (int32_t i = 1; i < 60; ++i) step.add(200000, 0, 12000);
  AttentionPlan plan(make_config(16), 2, 64);
  plan.build(step.batch(), 0);
  check_plan(plan, step, 16);
  const auto whole = [](const AttentionItem& item) { return item.state_row < 0; };
  CHECK(std::any_of(plan.items().begin(), plan.items().end(), whole), "all divided");
  CHECK(!std::all_of(plan.items().begin(), plan.items().end(), whole), "none divided");
}

}  // namespace
}  // namespace corral

int main() {
  using namespace corral;
  test_nothing_shared_is_read_alone();
  test_a_common_prompt_is_read_once();
  test_many_sharers_take_as_few_items_as_their_rows_allow();
  test_a_tree_is_shared_as_far_as_its_branches_go();
  test_one_long_sequence_is_divided_among_threads();
  test_too_many_states_leave_tiles_whole();
  return 0;
}
