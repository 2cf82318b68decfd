#include "model/dense.h"

#include <cstring>

#include "base/virtual_memory.h"

namespace corral {
namespace {

// [num_rows][matrix.rows]
std::vector<float> multiply(Model& model, const Matrix& matrix, const float* input, int64_t num_rows) {
  const PackedMatrix& packed = matrix.packed;
  const ActForm form = act_form(packed.type);
  const VirtualMemory memory(form == ActForm::kF32 ? 64 : activation_bytes(form, num_rows, packed.cols));
  Activations act = make_activations(form, num_rows, packed.cols, memory.data());
  act.f32 = input;
  if (form != ActForm::kF32) model.matmul().quantize(input, packed.cols, act, 0, num_rows);
  const int64_t stride = packed.num_groups() * kTileColumns;  // the kernels write whole groups
  std::vector<float> padded(static_cast<size_t>(num_rows * stride));
  WorkQueue queue;
  model.pool().run([&](int) {
    queue.take(packed.num_groups(), 4, [&](int64_t begin, int64_t end) {
      model.matmul().matmul(packed, act, padded.data(), stride, begin, end);
    });
  });
  std::vector<float> out(static_cast<size_t>(num_rows * packed.rows));
  for (int64_t row = 0; row < num_rows; ++row) {
    std::memcpy(out.data() + row * packed.rows, padded.data() + row * stride,
                static_cast<size_t>(packed.rows) * sizeof(float));
  }
  return out;
}

}  // namespace

std::vector<float> project(Model& model, const float* rows, int64_t num_rows) {
  const std::vector<float> inner = multiply(model, model.dense_2(), rows, num_rows);
  return multiply(model, model.dense_3(), inner.data(), num_rows);
}

}  // namespace corral
