#include "base/cpu_features.h"
#include "kernels/matmul.h"

namespace corral {

const MatmulKernels& matmul_kernels() {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::kAmx:
      return kMatmulAmx;
    case Isa::kAvx512:
      return kMatmulAvx512;
    case Isa::kAvx2Vnni:
      return kMatmulAvx2Vnni;
    case Isa::kAvx2:
      return kMatmulAvx2;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return kMatmulNeon;
#endif
    default:
      return kMatmulScalar;
  }
}

}  // namespace corral
