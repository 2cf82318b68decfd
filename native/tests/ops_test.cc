// Every op of every ISA against the scalar oracle, bit for bit; the oracle against plain double arithmetic.
#include "kernels/ops.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/cpu_features.h"
#include "tests/check.h"

namespace corral {
namespace {

using Floats = std::vector<float>;

Floats random_floats(int64_t n, uint32_t seed, float scale = 1.0F) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0F, scale);
  Floats out(static_cast<size_t>(n));
  for (float& x : out) x = normal(generator);
  return out;
}

void check_same(const Floats& got, const Floats& want, const char* isa, const char* what, int64_t n) {
  CHECK(got.size() == want.size(), "%s %s", isa, what);
  for (size_t i = 0; i < got.size(); ++i) {
    CHECK(std::memcmp(&got[i], &want[i], sizeof(float)) == 0, "%s %s n=%ld at %zu: %a is not %a", isa, what,
          static_cast<long>(n), i, static_cast<double>(got[i]), static_cast<double>(want[i]));
  }
}

void check_near(const Floats& got, const std::vector<double>& want, double tolerance, const char* what) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - want[i]);
    CHECK(error <= tolerance * (1.0 + std::abs(want[i])), "%s at %zu: %g is not %g", what, i,
          static_cast<double>(got[i]), want[i]);
  }
}

// The results of all row ops for one length, one after the other.
Floats row_ops(const OpsKernels& ops, int64_t n) {
  Floats x = random_floats(n, 1, 3.0F);
  const Floats y = random_floats(n, 2, 3.0F);
  Floats all;
  const auto keep = [&](const Floats& values) { all.insert(all.end(), values.begin(), values.end()); };
  Floats out(static_cast<size_t>(n));
  ops.rms_norm(x.data(), y.data(), 1e-5F, n, out.data());
  keep(out);
  ops.rms_norm(x.data(), y.data(), 1e-5F, n, x.data());  // in place
  keep(x);
  ops.add(x.data(), y.data(), n);
  keep(x);
  ops.scale(x.data(), 1.7F, n);
  keep(x);
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    ops.gated(x.data(), y.data(), activation, n, out.data());
    keep(out);
  }
  ops.softcap(x.data(), 3.0F, n);
  keep(x);
  ops.exp_weights(y.data(), n, 4.0F, 1.3F, -2.0F, out.data());
  keep(out);
  ops.exp_sums(y.data(), n, 32, 4.0F, 1.3F, -2.0F, out.data());
  keep(Floats(out.begin(), out.begin() + (n + 31) / 32));
  if (n % 2 == 0) {
    const Floats angles = random_floats(n / 2, 3);
    for (const RopeStyle style : {RopeStyle::kHalf, RopeStyle::kInterleaved}) {
      ops.rope(x.data(), angles.data(), y.data(), n, style);
      keep(x);
    }
  }
  float max = 0.0F;
  int64_t index = 0;
  ops.argmax(y.data(), n, &max, &index);
  keep({max, static_cast<float>(index)});
  std::vector<int32_t> selected(static_cast<size_t>(n), -1);
  const int64_t found = ops.select(y.data(), n, 0.5F, selected.data(), n / 2);
  keep({static_cast<float>(found)});
  for (const int32_t id : selected) keep({static_cast<float>(id)});
  return all;
}

// Both halves of an adapter's product over rows of n columns, from plain rows and from units of 32 columns.
Floats low_rank_ops(const OpsKernels& ops, int64_t n) {
  constexpr int64_t kRows = 9;
  constexpr int64_t kRank = 7;
  const std::vector<int32_t> rows = {0, 2, 3, 4, 5, 6, 8};
  const Floats a = random_floats(kRank * n, 11);
  const Floats x = random_floats(kRows * n, 12);
  const int64_t units = (n + 31) / 32;
  Floats by_unit(static_cast<size_t>(units * kRows * 32));
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t k = 0; k < n; ++k) {
      by_unit[static_cast<size_t>((k / 32 * kRows + row) * 32 + k % 32)] = x[static_cast<size_t>(row * n + k)];
    }
  }
  Floats t(static_cast<size_t>(kRows * 2 * kRank));
  LowRankDown down{.x = x.data(), .row_stride = n, .unit_columns = n, .unit_stride = n};
  down.rows = rows.data();
  down.num_rows = static_cast<int64_t>(rows.size());
  down.a = a.data();
  down.cols = n;
  down.rank_end = kRank;
  down.scale = 0.3F;
  down.out = t.data();
  down.out_stride = 2 * kRank;
  ops.low_rank_down(down);
  down.x = by_unit.data();
  down.row_stride = 32;
  down.unit_columns = 32;
  down.unit_stride = kRows * 32;
  down.out = t.data() + kRank;
  for (down.rank_begin = 0; down.rank_begin < kRank; ++down.rank_begin) {  // one by one: the same bits
    down.rank_end = down.rank_begin + 1;
    ops.low_rank_down(down);
  }
  for (int64_t row = 0; row < kRows; ++row) {
    const float* first = t.data() + row * 2 * kRank;
    CHECK(std::memcmp(first, first + kRank, kRank * sizeof(float)) == 0, "%s n=%ld row %ld", ops.name,
          static_cast<long>(n), static_cast<long>(row));
  }
  Floats y = random_floats(kRows * n, 13);
  ops.low_rank_up({.t = t.data(),
                   .t_stride = 2 * kRank,
                   .rows = rows.data(),
                   .num_rows = static_cast<int64_t>(rows.size()),
                   .b = a.data(),
                   .b_stride = n,
                   .rank = kRank,
                   .columns = n,
                   .y = y.data(),
                   .y_stride = n});
  t.insert(t.end(), y.begin(), y.end());
  return t;
}

void test_low_rank_oracle() {
  const int64_t n = 77;
  const Floats a = random_floats(7 * n, 11);
  const Floats x = random_floats(9 * n, 12);
  const Floats before = random_floats(9 * n, 13);
  const Floats got = low_rank_ops(kOpsScalar, n);
  const Floats y(got.begin() + 9 * 14, got.end());
  std::vector<double> want(before.begin(), before.end());
  for (const int64_t row : {0, 2, 3, 4, 5, 6, 8}) {
    for (int64_t j = 0; j < 7; ++j) {
      double sum = 0.0;
      for (int64_t k = 0; k < n; ++k) {
        sum += static_cast<double>(x[static_cast<size_t>(row * n + k)]) *
               static_cast<double>(a[static_cast<size_t>(j * n + k)]);
      }
      for (int64_t k = 0; k < n; ++k) {
        want[static_cast<size_t>(row * n + k)] += 0.3 * sum * static_cast<double>(a[static_cast<size_t>(j * n + k)]);
      }
    }
  }
  check_near(y, want, 1e-5, "low rank");
}

void test_oracle() {
  const int64_t n = 301;
  const Floats x = random_floats(n, 4, 5.0F);
  const Floats y = random_floats(n, 5);
  Floats out(static_cast<size_t>(n));
  double squares = 0.0;
  for (const float v : x) squares += static_cast<double>(v) * static_cast<double>(v);
  std::vector<double> norm, silu, gelu, cap, weight;
  for (size_t i = 0; i < x.size(); ++i) {
    const double a = static_cast<double>(x[i]);
    const double b = static_cast<double>(y[i]);
    norm.push_back(a / std::sqrt(squares / static_cast<double>(n) + 1e-5) * b);
    silu.push_back(a / (1.0 + std::exp(-a)) * b);
    gelu.push_back(0.5 * a * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (a + 0.044715 * a * a * a))) * b);
    cap.push_back(7.0 * std::tanh(a / 7.0));
    weight.push_back(std::exp((a - 20.0) * 0.5));
  }
  kOpsScalar.rms_norm(x.data(), y.data(), 1e-5F, n, out.data());
  check_near(out, norm, 1e-6, "rms_norm");
  kOpsScalar.gated(x.data(), y.data(), Activation::kSilu, n, out.data());
  check_near(out, silu, 1e-6, "silu");
  kOpsScalar.gated(x.data(), y.data(), Activation::kGeluTanh, n, out.data());
  check_near(out, gelu, 1e-6, "gelu_tanh");
  kOpsScalar.exp_weights(x.data(), n, 20.0F, 0.5F, -1e30F, out.data());
  check_near(out, weight, 1e-9, "exp_weights");
  out = x;
  kOpsScalar.softcap(out.data(), 7.0F, n);
  check_near(out, cap, 1e-6, "softcap");
}

void test_exp_over_its_range() {
  Floats x, out(4096);
  for (int i = 0; i < 4096; ++i) x.push_back(-79.9F + static_cast<float>(i) * (79.9F / 4095.0F));
  kOpsScalar.exp_weights(x.data(), 4096, 0.0F, 1.0F, -1e30F, out.data());
  for (size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(static_cast<double>(x[i]));
    CHECK(std::abs(static_cast<double>(out[i]) / want - 1.0) < 2e-7, "exp(%g)", static_cast<double>(x[i]));
  }
  const float special[3] = {0.0F, -81.0F, std::numeric_limits<float>::quiet_NaN()};
  kOpsScalar.exp_weights(special, 3, 0.0F, 1.0F, -1e30F, out.data());
  CHECK(out[0] == 1.0F && out[1] == 0.0F && std::isnan(out[2]), "special values of exp");
}

void test_argmax_edges(const OpsKernels& ops) {
  float value = 0.0F;
  int64_t index = 0;
  for (const int64_t n : {1, 15, 16, 17, 64, 65, 1000}) {
    for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
      Floats x(static_cast<size_t>(n), -std::numeric_limits<float>::infinity());
      ops.argmax(x.data(), n, &value, &index);
      CHECK(std::isinf(value) && value < 0.0F, "%s argmax of -inf", ops.name);
      x[static_cast<size_t>(at)] = 2.0F;
      x[static_cast<size_t>(n - 1)] = 2.0F;
      ops.argmax(x.data(), n, &value, &index);
      CHECK(value == 2.0F && index == at, "%s argmax n=%ld: %ld", ops.name, static_cast<long>(n),
            static_cast<long>(index));
      x[static_cast<size_t>(at)] = std::numeric_limits<float>::quiet_NaN();
      ops.argmax(x.data(), n, &value, &index);
      CHECK(index == -1, "%s argmax of NaN", ops.name);
    }
  }
}

}  // namespace
}  // namespace corral

int main() {
  using namespace corral;
  test_oracle();
  test_exp_over_its_range();
  test_low_rank_oracle();
  for (const Isa isa : available_isas()) {
    CHECK(select_isa(isa), "select");
    const OpsKernels& ops = ops_kernels();
    const Isa unit = isa == Isa::kAmx        ? Isa::kAvx512
                     : isa == Isa::kAvx2Vnni ? Isa::kAvx2
                                             : isa;  // no integers to multiply
    CHECK(isa_name(unit) == ops.name, "%s", ops.name);
    for (const int64_t n : {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 96, 127, 128, 130, 256, 1000}) {
      check_same(row_ops(ops, n), row_ops(kOpsScalar, n), ops.name, "row ops", n);
      check_same(low_rank_ops(ops, n), low_rank_ops(kOpsScalar, n), ops.name, "low rank", n);
    }
    test_argmax_edges(ops);
  }
  return 0;
}
