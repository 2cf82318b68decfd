// Paged attention of every ISA and form of the cache: against plain double arithmetic, and bit for bit whatever the
// tile, window or chunk.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/cpu_features.h"
#include "kernels/ops.h"
#include "quant/float16.h"
#include "tests/check.h"
#include "tests/shapes.h"

namespace corral {
namespace {

using Floats = std::vector<float>;

// Keys and values of one KV head on shuffled blocks, as pages and as plain rows.
struct Context {
  KvType type;
  int64_t num_keys;
  int64_t head_dim;
  int64_t padded_dim;
  std::vector<int32_t> blocks;
  std::vector<uint8_t> pages;
  Floats k, v;  // [num_keys][head_dim] as the pages hold them
  int64_t block_bytes() const {
    const int64_t values = 2 * padded_dim * kBlockTokens;
    return type == KvType::kF16 ? values * 2 : values + 2 * num_scales(padded_dim) * kBlockTokens * 2;
  }
};

// Replaces K and V of one token by what its int8 page pair holds; they may be off by half a step.
void read_int8(Context& c, int64_t key) {
  const uint8_t* pair = c.pages.data() + c.blocks[static_cast<size_t>(key / kBlockTokens)] * c.block_bytes();
  const int64_t slot = key % kBlockTokens;
  const int64_t page = c.padded_dim * kBlockTokens;
  const uint8_t* v_pair = pair + page + num_scales(c.padded_dim) * kBlockTokens * 2;
  const auto scale_of = [&](const uint8_t* scales, int64_t d) {
    uint16_t half;
    std::memcpy(&half, scales + (d / kScaleDims * kBlockTokens + slot) * 2, 2);
    return half_to_float(half);
  };
  const auto take = [](float& value, uint8_t byte, float scale) {
    const float held = static_cast<float>(static_cast<int8_t>(byte)) * scale;
    // The scale is rounded to f16, so the greatest value may be off by a little more than half a step.
    CHECK(std::abs(held - value) <= 0.57F * scale, "%g is held as %g", static_cast<double>(value),
          static_cast<double>(held));
    value = held;
  };
  for (int64_t d = 0; d < c.head_dim; ++d) {
    const size_t index = static_cast<size_t>(key * c.head_dim + d);
    take(c.k[index], pair[d * kBlockTokens + slot], scale_of(pair + page, d));
    take(c.v[index], v_pair[slot * c.padded_dim + d], scale_of(v_pair + page, d));
  }
}

Context make_context(const OpsKernels& ops, KvType type, int64_t num_keys, int64_t head_dim) {
  Context c{type, num_keys, head_dim, (head_dim + 15) / 16 * 16, {}, {}, {}, {}};
  std::mt19937 random(7);
  std::uniform_int_distribution<int> sixteenth(-64, 64);
  for (int64_t i = 0; i < num_keys * head_dim; ++i) {
    c.k.push_back(static_cast<float>(sixteenth(random)) / 16.0F);
    c.v.push_back(static_cast<float>(sixteenth(random)) / 16.0F);
  }
  for (int32_t b = 0; b < (num_keys + 15) / 16; ++b) c.blocks.push_back(b);
  std::shuffle(c.blocks.begin(), c.blocks.end(), random);
  c.pages.assign(c.blocks.size() * static_cast<size_t>(c.block_bytes()), 0xff);  // NaN where nothing is written
  for (int64_t key = 0; key < num_keys; ++key) {
    ops.kv_of(type).store(c.k.data() + key * head_dim, c.v.data() + key * head_dim, head_dim, c.padded_dim,
                          key % kBlockTokens,
                          c.pages.data() + c.blocks[static_cast<size_t>(key / kBlockTokens)] * c.block_bytes());
    if (type == KvType::kInt8) read_int8(c, key);
  }
  return c;
}

struct Query {
  Floats q;
  int32_t key_begin;
  int32_t key_end;
};

// Attention of some rows as one tile, chunk by chunk: [rows][head_dim].
std::vector<Floats> attend(const OpsKernels& ops, const Context& c, const std::vector<Query>& rows, float cap) {
  const int64_t n = static_cast<int64_t>(rows.size());
  std::vector<const float*> queries;
  std::vector<int32_t> begins, ends;
  for (const Query& row : rows) {
    queries.push_back(row.q.data());
    begins.push_back(row.key_begin);
    ends.push_back(row.key_end);
  }
  AttentionTile tile;
  tile.num_rows = n;
  tile.queries = queries.data();
  tile.key_begin = begins.data();
  tile.key_end = ends.data();
  const std::vector<const int32_t*> tables(rows.size(), c.blocks.data());
  tile.block_tables = tables.data();
  tile.pages = c.pages.data();
  tile.block_bytes = c.block_bytes();
  tile.head_dim = c.head_dim;
  tile.padded_dim = c.padded_dim;
  tile.softcap = cap;
  Floats scores(static_cast<size_t>(n * kChunkKeys)), max(rows.size(), -std::numeric_limits<float>::infinity());
  Floats sum(rows.size()), acc(static_cast<size_t>(n * c.padded_dim)), max2(max), sum2(sum), acc2(acc);
  const AttentionState state{max.data(), sum.data(), acc.data()};
  const AttentionState part{max2.data(), sum2.data(), acc2.data()};
  for (int64_t chunk = 0; chunk < c.num_keys; chunk += kChunkKeys) {
    ops.kv_of(c.type).attend_chunk(tile, chunk, scores.data(), part);
    ops.merge(state, part, n, c.padded_dim);
  }
  std::vector<Floats> out;
  for (int64_t r = 0; r < n; ++r) {
    out.emplace_back(acc.begin() + r * c.padded_dim, acc.begin() + r * c.padded_dim + c.head_dim);
    for (float& x : out.back()) x /= sum[static_cast<size_t>(r)];
  }
  return out;
}

std::vector<double> plain_attention(const Context& c, const Query& row, float cap) {
  std::vector<double> scores, out(static_cast<size_t>(c.head_dim));
  double max = -1e300, sum = 0.0;
  for (int64_t key = row.key_begin; key < row.key_end; ++key) {
    double score = 0.0;
    for (int64_t d = 0; d < c.head_dim; ++d) {
      score += static_cast<double>(row.q[static_cast<size_t>(d)]) *
               static_cast<double>(c.k[static_cast<size_t>(key * c.head_dim + d)]);
    }
    if (cap > 0.0F) score = static_cast<double>(cap) * std::tanh(score / static_cast<double>(cap));
    scores.push_back(score);
    max = std::max(max, score);
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    const double weight = std::exp(scores[i] - max);
    sum += weight;
    for (int64_t d = 0; d < c.head_dim; ++d) {
      out[static_cast<size_t>(d)] +=
          weight *
          static_cast<double>(
              c.v[(static_cast<size_t>(row.key_begin) + i) * static_cast<size_t>(c.head_dim) + static_cast<size_t>(d)]);
    }
  }
  for (double& x : out) x /= sum;
  return out;
}

std::vector<Query> make_queries(const Context& c, int64_t count, int64_t window) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0F, 0.3F);
  std::vector<Query> rows;
  for (int64_t r = 0; r < count; ++r) {
    Query row;
    for (int64_t d = 0; d < c.head_dim; ++d) row.q.push_back(normal(random));
    row.key_end = static_cast<int32_t>(std::max<int64_t>(1, c.num_keys - count + 1 + r));
    row.key_begin = static_cast<int32_t>(window == 0 ? 0 : std::max<int64_t>(0, row.key_end - window));
    rows.push_back(row);
  }
  return rows;
}

void test_case(const OpsKernels& ops, KvType type, int64_t num_keys, int64_t head_dim, int64_t num_rows, int64_t window,
               float cap) {
  const Context context = make_context(ops, type, num_keys, head_dim);
  const Context oracle_context = make_context(kOpsScalar, type, num_keys, head_dim);
  CHECK(context.pages == oracle_context.pages, "%s store_kv", ops.name);
  const std::vector<Query> rows = make_queries(context, num_rows, window);
  const std::vector<Floats> together = attend(ops, context, rows, cap);
  const std::vector<Floats> oracle = attend(kOpsScalar, context, rows, cap);
  for (size_t r = 0; r < rows.size(); ++r) {
    const std::vector<double> plain = plain_attention(context, rows[r], cap);
    const Floats alone = attend(ops, context, {rows[r]}, cap)[0];
    for (size_t d = 0; d < plain.size(); ++d) {
      CHECK(std::abs(static_cast<double>(together[r][d]) - plain[d]) < 1e-4,
            "%s keys=%ld dim=%ld row=%zu: %g is not %g", ops.name, static_cast<long>(num_keys),
            static_cast<long>(head_dim), r, static_cast<double>(together[r][d]), plain[d]);
    }
    CHECK(together[r] == alone, "%s keys=%ld row=%zu differs alone", ops.name, static_cast<long>(num_keys), r);
    CHECK(together[r] == oracle[r], "%s keys=%ld row=%zu differs from scalar", ops.name, static_cast<long>(num_keys),
          r);
  }
}

void test_values_beyond_f16_are_clamped(const OpsKernels& ops) {
  const Floats k(8, 1e9F);
  const Floats v(8, -1e9F);
  std::vector<uint16_t> pages(2 * 16 * kBlockTokens, 0x1234);
  ops.kv_of(KvType::kF16).store(k.data(), v.data(), 8, 16, 3, reinterpret_cast<uint8_t*>(pages.data()));
  for (size_t d = 0; d < 8; ++d) CHECK(pages[d * 16 + 3] == 0x7bff, "%s k", ops.name);
  for (size_t d = 0; d < 16; ++d) CHECK(pages[(16 + 3) * 16 + d] == (d < 8 ? 0xfbff : 0), "%s v", ops.name);
  CHECK(pages[2] == 0x1234 && pages[4] == 0x1234 && pages[8 * 16 + 3] == 0x1234, "%s wrote elsewhere", ops.name);
}

// Zeros, values beyond f16, values below its least scale, and NaN, which must not become a number.
void test_int8_extremes(const OpsKernels& ops) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  struct Case {
    float value;
    uint16_t scale;
    int8_t held;
  };
  for (const Case& c : {Case{0.0F, 0, 0}, Case{-infinity, 0x6008, -127}, Case{1e9F, 0x6008, 127}, Case{1e-6F, 0, 0},
                        Case{-254.0F, 0x4000, -127}, Case{9e-6F, 0x0001, 127}, Case{nan, 0x7e00, 0}}) {
    const Floats k(40, c.value);
    Floats v(40, 127.0F);
    v[5] = c.value;
    constexpr size_t kPage = 48 * kBlockTokens;
    std::vector<uint8_t> pages(2 * kPage + 4 * 32, 0x55);
    ops.kv_of(KvType::kInt8).store(k.data(), v.data(), 40, 48, 3, pages.data());
    std::vector<uint16_t> scales(4 * 16);
    std::memcpy(scales.data(), pages.data() + kPage, 2 * 32);
    std::memcpy(scales.data() + 32, pages.data() + 2 * kPage + 2 * 32, 2 * 32);
    for (size_t d = 0; d < 40; ++d) CHECK(static_cast<int8_t>(pages[d * 16 + 3]) == c.held, "%s k", ops.name);
    for (size_t d = 40; d < 48; ++d) CHECK(pages[kPage + 2 * 32 + 3 * 48 + d] == 0, "%s padding of v", ops.name);
    CHECK(scales[3] == c.scale && scales[16 + 3] == c.scale, "%s %g: scale %04x", ops.name,
          static_cast<double>(c.value), static_cast<unsigned>(scales[3]));
    CHECK(std::isnan(c.value) == std::isnan(half_to_float(scales[32 + 3])), "%s scale of v", ops.name);
    CHECK(scales[48 + 3] == 0x3c00, "%s second scale of v", ops.name);
    CHECK(pages[2] == 0x55 && pages[4] == 0x55 && scales[2] == 0x5555 && scales[4] == 0x5555, "%s elsewhere", ops.name);
  }
}

}  // namespace
}  // namespace corral

int main() {
  using namespace corral;
  const bool small = testing::small_shapes();
  const std::vector<int64_t> contexts =
      small ? std::vector<int64_t>{1, 17, 257} : std::vector<int64_t>{1, 2, 15, 16, 17, 100, 255, 256, 257, 600};
  for (const Isa isa : available_isas()) {
    CHECK(select_isa(isa), "select");
    const OpsKernels& ops = ops_kernels();
    for (const KvType type : {KvType::kF16, KvType::kInt8}) {
      for (const int64_t num_keys : contexts) {
        for (const int64_t head_dim : {8, 16, 24, 64, 80, 128}) test_case(ops, type, num_keys, head_dim, 3, 0, 0.0F);
      }
      for (const int64_t num_rows : {1, 2, 4, 5, 7, 8, 9, 31}) test_case(ops, type, 300, 64, num_rows, 0, 0.0F);
      for (const int64_t window : {1, 16, 17, 200, 280}) test_case(ops, type, 300, 32, 5, window, 0.0F);
      test_case(ops, type, 300, small ? 48 : 256, 12, 0, 20.0F);
    }
    test_values_beyond_f16_are_clamped(ops);
    test_int8_extremes(ops);
  }
  return 0;
}
