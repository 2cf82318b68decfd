// AMX (tiles of int8) beside AVX-512: the table of kernels. Few rows and float weights go the AVX-512 way, which gives
// the same bits.
#include "kernels/matmul_amx.h"

namespace corral {
namespace {

// Below it a tile of weights costs more to expand than its rows save.
constexpr int64_t kFewestRows = 9;

void quantize(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end) {
  kMatmulAvx512.quantize(x, ldx, act, row_begin, row_end);
}

void matmul(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
            int64_t group_end) {
  if (act.form == ActForm::kF32 || act.m < kFewestRows) {
    kMatmulAvx512.matmul(w, act, y, ldy, group_begin, group_end);
  } else if (act.form == ActForm::kQ8x32) {
    amx::matmul_blocks(w, act, y, ldy, group_begin, group_end);
  } else {
    amx::matmul_k_quants(w, act, y, ldy, group_begin, group_end);
  }
}

}  // namespace

const MatmulKernels kMatmulAmx = {"amx", quantize, matmul};

}  // namespace corral
