#pragma once

#include "kernels/matmul.h"

// The families of the AVX2 kernels, each a translation unit of its own. Contract: MatmulKernels::matmul.
namespace corral::avx2 {

// Contract: MatmulKernels::quantize. It and matmul_floats serve AVX-VNNI too.
void quantize(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end);

void matmul_blocks(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end);
void matmul_k_quants(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                     int64_t group_end);
void matmul_floats(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                   int64_t group_end);

}  // namespace corral::avx2
