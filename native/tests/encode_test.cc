// Encoding keeps within the guarded buffer, and what is read back is near what was written.
#include "quant/encode.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "quant/pack.h"
#include "tests/check.h"
#include "tests/random_tensor.h"

namespace corral::testing {
namespace {

constexpr int64_t kCols = 512;

std::vector<float> make_row(int kind) {
  std::mt19937 random(static_cast<unsigned>(kind));
  std::normal_distribution<float> normal(kind == 3 ? 1.0F : 0.0F, kind == 1 ? 1e-3F : 0.05F);
  std::vector<float> row(kCols);
  for (float& value : row) value = kind == 0 ? 0.0F : normal(random);
  if (kind == 2) row[7] = -40.0F;
  return row;
}

// The largest error, as a share of the largest weight, that a type may leave.
void check_round_trip(TensorType type, double max_error) {
  for (int kind = 0; kind < 5; ++kind) {
    const std::vector<float> row = make_row(kind);
    const GuardedBuffer data(static_cast<size_t>(kCols / block_size(type) * block_bytes(type)));
    encode_row(type, row.data(), kCols, data.data());
    std::vector<float> back(kCols);
    dequantize_row(type, data.data(), kCols, back.data());
    float largest = 0.0F, error = 0.0F;
    for (size_t i = 0; i < row.size(); ++i) {
      largest = std::max(largest, std::fabs(row[i]));
      error = std::max(error, std::fabs(row[i] - back[i]));
    }
    CHECK(error <= max_error * static_cast<double>(largest), "%s, row %d: error %g of %g", type_name(type), kind,
          static_cast<double>(error), static_cast<double>(largest));
  }
}

}  // namespace

void run() {
  check_round_trip(TensorType::kQ4_0, 0.13);
  check_round_trip(TensorType::kQ5_0, 0.07);
  check_round_trip(TensorType::kQ5_1, 0.05);
  check_round_trip(TensorType::kQ8_0, 0.005);
  check_round_trip(TensorType::kQ4_K, 0.2);
  check_round_trip(TensorType::kQ5_K, 0.1);
  check_round_trip(TensorType::kQ6_K, 0.06);
  CHECK(!can_encode(TensorType::kF16) && !can_encode(TensorType::kIQ4_XS), "%s", "types that cannot be written");
}

}  // namespace corral::testing

int main() {
  corral::testing::run();
  return 0;
}
