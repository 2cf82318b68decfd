#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/pack.h"

namespace corral {

// How a weight type wants its activations.
enum class ActForm : uint8_t {
  kF32,      // float weights
  kQ8x32,    // int8, one f32 scale per 32: the 32-blocks (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL)
  kQ8x256,   // int8, one f32 scale per 256: the K-quants and IQ4_XS
};

ActForm act_form(TensorType type);

// Activations [m][k] in one of the forms. The memory is the caller's (64-byte aligned); kF32 points at the floats.
struct Activations {
  ActForm form{};
  int64_t m = 0;
  int64_t k = 0;
  const float* f32 = nullptr;      // kF32: [m][k]
  int8_t* q = nullptr;             // else: int8 values
  float* scale = nullptr;          //       f32 scales
  int16_t* sum = nullptr;          //       sums of q, for mins and offsets
};

// Bytes of scratch that activations of `form` need for m rows of k (k is a multiple of the form's group).
size_t activation_bytes(ActForm form, int64_t m, int64_t k);

// Lays the arrays of a quantised form out in `memory`.
Activations make_activations(ActForm form, int64_t m, int64_t k, void* memory);

// Kernels of one ISA. The result of a row never depends on m, on the other rows or on the split over threads.
struct MatmulKernels {
  const char* name;

  // Quantises rows [row_begin, row_end) of x ([m][k], row stride ldx floats) into `act`. Never emits -128.
  void (*quantize)(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end);

  // y[r][n] = sum_k act[r][k] * w[n][k] for all rows r in [0, m) and n in [16 * group_begin, min(16 * group_end, w.rows)).
  // ldy = row stride of y in floats. Needs act.form == act_form(w.type). Allocates nothing.
  void (*matmul)(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                 int64_t group_end);
};

extern const MatmulKernels kMatmulScalar;
#if defined(__x86_64__)
extern const MatmulKernels kMatmulAvx2;
extern const MatmulKernels kMatmulAvx512;
#endif

// Kernels of the active ISA (base/cpu_features.h).
const MatmulKernels& matmul_kernels();

}  // namespace corral
