// Every ISA equals the scalar oracle bit for bit, a row never depends on what shares its batch, and the oracle stays
// within the error that int8 activations allow.
#include "kernels/matmul.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/cpu_features.h"
#include "tests/check.h"
#include "tests/random_tensor.h"
#include "tests/shapes.h"

namespace corral::testing {
namespace {

constexpr float kUntouched = 12345.0f;

long long print(int64_t n) { return static_cast<long long>(n); }

std::vector<const MatmulKernels*> available_kernels() {
  std::vector<const MatmulKernels*> kernels;
  for (const Isa isa : available_isas()) {
    CHECK(select_isa(isa), "%s is listed", isa_name(isa).data());
    CHECK(isa_name(isa) == matmul_kernels().name, "dispatch of %s gives %s", isa_name(isa).data(),
          matmul_kernels().name);
    kernels.push_back(&matmul_kernels());
  }
  return kernels;
}

// A packed matrix with the memory it lies in.
struct Weights {
  Weights(TensorType type, int64_t rows, int64_t cols, Fill fill)
      : source(make_tensor(type, rows, cols, fill, 7)),
        memory(packed_bytes(type, rows, cols)),
        matrix{type, rows, cols, packed_group_bytes(type, cols), memory.data()} {
    pack_groups(type, rows, cols, source.data(), memory.data(), 0, matrix.num_groups());
  }
  std::vector<uint8_t> source;
  GuardedBuffer memory;
  PackedMatrix matrix;
};

// Rows of activations in the form that a type wants.
struct Inputs {
  Inputs(const MatmulKernels& kernels, TensorType type, const std::vector<float>& x, int64_t m, int64_t k)
      : memory(act_form(type) == ActForm::kF32 ? static_cast<size_t>(m * k) * sizeof(float)
                                               : activation_bytes(act_form(type), m, k)) {
    if (act_form(type) == ActForm::kF32)
      std::memcpy(memory.data(), x.data(), static_cast<size_t>(m * k) * sizeof(float));
    act = make_activations(act_form(type), m, k, memory.data());
    kernels.quantize(x.data(), k, act, 0, m);
  }
  GuardedBuffer memory;
  Activations act;
};

std::vector<float> random_rows(int64_t m, int64_t k, uint64_t seed) {
  Random random{seed};
  std::vector<float> x(static_cast<size_t>(m * k));
  for (size_t i = 0; i < x.size(); ++i) {
    const float u = random.uniform();
    x[i] = u * u * u * (i % 97 == 0 ? 20.0f : 1.0f);
  }
  return x;
}

// y[m][ldy]; what the kernel does not write keeps kUntouched.
std::vector<float> multiply(const MatmulKernels& kernels, const Weights& w, const Inputs& in, int64_t ldy) {
  std::vector<float> y(static_cast<size_t>(in.act.m * ldy), kUntouched);
  kernels.matmul(w.matrix, in.act, y.data(), ldy, 0, w.matrix.num_groups());
  return y;
}

bool same_bits(const float* a, const float* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(float)) == 0;
}

// Rows [0, m) alone give what they give among all rows of the oracle's run.
void check_rows(const MatmulKernels& kernels, const Weights& w, const std::vector<float>& x, int64_t m,
                const std::vector<float>& oracle, int64_t ldy) {
  const Inputs in(kernels, w.matrix.type, x, m, w.matrix.cols);
  const std::vector<float> y = multiply(kernels, w, in, ldy);
  for (int64_t r = 0; r < m; ++r) {
    CHECK(same_bits(&y[static_cast<size_t>(r * ldy)], &oracle[static_cast<size_t>(r * ldy)], ldy),
          "%s %s N=%lld K=%lld M=%lld row %lld", kernels.name, type_name(w.matrix.type), print(w.matrix.rows),
          print(w.matrix.cols), print(m), print(r));
  }
}

void check_quantize(const MatmulKernels& scalar, const MatmulKernels& kernels, TensorType type,
                    const std::vector<float>& x, int64_t m, int64_t k) {
  const Inputs a(scalar, type, x, m, k), b(kernels, type, x, m, k);
  const size_t bytes = activation_bytes(act_form(type), m, k);
  CHECK(std::memcmp(a.memory.data(), b.memory.data(), bytes) == 0, "%s activations of %s K=%lld", kernels.name,
        type_name(type), print(k));
}

// Any split over the groups and any row range of quantize give the same.
void check_splits(const MatmulKernels& kernels, const Weights& w, const std::vector<float>& x, int64_t m,
                  const std::vector<float>& oracle, int64_t ldy) {
  const int64_t groups = w.matrix.num_groups(), k = w.matrix.cols;
  const Inputs in(kernels, w.matrix.type, x, m, k);
  for (int64_t r = m - 1; r >= 0; --r) kernels.quantize(x.data(), k, in.act, r, r + 1);
  std::vector<float> y(static_cast<size_t>(m * ldy), kUntouched);
  for (int64_t g = groups; g > 0;) {
    const int64_t begin = g > 2 ? g - 2 : 0;
    kernels.matmul(w.matrix, in.act, y.data(), ldy, begin, g);
    g = begin;
  }
  CHECK(same_bits(y.data(), oracle.data(), m * ldy), "%s %s split", kernels.name, type_name(w.matrix.type));
}

void check_shape(const std::vector<const MatmulKernels*>& all, TensorType type, int64_t rows, int64_t cols, Fill fill,
                 const std::vector<int64_t>& batch_sizes) {
  const Weights w(type, rows, cols, fill);
  const int64_t ldy = rows + 3, max_m = batch_sizes.back();
  const std::vector<float> x = random_rows(max_m, cols, 11);
  const MatmulKernels& scalar = *all.front();
  const std::vector<float> oracle = multiply(scalar, w, Inputs(scalar, type, x, max_m, cols), ldy);
  for (int64_t r = 0; r < max_m; ++r) {
    for (int64_t n = rows; n < ldy; ++n) {
      CHECK(oracle[static_cast<size_t>(r * ldy + n)] == kUntouched, "%s writes past its columns", type_name(type));
    }
  }
  for (const MatmulKernels* kernels : all) {
    check_quantize(scalar, *kernels, type, x, max_m, cols);
    for (const int64_t m : batch_sizes) {
      if (kernels != &scalar || m < 3 || m == 65) check_rows(*kernels, w, x, m, oracle, ldy);
    }
    check_splits(*kernels, w, x, max_m, oracle, ldy);
  }
}

// All activations at +127 or -127, codes and scales at their largest: no intermediate may overflow.
void check_extremes(const std::vector<const MatmulKernels*>& all, TensorType type) {
  const int64_t k = block_size(type) * (block_size(type) == 256 ? 4 : 24), m = 13;
  for (const Fill fill : {Fill::kAllOnes, Fill::kAllZero, Fill::kRandom, Fill::kNoScale}) {
    const Weights w(type, 32, k, fill);
    std::vector<float> x(static_cast<size_t>(m * k));
    for (int64_t i = 0; i < m * k; ++i) {
      const int64_t row = i / k;  // row 0 all +, row 1 all -, then mixtures
      x[static_cast<size_t>(i)] = row == 0 ? 1.0f : row == 1 ? -1.0f : (i / row) % 2 ? 1.0f : -1.0f;
    }
    const MatmulKernels& scalar = *all.front();
    const std::vector<float> oracle = multiply(scalar, w, Inputs(scalar, type, x, m, k), 32);
    std::vector<float> weights(static_cast<size_t>(k));
    for (int64_t n = 0; n < 32; ++n) {
      unpack_row(w.matrix, n, weights.data());
      for (int64_t r = 0; r < m; ++r) {
        double sum = 0, size = 0;
        for (int64_t i = 0; i < k; ++i) {
          const double weight = static_cast<double>(weights[static_cast<size_t>(i)]);
          sum += weight * static_cast<double>(x[static_cast<size_t>(r * k + i)]);
          size += std::fabs(weight);
        }
        const double actual = static_cast<double>(oracle[static_cast<size_t>(r * 32 + n)]);
        CHECK(std::fabs(actual - sum) <= 1e-5 * size + 1e-30, "%s extremes: %g, want %g", type_name(type), actual, sum);
      }
    }
    for (const MatmulKernels* kernels : all) check_rows(*kernels, w, x, m, oracle, 32);
  }
}

// |y - exact| <= sum over groups of (scale / 2 = max|x| / 254) * sum |w|, plus float rounding.
void check_accuracy(const MatmulKernels& scalar, TensorType type) {
  const int64_t rows = 21, k = 1024, m = 5;
  const Weights w(type, rows, k, Fill::kRandom);
  const std::vector<float> x = random_rows(m, k, 3);
  const std::vector<float> y = multiply(scalar, w, Inputs(scalar, type, x, m, k), rows);
  const int64_t group = act_form(type) == ActForm::kQ8x32 ? 32 : 256;
  std::vector<float> weights(static_cast<size_t>(k));
  for (int64_t n = 0; n < rows; ++n) {
    unpack_row(w.matrix, n, weights.data());
    for (int64_t r = 0; r < m; ++r) {
      double exact = 0, bound = 0;
      for (int64_t begin = 0; begin < k; begin += group) {
        double largest = 0, size = 0, product = 0;
        for (int64_t i = begin; i < begin + group; ++i) {
          const double a = static_cast<double>(x[static_cast<size_t>(r * k + i)]);
          const double b = static_cast<double>(weights[static_cast<size_t>(i)]);
          largest = std::fmax(largest, std::fabs(a));
          size += std::fabs(b);
          product += std::fabs(a * b);
          exact += a * b;
        }
        bound += 1e-5 * product + (act_form(type) == ActForm::kF32 ? 0.0 : 1.0001 * largest / 254 * size);
      }
      const double actual = static_cast<double>(y[static_cast<size_t>(r * rows + n)]);
      CHECK(std::fabs(actual - exact) <= bound, "%s: %g, exact %g, bound %g", type_name(type), actual, exact, bound);
    }
  }
}

// A NaN or an infinity spoils its own row and no other; tiny groups count as zero; -128 never appears.
void check_odd_values(const std::vector<const MatmulKernels*>& all, TensorType type) {
  const int64_t rows = 16, k = 512, m = 4;
  const Weights w(type, rows, k, Fill::kRandom);
  std::vector<float> x = random_rows(m, k, 5);
  const float clean = x[static_cast<size_t>(3 * k)];
  x[static_cast<size_t>(k + 300)] = std::numeric_limits<float>::quiet_NaN();
  x[static_cast<size_t>(2 * k + 7)] = -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < k; ++i) x[static_cast<size_t>(i)] = i % 2 ? 1e-38f : -1e-42f;
  CHECK(clean == x[static_cast<size_t>(3 * k)], "row 3 is untouched");
  for (const MatmulKernels* kernels : all) {
    const Inputs in(*kernels, type, x, m, k);
    const std::vector<float> y = multiply(*kernels, w, in, rows);
    for (int64_t n = 0; n < rows; ++n) {
      CHECK(std::fabs(y[static_cast<size_t>(n)]) < 1e-30f, "%s tiny activations", type_name(type));
      for (const int64_t r : {1, 2}) {
        CHECK(!std::isfinite(y[static_cast<size_t>(r * rows + n)]), "%s %s row %lld", kernels->name, type_name(type),
              print(r));
      }
      CHECK(std::isfinite(y[static_cast<size_t>(3 * rows + n)]), "%s %s row 3", kernels->name, type_name(type));
    }
    for (int64_t i = 0; in.act.q && i < m * k; ++i) CHECK(in.act.q[i] != -128, "%s emits -128", kernels->name);
  }
}

void run() {
  const std::vector<const MatmulKernels*> all = available_kernels();
  const bool small = small_shapes();
  std::vector<int64_t> every_m;
  for (int64_t m = 1; m <= (small ? 13 : 33); ++m) every_m.push_back(m);
  if (!small) every_m.insert(every_m.end(), {63, 64, 65, 127});
  const std::vector<int64_t> block_rows = small ? std::vector<int64_t>{193} : std::vector<int64_t>{1, 2, 5, 193, 389};
  for (const TensorType type : kAllTypes) {
    std::printf("%s\n", type_name(type));
    const bool k_quant = block_size(type) == 256;
    check_shape(all, type, small ? 21 : 37, k_quant ? (small ? 512 : 768) : 32 * (small ? 9 : 29), Fill::kRandom,
                every_m);
    check_shape(all, type, small ? 17 : 81, k_quant ? 256 : 32, Fill::kRandom, block_rows);
    check_shape(all, type, 5, k_quant ? 2304 : 896, Fill::kRandom, {1, 4, 12, 13});
    for (const int64_t cols : {1, 2, 3, 255, 257, 515}) {
      if (block_size(type) == 1) check_shape(all, type, 19, cols, Fill::kRandom, {1, 3, 6, 7, 20});
    }
    check_extremes(all, type);
    check_accuracy(*all.front(), type);
    check_odd_values(all, type);
  }
}

}  // namespace
}  // namespace corral::testing

int main() {
  corral::testing::run();
  return 0;
}
