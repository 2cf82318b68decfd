#include "base/cpu_features.h"
#include "kernels/ops.h"

namespace corral {

const OpsKernels& ops_kernels() {
  switch (active_isa()) {  // what multiplies integers faster changes nothing here
#if defined(__x86_64__)
    case Isa::kAmx:
    case Isa::kAvx512:
      return kOpsAvx512;
    case Isa::kAvx2Vnni:
    case Isa::kAvx2:
      return kOpsAvx2;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return kOpsNeon;
#endif
    default:
      return kOpsScalar;
  }
}

}  // namespace corral
