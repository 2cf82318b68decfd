#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>

#include "model/kv_cache.h"
#include "model/weights.h"

namespace corral::bind {

// The cache, and the model it was made for, whose threads may be reading it.
struct BoundKVCache : KVCache {
  BoundKVCache(Model& of_model, int64_t num_blocks, KvType type)
      : KVCache(of_model.config(), num_blocks, type), model(of_model) {}
  Model& model;
};

void bind_model(nanobind::module_& module);
void bind_decoder(nanobind::module_& module);
void bind_quant(nanobind::module_& module);
void bind_text(nanobind::module_& module);

}  // namespace corral::bind
