#pragma once

#include <cstdint>
#include <vector>

#include "model/weights.h"

namespace corral {

// dense_3 * dense_2 * row for each of [num_rows][hidden_size]: the layers that follow the pooling of some embedding
// models. The model has them. A row's result does not depend on the other rows. The caller holds a ModelUse.
std::vector<float> project(Model& model, const float* rows, int64_t num_rows);

}  // namespace corral
