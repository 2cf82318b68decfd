// The two halves of an adapter's B (A x). Included after ops_attention-inl.h.

namespace corral {
namespace {

constexpr int kDownRows = kValueRows < 4 ? kValueRows : 4;  // of the input in a tile

// Rows of A that a tile with some rows of the input takes: as many sums as attention keeps in registers.
constexpr int down_ranks(int rows) {
  const int fitting = kValueRows * kValueSlices / rows;
  return fitting > 4 ? 4 : fitting;
}

// One vector of columns: x of `Rows` rows times `Ranks` rows of A. Inlined by force: the sums must stay in registers.
template <int Rows, int Ranks>
[[gnu::always_inline]] inline void down_step(const float* x, int64_t row_stride, const int32_t* rows, const float* a,
                                             int64_t cols, int64_t count, Vec (&sum)[Rows][Ranks]) {
  Vec weights[Ranks];
#pragma GCC unroll 8
  for (int j = 0; j < Ranks; ++j) weights[j] = load_some(a + j * cols, count, 0.0F);
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    const Vec values = load_some(x + rows[r] * row_stride, count, 0.0F);
#pragma GCC unroll 8
    for (int j = 0; j < Ranks; ++j) sum[r][j] = fma(values, weights[j], sum[r][j]);
  }
}

// t of `Rows` rows and `Ranks` rows of A. Lane i sums columns i, i + 16, ... of each unit, in their order.
template <int Rows, int Ranks>
void down_tile(const LowRankDown& job, const int32_t* rows, int64_t first) {
  Vec sum[Rows][Ranks];
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
#pragma GCC unroll 8
    for (int j = 0; j < Ranks; ++j) sum[r][j] = set1(0.0F);
  }
  const float* x = job.x;
  const float* a = job.a + first * job.cols;
  for (int64_t begin = 0; begin < job.cols; begin += job.unit_columns, x += job.unit_stride) {
    const int64_t length = job.cols - begin < job.unit_columns ? job.cols - begin : job.unit_columns;
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) {
      down_step<Rows, Ranks>(x + i, job.row_stride, rows, a + begin + i, job.cols, kLanes, sum);
    }
    if (i < length) down_step<Rows, Ranks>(x + i, job.row_stride, rows, a + begin + i, job.cols, length - i, sum);
  }
#pragma GCC unroll 8
  for (int r = 0; r < Rows; ++r) {
    float* out = job.out + rows[r] * job.out_stride + first;
#pragma GCC unroll 8
    for (int j = 0; j < Ranks; ++j) out[j] = job.scale * reduce_add(sum[r][j]);
  }
}

void low_rank_down(const LowRankDown& job) {
  for_row_parts<kDownRows>(0, job.num_rows, [&](auto part, int64_t index) {
    constexpr int kRows = decltype(part)::value;
    constexpr int kRanks = down_ranks(kRows);
    int64_t j = job.rank_begin;
    for (; j + kRanks <= job.rank_end; j += kRanks) down_tile<kRows, kRanks>(job, job.rows + index, j);
    for (; j < job.rank_end; ++j) down_tile<kRows, 1>(job, job.rows + index, j);
  });
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
