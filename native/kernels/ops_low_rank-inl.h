// The two halves of an adapter's B (A x). Included after ops_attention-inl.h.

namespace corral {
namespace {

// Sums of `Ranks` rows of A with one row of the input: lane i takes columns i, i + 16, ... of each unit, in their
// order.
template <int Ranks>
void down_tile(const LowRankDown& job, int64_t row, int64_t first) {
  Vec sum[Ranks];
#pragma GCC unroll 8
  for (int j = 0; j < Ranks; ++j) sum[j] = set1(0.0F);
  const float* unit = job.x + row * job.row_stride;
  const float* weights = job.a + first * job.cols;
  for (int64_t begin = 0; begin < job.cols; begin += job.unit_columns, unit += job.unit_stride) {
    const int64_t length = job.cols - begin < job.unit_columns ? job.cols - begin : job.unit_columns;
    for_lanes(length, [&](int64_t i, int64_t count) {
      const Vec x = load_some(unit + i, count, 0.0F);
#pragma GCC unroll 8
      for (int j = 0; j < Ranks; ++j) {
        sum[j] = fma(x, load_some(weights + j * job.cols + begin + i, count, 0.0F), sum[j]);
      }
    });
  }
  float* out = job.out + row * job.out_stride + first;
#pragma GCC unroll 8
  for (int j = 0; j < Ranks; ++j) out[j] = job.scale * reduce_add(sum[j]);
}

void low_rank_down(const LowRankDown& job) {
  constexpr int kRanks = 4;
  for (int64_t index = 0; index < job.num_rows; ++index) {
    int64_t j = job.rank_begin;
    for (; j + kRanks <= job.rank_end; j += kRanks) down_tile<kRanks>(job, job.rows[index], j);
    for (; j < job.rank_end; ++j) down_tile<1>(job, job.rows[index], j);
  }
}

// y += B t for `Slices` vectors of columns from `begin`; only the last may have fewer than 16, `count`.
template <int Rows, int Slices>
void up_tile(const LowRankUp& job, const int32_t* rows, int64_t begin, int64_t count) {
  Vec sum[Rows][Slices];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int s = 0; s < Slices; ++s) sum[r][s] = set1(0.0F);
  }
  for (int64_t j = 0; j < job.rank; ++j) {
    const float* weights = job.b + j * job.b_stride + begin;
    Vec b[Slices];
#pragma GCC unroll 8
    for (int s = 0; s < Slices; ++s) b[s] = load_some(weights + s * kLanes, s + 1 < Slices ? kLanes : count, 0.0F);
#pragma GCC unroll 8
    for (int r = 0; r < Rows; ++r) {
      const Vec t = set1(job.t[rows[r] * job.t_stride + j]);
#pragma GCC unroll 8
      for (int s = 0; s < Slices; ++s) sum[r][s] = fma(t, b[s], sum[r][s]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int s = 0; s < Slices; ++s) {
      float* y = job.y + rows[r] * job.y_stride + begin + s * kLanes;
      const int64_t size = s + 1 < Slices ? kLanes : count;
      store_some(y, size, add(load_some(y, size, 0.0F), sum[r][s]));
    }
  }
}

void low_rank_up(const LowRankUp& job) {
  for_row_parts<kValueRows>(0, job.num_rows, [&](auto part, int64_t index) {
    constexpr int kRows = decltype(part)::value;
    const int32_t* rows = job.rows + index;
    int64_t begin = 0;
    for (; begin + kValueSlices * kLanes <= job.columns; begin += kValueSlices * kLanes) {
      up_tile<kRows, kValueSlices>(job, rows, begin, kLanes);
    }
    for (; begin < job.columns; begin += kLanes) {
      const int64_t left = job.columns - begin;
      up_tile<kRows, 1>(job, rows, begin, left < kLanes ? left : kLanes);
    }
  });
}

}  // namespace
}  // namespace corral
