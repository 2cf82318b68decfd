// K-quants: 256 weights with a scale (and a min) for each 32 or 16, themselves integers with one f16 factor.
// The searches for the best scale are those that ggml documents for its K-quants (ggml-quants, without importance
// matrix), so that files are as good as llama.cpp's.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "quant/encode_blocks.h"

namespace corral {
namespace {

constexpr int kBlock = 256;
constexpr int kSub = 32;       // weights that share a scale and a min (Q4_K, Q5_K)
constexpr int kSubSmall = 16;  // weights that share a scale (Q6_K)
constexpr int kNumSubs = kBlock / kSub;
constexpr float kTiny = 1e-15F;  // a group below this is zero

// x[i] is about scale * code - min, min >= 0.
struct Affine {
  float scale = 0.0F;
  float min = 0.0F;
};

// How the search for an Affine goes: it tries the ranges (max_code + start + step * k) / (max - min), k = 0..num_steps.
struct Search {
  int max_code;
  float start;
  float step;
  int num_steps;
};

constexpr Search kSearch4{15, -1.0F, 0.1F, 20};
constexpr Search kSearch5{31, -0.5F, 0.1F, 15};

float squared_error(const float* x, const float* weight, const uint8_t* code, float scale, float min) {
  float sum = 0.0F;
  for (int i = 0; i < kSub; ++i) {
    const float error = scale * static_cast<float>(code[i]) + min - x[i];
    sum += weight[i] * (error * error);
  }
  return sum;
}

// Codes for a trial range; then the least-squares scale and min for these codes.
bool fit(const float* x, const float* weight, float inverse, float low, int max_code, float sum_w, float sum_x,
         uint8_t* code, float& scale, float& min) {
  float sum_l = 0.0F, sum_l2 = 0.0F, sum_xl = 0.0F;
  for (int i = 0; i < kSub; ++i) {
    const int level = std::clamp(nearest(inverse * (x[i] - low)), 0, max_code);
    code[i] = static_cast<uint8_t>(level);
    const float w = weight[i], l = static_cast<float>(level);
    sum_l += w * l;
    sum_l2 += w * l * l;
    sum_xl += w * l * x[i];
  }
  const float determinant = sum_w * sum_l2 - sum_l * sum_l;
  if (!(determinant > 0.0F)) return false;
  scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
  min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
  if (min > 0.0F) {  // the format subtracts mins only
    min = 0.0F;
    scale = sum_xl / sum_l2;
  }
  return true;
}

// The scale and min of 32 weights with the least weighted squared error among the trials.
Affine best_affine(const float* x, const Search& search) {
  std::array<float, kSub> weight;
  float sum_x2 = 0.0F;
  for (int i = 0; i < kSub; ++i) sum_x2 += x[i] * x[i];
  const float mean = std::sqrt(sum_x2 / kSub);
  for (int i = 0; i < kSub; ++i) weight[static_cast<size_t>(i)] = mean + std::fabs(x[i]);

  float low = std::min(0.0F, *std::min_element(x, x + kSub));
  const float high = *std::max_element(x, x + kSub);
  float sum_w = 0.0F, sum_x = 0.0F;
  for (int i = 0; i < kSub; ++i) {
    sum_w += weight[static_cast<size_t>(i)];
    sum_x += weight[static_cast<size_t>(i)] * x[i];
  }
  if (high == low) return {0.0F, -low};
  const float first_inverse = static_cast<float>(search.max_code) / (high - low);
  std::array<uint8_t, kSub> code;
  for (size_t i = 0; i < kSub; ++i) {
    code[i] = static_cast<uint8_t>(std::clamp(nearest(first_inverse * (x[i] - low)), 0, search.max_code));
  }
  Affine best{1.0F / first_inverse, low};
  float best_error = squared_error(x, weight.data(), code.data(), best.scale, best.min);
  for (int step = 0; step <= search.num_steps; ++step) {
    const float levels = search.start + search.step * static_cast<float>(step) + static_cast<float>(search.max_code);
    float scale, min;
    if (!fit(x, weight.data(), levels / (high - low), low, search.max_code, sum_w, sum_x, code.data(), scale, min))
      continue;
    const float error = squared_error(x, weight.data(), code.data(), scale, min);
    if (error < best_error) {
      best_error = error;
      best = {scale, min};
      low = min;  // later trials start from the better min
    }
  }
  return {best.scale, -best.min};
}

// 6-bit scales and mins of eight sub-blocks in 12 bytes.
void store_scales(const std::array<int, kNumSubs>& scale, const std::array<int, kNumSubs>& min, uint8_t* out) {
  for (size_t s = 0; s < 4; ++s) {
    out[s] = static_cast<uint8_t>(scale[s] | ((scale[s + 4] >> 4) << 6));
    out[s + 4] = static_cast<uint8_t>(min[s] | ((min[s + 4] >> 4) << 6));
    out[s + 8] = static_cast<uint8_t>((scale[s + 4] & 0xF) | ((min[s + 4] & 0xF) << 4));
  }
}

// d, dmin and scales[12] to `out`; the codes of all 256 weights to `code`.
void encode_affine(const float* x, const Search& search, uint8_t* out, uint8_t* code) {
  std::array<Affine, kNumSubs> parts;
  float max_scale = 0.0F, max_min = 0.0F;
  for (size_t s = 0; s < kNumSubs; ++s) {
    parts[s] = best_affine(x + s * kSub, search);
    max_scale = std::max(max_scale, parts[s].scale);
    max_min = std::max(max_min, parts[s].min);
  }
  const float inverse_scale = max_scale > 0.0F ? 63.0F / max_scale : 0.0F;
  const float inverse_min = max_min > 0.0F ? 63.0F / max_min : 0.0F;
  store_half(max_scale / 63.0F, out);
  store_half(max_min / 63.0F, out + 2);
  const float d = half_to_float(float_to_half(max_scale / 63.0F));
  const float dmin = half_to_float(float_to_half(max_min / 63.0F));
  std::array<int, kNumSubs> scale, min;
  for (size_t s = 0; s < kNumSubs; ++s) {
    scale[s] = std::clamp(nearest(inverse_scale * parts[s].scale), 0, 63);
    min[s] = std::clamp(nearest(inverse_min * parts[s].min), 0, 63);
    const float step = d * static_cast<float>(scale[s]);
    const float offset = dmin * static_cast<float>(min[s]);
    for (size_t i = s * kSub; i < (s + 1) * kSub; ++i) {
      const float level = step != 0.0F ? (x[i] + offset) / step : 0.0F;
      code[i] = static_cast<uint8_t>(nearest(std::clamp(level, 0.0F, static_cast<float>(search.max_code))));
    }
  }
  store_scales(scale, min, out + 4);
}

// Per 64 weights 32 bytes: the first 32 in the low nibbles.
void store_nibbles_k(const uint8_t* code, uint8_t* out) {
  for (int i = 0; i < kBlock / 2; ++i) {
    const uint8_t* pair = code + i / 32 * 64 + i % 32;
    out[i] = static_cast<uint8_t>((pair[0] & 0xF) | ((pair[32] & 0xF) << 4));
  }
}

// The scale of 16 weights, with codes in [-32, 31], that keeps the most of them in the sense of least squares
// weighted by x^2.
float best_scale(const float* x) {
  float extreme = 0.0F;
  for (int i = 0; i < kSubSmall; ++i) {
    if (std::fabs(x[i]) > std::fabs(extreme)) extreme = x[i];
  }
  if (std::fabs(extreme) < kTiny) return 0.0F;
  float scale = 0.0F, best = 0.0F;
  for (int trial = 0; trial <= 18; ++trial) {
    // First the plain range, then those around it.
    const int step = trial == 0 ? 0 : trial <= 9 ? trial - 10 : trial - 9;
    const float inverse = -(32.0F + 0.1F * static_cast<float>(step)) / extreme;
    float sum_xl = 0.0F, sum_l2 = 0.0F;
    for (int i = 0; i < kSubSmall; ++i) {
      const float level = static_cast<float>(std::clamp(nearest(inverse * x[i]), -32, 31));
      const float w = x[i] * x[i];
      sum_xl += w * x[i] * level;
      sum_l2 += w * level * level;
    }
    if (sum_l2 > 0.0F && (trial == 0 || sum_xl * sum_xl > best * sum_l2)) {
      scale = sum_xl / sum_l2;
      best = scale * sum_xl;
    }
  }
  return scale;
}

}  // namespace

void encode_q4_k(const float* x, uint8_t* out) {
  std::array<uint8_t, kBlock> code;
  encode_affine(x, kSearch4, out, code.data());
  store_nibbles_k(code.data(), out + 16);
}

void encode_q5_k(const float* x, uint8_t* out) {
  std::array<uint8_t, kBlock> code;
  encode_affine(x, kSearch5, out, code.data());
  std::memset(out + 16, 0, 32);
  for (int i = 0; i < kBlock; ++i) {
    out[16 + i % 32] |= static_cast<uint8_t>((code[static_cast<size_t>(i)] >> 4) << (i / 32));
  }
  store_nibbles_k(code.data(), out + 48);
}

// ql[128], qh[64], scale i8[16], d
void encode_q6_k(const float* x, uint8_t* out) {
  std::array<float, kBlock / kSubSmall> scale;
  float extreme = 0.0F;
  for (size_t s = 0; s < scale.size(); ++s) {
    scale[s] = best_scale(x + s * kSubSmall);
    if (std::fabs(scale[s]) > std::fabs(extreme)) extreme = scale[s];
  }
  std::memset(out, 0, 210);
  if (std::fabs(extreme) < kTiny) return;
  const float inverse = -128.0F / extreme;
  store_half(1.0F / inverse, out + 208);
  const float d = half_to_float(float_to_half(1.0F / inverse));
  for (int i = 0; i < kBlock; ++i) {
    const int sub = std::min(127, nearest(inverse * scale[static_cast<size_t>(i / kSubSmall)]));
    out[192 + i / kSubSmall] = static_cast<uint8_t>(static_cast<int8_t>(sub));
    const float step = d * static_cast<float>(sub);
    const float level = step != 0.0F ? std::clamp(x[i] / step, -32.0F, 31.0F) : 0.0F;
    const int code = nearest(level) + 32;
    const int half = i / 128, quarter = i % 128 / 32;
    out[half * 64 + i % 64] |= static_cast<uint8_t>((code & 0xF) << (quarter < 2 ? 0 : 4));
    out[128 + half * 32 + i % 32] |= static_cast<uint8_t>((code >> 4) << (2 * quarter));
  }
}

}  // namespace corral
