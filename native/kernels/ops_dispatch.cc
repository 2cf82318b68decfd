#include "base/cpu_features.h"
#include "kernels/ops.h"

namespace corral {

const OpsKernels& ops_kernels() {
#if defined(__x86_64__)
  switch (active_isa()) {
    case Isa::kAmx:
    case Isa::kAvx512:
      return kOpsAvx512;
    case Isa::kAvx2:
      return kOpsAvx2;
    case Isa::kScalar:
      break;
  }
#endif
  return kOpsScalar;
}

}  // namespace corral
