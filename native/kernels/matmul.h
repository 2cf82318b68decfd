#pragma once

#include <cstddef>
#include <cstdint>

#include "quant/pack.h"

namespace corral {

// How a weight type wants its activations.
enum class ActForm : uint8_t {
  kF32,     // float weights
  kQ8x32,   // int8, one f32 scale per 32: the 32-blocks (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL)
  kQ8x256,  // int8, one f32 scale per 256: the K-quants and IQ4_XS
};

ActForm act_form(TensorType type);

// Scales and sums of 256 activations of one row in form kQ8x32; groups past the row's end are zero.
struct ActGroups32 {
  float scale[8];      // per 32
  float sum[8];        // sum of q per 32, for mins
  int32_t neg_sum[8];  // -sum, for offsets
};

// The same in form kQ8x256.
struct ActGroups256 {
  int32_t neg_sum[16];  // -sum of q per 16, for offsets
  int16_t sum16[16];    // sum of q per 16 and per 32, for mins
  int16_t sum32[8];
  float scale;
  int32_t padding[3];  // to two cache lines
};

// Activations [m][k] in one of the forms. The memory is the caller's (64-byte aligned); kF32 points at the floats.
struct Activations {
  ActForm form{};
  int64_t m = 0;
  int64_t k = 0;
  const float* f32 = nullptr;         // kF32: [m][k]
  int8_t* q = nullptr;                // else: [k / 256 rounded up][m][256], zeros past k
  ActGroups32* groups32 = nullptr;    // kQ8x32: [k / 256 rounded up][m]
  ActGroups256* groups256 = nullptr;  // kQ8x256: [k / 256][m]
};

// Bytes of scratch that activations of `form` need for m rows of k (k is a multiple of the form's group); 0 for kF32.
size_t activation_bytes(ActForm form, int64_t m, int64_t k);

// Lays the arrays of a quantised form out in `memory`; for kF32 `memory` is the floats themselves.
Activations make_activations(ActForm form, int64_t m, int64_t k, void* memory);

// The part of quantised activations that holds k in [begin, begin + length) of all rows, to quantise it by itself.
// begin is a multiple of 256, and so is length unless the part ends with the row.
Activations activation_columns(const Activations& act, int64_t begin, int64_t length);

// Kernels of one ISA. The result of a row never depends on m, on the other rows or on the split over threads, and is
// the same, bit for bit, on every ISA.
struct MatmulKernels {
  const char* name;

  // Quantises rows [row_begin, row_end) of x ([m][k], row stride ldx floats) into `act`. Never emits -128. A group that
  // holds a NaN or an infinity gets the scale NaN. Does nothing for kF32.
  void (*quantize)(const float* x, int64_t ldx, const Activations& act, int64_t row_begin, int64_t row_end);

  // y[r][n] = sum_k act[r][k] * w[n][k] for all rows r in [0, m) and n in [16 * group_begin, min(16 * group_end,
  // w.rows)). ldy = row stride of y in floats. Needs act.form == act_form(w.type). Allocates nothing.
  void (*matmul)(const PackedMatrix& w, const Activations& act, float* y, int64_t ldy, int64_t group_begin,
                 int64_t group_end);
};

extern const MatmulKernels kMatmulScalar;
#if defined(__x86_64__)
extern const MatmulKernels kMatmulAvx2;
extern const MatmulKernels kMatmulAvx2Vnni;
extern const MatmulKernels kMatmulAvx512;
extern const MatmulKernels kMatmulAmx;
#elif defined(__aarch64__)
extern const MatmulKernels kMatmulNeon;
#endif

// Kernels of the active ISA (base/cpu_features.h).
const MatmulKernels& matmul_kernels();

}  // namespace corral
