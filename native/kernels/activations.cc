#include "kernels/matmul.h"
#include "quant/tile_format.h"

namespace corral {
namespace {

int64_t k_tiles(int64_t k) { return (k + kTileK - 1) / kTileK; }

}  // namespace

static_assert(sizeof(ActGroups32) == 96 && sizeof(ActGroups256) == 128);

ActForm act_form(TensorType type) {
  const TileFormat format = tile_format(type);
  if (format.low_bits == 0) return ActForm::kF32;
  return format.k_quant ? ActForm::kQ8x256 : ActForm::kQ8x32;
}

size_t activation_bytes(ActForm form, int64_t m, int64_t k) {
  if (form == ActForm::kF32) return 0;
  const size_t tiles = static_cast<size_t>(m * k_tiles(k));
  return tiles * (kTileK + (form == ActForm::kQ8x32 ? sizeof(ActGroups32) : sizeof(ActGroups256)));
}

Activations make_activations(ActForm form, int64_t m, int64_t k, void* memory) {
  Activations act;
  act.form = form;
  act.m = m;
  act.k = k;
  if (form == ActForm::kF32) {
    act.f32 = static_cast<const float*>(memory);
    return act;
  }
  act.q = static_cast<int8_t*>(memory);
  void* groups = act.q + m * k_tiles(k) * kTileK;
  if (form == ActForm::kQ8x32) {
    act.groups32 = static_cast<ActGroups32*>(groups);
  } else {
    act.groups256 = static_cast<ActGroups256*>(groups);
  }
  return act;
}

Activations activation_columns(const Activations& act, int64_t begin, int64_t length) {
  Activations part = act;
  const int64_t first = begin / kTileK * act.m;
  part.k = length;
  part.q += first * kTileK;
  if (act.form == ActForm::kQ8x32) part.groups32 += first;
  if (act.form == ActForm::kQ8x256) part.groups256 += first;
  return part;
}

}  // namespace corral
