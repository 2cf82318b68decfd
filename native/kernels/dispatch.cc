#include "base/cpu_features.h"
#include "kernels/matmul.h"

namespace corral {

const MatmulKernels& matmul_kernels() { return kMatmulScalar; }

}  // namespace corral
