#include "tests/random_tensor.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "tests/check.h"

namespace corral::testing {
namespace {

// Byte offsets of the f16 fields in a block; -1 = none.
struct HalfFields {
  int d = -1, m = -1;
};

HalfFields half_fields(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
    case TensorType::kQ5_0:
    case TensorType::kQ8_0:
    case TensorType::kIQ4_NL:
    case TensorType::kIQ4_XS:
      return {0, -1};
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K:
      return {0, 2};
    case TensorType::kQ2_K:
      return {80, 82};
    case TensorType::kQ3_K:
      return {108, -1};
    case TensorType::kQ6_K:
      return {208, -1};
    default:
      return {};
  }
}

// Finite f16 bits: 1, 0, or a magnitude in [2^-8, 2^-5) of either sign.
uint16_t half_scale(Fill fill, Random& random) {
  if (fill == Fill::kNoScale) return 0;
  if (fill != Fill::kRandom) return 0x3C00;
  const uint64_t bits = random.next();
  return static_cast<uint16_t>(((bits & 1) << 15) | ((7 + (bits >> 1) % 3) << 10) | ((bits >> 8) & 0x3FF));
}

void fill_floats(TensorType type, Fill fill, Random& random, std::vector<uint8_t>& data) {
  const size_t width = static_cast<size_t>(block_bytes(type));
  for (size_t i = 0; i < data.size(); i += width) {
    uint32_t bits = 0;
    if (type == TensorType::kF16) {
      bits = half_scale(fill, random);
    } else {
      const float value = fill == Fill::kNoScale ? 0.0f : fill == Fill::kRandom ? random.uniform() : 1.0f;
      std::memcpy(&bits, &value, sizeof bits);
      if (type == TensorType::kBF16) bits >>= 16;
    }
    std::memcpy(&data[i], &bits, width);
  }
}

}  // namespace

const char* type_name(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return "F32";
    case TensorType::kF16:
      return "F16";
    case TensorType::kBF16:
      return "BF16";
    case TensorType::kQ4_0:
      return "Q4_0";
    case TensorType::kQ4_1:
      return "Q4_1";
    case TensorType::kQ5_0:
      return "Q5_0";
    case TensorType::kQ5_1:
      return "Q5_1";
    case TensorType::kQ8_0:
      return "Q8_0";
    case TensorType::kQ2_K:
      return "Q2_K";
    case TensorType::kQ3_K:
      return "Q3_K";
    case TensorType::kQ4_K:
      return "Q4_K";
    case TensorType::kQ5_K:
      return "Q5_K";
    case TensorType::kQ6_K:
      return "Q6_K";
    case TensorType::kIQ4_NL:
      return "IQ4_NL";
    case TensorType::kIQ4_XS:
      return "IQ4_XS";
  }
  return "?";
}

uint64_t Random::next() {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

float Random::uniform() { return static_cast<float>(next() >> 40) * 0x1p-23f - 1.0f; }

std::vector<uint8_t> make_tensor(TensorType type, int64_t rows, int64_t cols, Fill fill, uint64_t seed) {
  Random random{seed};
  const size_t width = static_cast<size_t>(block_bytes(type));
  std::vector<uint8_t> data(static_cast<size_t>(rows * cols / block_size(type)) * width);
  if (block_size(type) == 1) {
    fill_floats(type, fill, random, data);
    return data;
  }
  for (uint8_t& byte : data) {
    byte = fill == Fill::kAllOnes ? 0xFF : fill == Fill::kAllZero ? 0 : static_cast<uint8_t>(random.next());
  }
  const HalfFields fields = half_fields(type);
  for (size_t i = 0; i < data.size(); i += width) {
    for (const int offset : {fields.d, fields.m}) {
      if (offset < 0) continue;
      const uint16_t bits = half_scale(fill, random);
      std::memcpy(&data[i + static_cast<size_t>(offset)], &bits, sizeof bits);
    }
  }
  return data;
}

GuardedBuffer::GuardedBuffer(size_t bytes) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t body = (bytes + page - 1) / page * page;
  map_bytes_ = body + page;
  void* map = mmap(nullptr, map_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(map != MAP_FAILED, "mmap of %zu bytes", map_bytes_);
  map_ = static_cast<uint8_t*>(map);
  CHECK(mprotect(map_ + body, page, PROT_NONE) == 0, "mprotect");
  data_ = map_ + (body - bytes) / 64 * 64;
}

GuardedBuffer::~GuardedBuffer() { munmap(map_, map_bytes_); }

}  // namespace corral::testing
