// Row and elementwise kernels over 16-lane vectors. Compiled once per ISA, after that ISA's ops_vec_*.h; everything is
// in an unnamed namespace and no std:: template is used, so that no code of one ISA can be linked into another.

#include "kernels/ops.h"

namespace corral {
namespace {

constexpr int64_t kLanes = 16;
constexpr float kInfinity = __builtin_inff();
constexpr float kExpFloor = -80.0F;  // below, exp counts as 0: keeps p * v out of the subnormals

// e^x: x = n ln 2 + r, a polynomial of degree 6 in r. exp(0) is exactly 1; NaN stays NaN.
inline Vec exp16(Vec x) {
  const Vec clamped = smaller_of(set1(88.0F), greater_of(set1(kExpFloor), x));
  const Vec magic = set1(12582912.0F);  // 1.5 * 2^23: adding it rounds to a whole number
  const Vec shifted = add(mul(clamped, set1(1.44269504088896341F)), magic);
  const Vec n = sub(shifted, magic);
  Vec r = fma(n, set1(-0.693359375F), clamped);
  r = fma(n, set1(2.12194440e-4F), r);
  Vec p = set1(1.9875691500e-4F);
  p = fma(p, r, set1(1.3981999507e-3F));
  p = fma(p, r, set1(8.3334519073e-3F));
  p = fma(p, r, set1(4.1665795894e-2F));
  p = fma(p, r, set1(1.6666665459e-1F));
  p = fma(p, r, set1(5.0000001201e-1F));
  p = add(fma(p, mul(r, r), r), set1(1.0F));
  return zero_below(x, set1(kExpFloor), mul(p, power_of_two(shifted)));
}

inline float exp1(float x) { return first(exp16(set1(x))); }

// Calls body(offset, count) for whole vectors, then once for what is left.
template <class Body>
inline void for_lanes(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, n - i);
}

inline Vec load_some(const float* p, int64_t count, float fill) {
  return count == kLanes ? load(p) : load_first(p, count, fill);
}
inline void store_some(float* p, int64_t count, Vec a) {
  if (count == kLanes) {
    store(p, a);
  } else {
    store_first(p, count, a);
  }
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  Vec even = set1(0.0F);
  Vec odd = set1(0.0F);  // two chains; which one a value joins depends only on its index
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const Vec a = load(x + i);
    const Vec b = load(x + i + kLanes);
    even = fma(a, a, even);
    odd = fma(b, b, odd);
  }
  for_lanes(n - i, [&](int64_t j, int64_t count) {
    const Vec a = load_some(x + i + j, count, 0.0F);
    even = fma(a, a, even);
  });
  const float mean = reduce_add(add(even, odd)) / static_cast<float>(n);
  const Vec factor = set1(1.0F / square_root(mean + eps));
  for_lanes(n, [&](int64_t j, int64_t count) {
    const Vec scaled = mul(load_some(x + j, count, 0.0F), factor);
    store_some(out + j, count, mul(scaled, load_some(weight + j, count, 0.0F)));
  });
}

// Sum of function(i, count) over all vectors, in two chains as rms_norm has them.
template <class Function>
inline float sum_lanes(int64_t n, Function function) {
  Vec even = set1(0.0F);
  Vec odd = set1(0.0F);
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    even = add(even, function(i, kLanes));
    odd = add(odd, function(i + kLanes, kLanes));
  }
  for_lanes(n - i, [&](int64_t j, int64_t count) { even = add(even, function(i + j, count)); });
  return reduce_add(add(even, odd));
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n, float* out) {
  const float sum = sum_lanes(n, [&](int64_t i, int64_t count) { return load_some(x + i, count, 0.0F); });
  const float mean_of_x = sum / static_cast<float>(n);
  const Vec mean = set1(mean_of_x);
  const float squares = sum_lanes(n, [&](int64_t i, int64_t count) {
    const Vec centred = sub(load_some(x + i, count, mean_of_x), mean);  // lanes beyond the end give 0
    return mul(centred, centred);
  });
  const Vec factor = set1(1.0F / square_root(squares / static_cast<float>(n) + eps));
  for_lanes(n, [&](int64_t i, int64_t count) {
    const Vec scaled = mul(sub(load_some(x + i, count, 0.0F), mean), factor);
    const Vec shift = bias == nullptr ? set1(0.0F) : load_some(bias + i, count, 0.0F);
    store_some(out + i, count, fma(scaled, load_some(weight + i, count, 0.0F), shift));
  });
}

void add_to(float* x, const float* y, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_some(x + i, count, add(load_some(x + i, count, 0.0F), load_some(y + i, count, 0.0F)));
  });
}

void scale_by(float* x, float factor, int64_t n) {
  for_lanes(
      n, [&](int64_t i, int64_t count) { store_some(x + i, count, mul(load_some(x + i, count, 0.0F), set1(factor))); });
}

void rope(float* head, const float* cos, const float* sin, int64_t rope_dim, RopeStyle style) {
  const int64_t half = rope_dim / 2;
  if (style == RopeStyle::kHalf) {
    float* upper = head + half;
    for_lanes(half, [&](int64_t i, int64_t count) {
      const Vec c = load_some(cos + i, count, 0.0F);
      const Vec s = load_some(sin + i, count, 0.0F);
      const Vec a = load_some(head + i, count, 0.0F);
      const Vec b = load_some(upper + i, count, 0.0F);
      store_some(head + i, count, sub(mul(a, c), mul(b, s)));
      store_some(upper + i, count, add(mul(a, s), mul(b, c)));
    });
    return;
  }
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[2 * i];
    const float b = head[2 * i + 1];
    head[2 * i] = a * cos[i] - b * sin[i];
    head[2 * i + 1] = a * sin[i] + b * cos[i];
  }
}

// x / (1 + e^-slope): silu with slope = x; the tanh form of gelu with slope = 2 sqrt(2 / pi) (x + 0.044715 x^3).
inline Vec times_sigmoid(Vec x, Vec slope) {
  const Vec one = set1(1.0F);
  return div(x, add(one, exp16(sub(set1(0.0F), slope))));
}

// x Phi(x), Phi the normal distribution: 1 - Phi(|x|) = p(t) e^(-x^2 / 2), t = 1 / (1 + 0.3275911 |x| / sqrt(2)), with
// p of degree 5 (Abramowitz and Stegun 7.1.26); off by at most 1e-7 |x|.
inline Vec gelu16(Vec x) {
  const Vec zero = set1(0.0F);
  const Vec magnitude = greater_of(sub(zero, x), x);
  const Vec t = div(set1(1.0F), fma(magnitude, set1(0.2316418882F), set1(1.0F)));
  Vec p = set1(0.5307027145F);
  p = fma(p, t, set1(-0.7265760135F));
  p = fma(p, t, set1(0.7107068705F));
  p = fma(p, t, set1(-0.142248368F));
  p = fma(p, t, set1(0.127414796F));
  const Vec tail = mul(mul(p, t), exp16(mul(mul(x, x), set1(-0.5F))));
  return sub(greater_of(zero, x), mul(magnitude, tail));
}

inline Vec activate16(Vec x, Activation activation) {
  if (activation == Activation::kGelu) return gelu16(x);
  if (activation == Activation::kSilu) return times_sigmoid(x, x);
  return times_sigmoid(x, mul(mul(x, set1(1.5957691216F)), fma(mul(x, x), set1(0.044715F), set1(1.0F))));
}

void gated(const float* gate, const float* up, Activation activation, int64_t n, float* out) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    const Vec activated = activate16(load_some(gate + i, count, 0.0F), activation);
    store_some(out + i, count, mul(activated, load_some(up + i, count, 0.0F)));
  });
}

void activate(const float* x, Activation activation, int64_t n, float* out) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_some(out + i, count, activate16(load_some(x + i, count, 0.0F), activation));
  });
}

inline Vec softcap16(Vec x, Vec cap) {
  const Vec one = set1(1.0F);
  const Vec e = exp16(mul(div(x, cap), set1(2.0F)));
  return mul(cap, sub(one, div(set1(2.0F), add(e, one))));
}

void softcap(float* x, float cap, int64_t n) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_some(x + i, count, softcap16(load_some(x + i, count, 0.0F), set1(cap)));
  });
}

void argmax(const float* x, int64_t n, float* value, int64_t* index) {
  Vec best[4] = {set1(-kInfinity), set1(-kInfinity), set1(-kInfinity), set1(-kInfinity)};
  uint32_t nan = 0;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int j = 0; j < 4; ++j) {
      const Vec a = load(x + i + j * kLanes);
      nan |= nan_mask(a);
      best[j] = greater_of(a, best[j]);
    }
  }
  for_lanes(n - i, [&](int64_t j, int64_t count) {
    const Vec a = load_some(x + i + j, count, -kInfinity);
    nan |= nan_mask(a);
    best[0] = greater_of(a, best[0]);
  });
  *value = reduce_max(greater_of(greater_of(best[0], best[1]), greater_of(best[2], best[3])));
  *index = -1;
  if (nan != 0) return;
  for (int64_t j = 0; j < n; j += kLanes) {
    const int64_t count = n - j < kLanes ? n - j : kLanes;
    const uint32_t equal = eq_mask(load_some(x + j, count, -kInfinity), set1(*value));
    if (equal != 0) {
      *index = j + __builtin_ctz(equal);
      return;
    }
  }
}

inline Vec exp_weight16(Vec x, float max, float scale, float floor) {
  return zero_below(x, set1(floor), exp16(mul(sub(x, set1(max)), set1(scale))));
}

void exp_weights(const float* x, int64_t n, float max, float scale, float floor, float* out) {
  for_lanes(n, [&](int64_t i, int64_t count) {
    store_some(out + i, count, exp_weight16(load_some(x + i, count, -kInfinity), max, scale, floor));
  });
}

void exp_sums(const float* x, int64_t n, int64_t block, float max, float scale, float floor, float* out) {
  for (int64_t begin = 0; begin < n; begin += block) {
    const int64_t length = n - begin < block ? n - begin : block;
    Vec sum = set1(0.0F);
    for_lanes(length, [&](int64_t i, int64_t count) {
      sum = add(sum, exp_weight16(load_some(x + begin + i, count, -kInfinity), max, scale, floor));
    });
    *out++ = reduce_add(sum);
  }
}

int64_t select_at_least(const float* x, int64_t n, float floor, int32_t* out, int64_t capacity) {
  int64_t found = 0;
  for_lanes(n, [&](int64_t i, int64_t count) {
    uint32_t mask = ge_mask(load_some(x + i, count, -kInfinity), set1(floor));
    if (count < kLanes) mask &= (1U << count) - 1U;
    for (; mask != 0; mask &= mask - 1) {
      if (found < capacity) out[found] = static_cast<int32_t>(i + __builtin_ctz(mask));
      ++found;
    }
  });
  return found;
}

}  // namespace
}  // namespace corral
