// AVX2 with AVX-VNNI: the table of kernels. What multiplies no integers is that of AVX2.
#include "kernels/matmul_avx2_vnni.h"

#include "kernels/matmul_avx2.h"

namespace corral {
namespace {

void matmul(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
            int64_t group_end) {
  switch (act.form) {
    case ActForm::kF32:
      return avx2::matmul_floats(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x32:
      return avx2_vnni::matmul_blocks(w, act, y, ldy, group_begin, group_end);
    case ActForm::kQ8x256:
      return avx2_vnni::matmul_k_quants(w, act, y, ldy, group_begin, group_end);
  }
}

}  // namespace

const MatmulKernels kMatmulAvx2Vnni = {"avx2_vnni", avx2::quantize, matmul};

}  // namespace corral
