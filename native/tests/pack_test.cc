// Packing keeps every weight bit for bit, and dequantisation gives the values that the GGUF format defines.
#include "quant/pack.h"

#include <bit>
#include <cstring>

#include "quant/float16.h"
#include "tests/check.h"
#include "tests/random_tensor.h"
#include "tests/shapes.h"

namespace corral::testing {
namespace {

void check_round_trip(TensorType type, int64_t rows, int64_t cols, Fill fill) {
  const std::vector<uint8_t> source = make_tensor(type, rows, cols, fill, static_cast<uint64_t>(rows * cols));
  const GuardedBuffer packed(packed_bytes(type, rows, cols));
  const int64_t groups = (rows + kTileColumns - 1) / kTileColumns;
  for (int64_t g = groups - 1; g >= 0; --g) {  // ranges are independent of each other and of their order
    pack_groups(type, rows, cols, source.data(), packed.data(), g, g + 1);
  }
  const PackedMatrix matrix{type, rows, cols, packed_group_bytes(type, cols), packed.data()};
  const size_t row_bytes = source.size() / static_cast<size_t>(rows);
  std::vector<float> expected(static_cast<size_t>(cols)), actual(static_cast<size_t>(cols));
  for (int64_t row = 0; row < rows; ++row) {
    dequantize_row(type, source.data() + static_cast<size_t>(row) * row_bytes, cols, expected.data());
    unpack_row(matrix, row, actual.data());
    CHECK(std::memcmp(expected.data(), actual.data(), expected.size() * sizeof(float)) == 0, "%s %lld x %lld row %lld",
          type_name(type), static_cast<long long>(rows), static_cast<long long>(cols), static_cast<long long>(row));
  }
}

void check_sizes(TensorType type) {
  const int64_t size = block_size(type);
  CHECK(packed_bytes(type, 16, 0) == 0, "%s", type_name(type));
  CHECK(packed_group_bytes(type, 3 * size) % 64 == 0, "%s groups stay aligned", type_name(type));
  if (size > 1) CHECK(packed_bytes(type, 16, size + 1) == 0, "%s refuses a partial block", type_name(type));
  const double ratio =
      static_cast<double>(packed_group_bytes(type, 2048)) / static_cast<double>(16 * 2048 / size * block_bytes(type));
  CHECK(ratio >= 1.0 && ratio < 1.06, "%s packs at %.3f of its file size", type_name(type), ratio);
}

// A block of zero bytes with some set, and the values of some of its weights by the format's definition.
struct Known {
  TensorType type;
  std::vector<std::pair<int, int>> bytes;      // offset, value
  std::vector<std::pair<int, float>> weights;  // index, value
};

// 0x3C00 is 1, 0x4000 is 2, 0x3800 is 0.5 in f16, low byte first.
const Known kKnown[] = {
    {TensorType::kQ4_0, {{1, 0x40}, {2, 0xF1}}, {{0, -14.0f}, {16, 14.0f}, {1, -16.0f}, {31, -16.0f}}},
    {TensorType::kQ4_1, {{1, 0x40}, {3, 0x3C}, {4, 0xF1}}, {{0, 3.0f}, {16, 31.0f}, {1, 1.0f}}},
    {TensorType::kQ5_0,
     {{1, 0x3C}, {2, 0x01}, {5, 0x80}, {6, 0x21}},
     {{0, 1.0f}, {16, -14.0f}, {31, 0.0f}, {2, -16.0f}}},
    {TensorType::kQ5_1, {{1, 0x3C}, {3, 0x38}, {4, 0x01}, {7, 0x80}, {8, 0x21}}, {{0, 17.5f}, {16, 2.5f}, {31, 16.5f}}},
    {TensorType::kQ8_0, {{1, 0x38}, {2, 0x80}, {33, 0x7F}}, {{0, -64.0f}, {31, 63.5f}, {5, 0.0f}}},
    {TensorType::kIQ4_NL, {{1, 0x3C}, {2, 0xF0}, {3, 0x87}}, {{0, -127.0f}, {16, 113.0f}, {1, -10.0f}, {17, 1.0f}}},
    // scale 3, min 2 of sub-block 2 (weights 32..47); scale 15 of sub-block 15
    {TensorType::kQ2_K,
     {{81, 0x3C}, {83, 0x38}, {2, 0x23}, {15, 0x0F}, {16, 0x0C}, {79, 0xC0}},
     {{32, 8.0f}, {33, -1.0f}, {0, 0.0f}, {255, 45.0f}}},
    // all scales -32 but sub-block 0 (low 1, high 2: 33 - 32 = 1) and sub-block 15 (low 15, high 3: 31)
    {TensorType::kQ3_K,
     {{109, 0x3C}, {96, 0x01}, {104, 0x02}, {103, 0xF0}, {107, 0xC0}, {0, 0x01}, {32, 0x03}, {95, 0xC0}},
     {{0, 3.0f}, {1, -4.0f}, {255, -31.0f}, {254, -124.0f}, {16, 128.0f}}},
    // scale of sub-block 0: 63, min 5; sub-block 4: low 0x1, high from byte 0 (63 has none): 1, min 2
    {TensorType::kQ4_K,
     {{1, 0x3C}, {3, 0x38}, {4, 0x3F}, {8, 0x05}, {12, 0x21}, {16, 0xA7}, {80, 0x0B}},
     {{0, 438.5f}, {1, -2.5f}, {32, 0.0f}, {128, 10.0f}, {129, -1.0f}}},
    // scale of sub-block 1: 2, min 1; high bit of weight 32
    {TensorType::kQ5_K,
     {{1, 0x3C}, {3, 0x3C}, {5, 0x02}, {9, 0x01}, {16, 0x02}, {48, 0x30}},
     {{32, 37.0f}, {33, -1.0f}, {0, 0.0f}}},
    // scale -2 of sub-block 0, 127 of sub-block 15
    {TensorType::kQ6_K,
     {{209, 0x3C}, {192, 0xFE}, {207, 0x7F}, {0, 0x05}, {128, 0x03}, {127, 0xF0}, {191, 0xC0}},
     {{0, -42.0f}, {1, 64.0f}, {255, 3937.0f}, {16, 0.0f}}},
    // scale of sub-block 0: low 1, high 2: 1; the others: -32
    {TensorType::kIQ4_XS,
     {{1, 0x3C}, {2, 0x02}, {4, 0x01}, {8, 0xF0}, {9, 0x08}},
     {{0, -127.0f}, {16, 113.0f}, {1, 1.0f}, {32, 4064.0f}}},
    {TensorType::kF16, {{0, 0x01}}, {{0, 0x1p-24f}}},
    {TensorType::kBF16, {{0, 0x80}, {1, 0x3F}}, {{0, 1.0f}}},
};

void check_known(const Known& known) {
  std::vector<uint8_t> block(static_cast<size_t>(block_bytes(known.type)), 0);
  for (const auto& [offset, value] : known.bytes) block[static_cast<size_t>(offset)] = static_cast<uint8_t>(value);
  std::vector<float> out(static_cast<size_t>(block_size(known.type)));
  dequantize_row(known.type, block.data(), block_size(known.type), out.data());
  for (const auto& [index, value] : known.weights) {
    CHECK(out[static_cast<size_t>(index)] == value, "%s weight %d: %g, want %g", type_name(known.type), index,
          static_cast<double>(out[static_cast<size_t>(index)]), static_cast<double>(value));
  }
}

// Every f16: the value by its definition, in double.
void check_halves() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = half_to_float(static_cast<uint16_t>(bits));
    const uint32_t exponent = (bits >> 10) & 0x1F, mantissa = bits & 0x3FF;
    CHECK((std::bit_cast<uint32_t>(value) >> 31) == (bits >> 15), "sign of %04x", bits);
    if (exponent == 0x1F) {
      CHECK(mantissa ? value != value : value == value && value - value != 0.0f, "inf or nan %04x", bits);
      continue;
    }
    double expected = exponent ? 1024.0 + mantissa : mantissa;
    for (uint32_t e = exponent ? exponent : 1; e < 25; ++e) expected /= 2;
    for (uint32_t e = 25; e < exponent; ++e) expected *= 2;
    CHECK(static_cast<double>(value) == (bits >> 15 ? -expected : expected), "%04x", bits);
  }
}

void run() {
  check_halves();
  for (const Known& known : kKnown) check_known(known);
  const std::vector<int64_t> all_rows =
      small_shapes() ? std::vector<int64_t>{1, 17} : std::vector<int64_t>{1, 15, 16, 17, 48};
  const std::vector<int64_t> all_blocks =
      small_shapes() ? std::vector<int64_t>{1, 7, 8} : std::vector<int64_t>{1, 3, 7, 8, 28, 67};
  for (const TensorType type : kAllTypes) {
    check_sizes(type);
    for (const Fill fill : {Fill::kRandom, Fill::kAllOnes, Fill::kAllZero, Fill::kNoScale}) {
      for (const int64_t rows : all_rows) {
        for (const int64_t blocks : all_blocks) check_round_trip(type, rows, blocks * block_size(type), fill);
      }
    }
  }
  CHECK(block_size(static_cast<TensorType>(999)) == 0 && block_bytes(static_cast<TensorType>(999)) == 0,
        "unknown type");
}

}  // namespace
}  // namespace corral::testing

int main() {
  corral::testing::run();
  return 0;
}
