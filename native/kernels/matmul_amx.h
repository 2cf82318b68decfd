#pragma once

#include "kernels/matmul.h"

// The families of the AMX kernels, each a translation unit of its own. Contract: MatmulKernels::matmul.
namespace corral::amx {

void matmul_blocks(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end);
void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end);

}  // namespace corral::amx
