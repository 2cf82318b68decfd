#pragma once

#include <nanobind/nanobind.h>

#include <atomic>
#include <cstdint>

#include "model/adapter.h"
#include "model/kv_cache.h"
#include "model/weights.h"

namespace corral::bind {

// The cache, and the model it was made for, whose threads may be reading it.
struct BoundKVCache : KVCache {
  BoundKVCache(Model& of_model, int64_t num_blocks, KvType type)
      : KVCache(of_model.config(), num_blocks, type), model(of_model) {}
  Model& model;
};

// An adapter that nobody changes any more once a step has used it: steps run without the GIL.
class BoundAdapter {
 public:
  explicit BoundAdapter(const DecoderConfig& config) : adapter(config) {}

  // Holds the adapter for one change; throws std::runtime_error if it is or was in other hands.
  class Change {
   public:
    explicit Change(BoundAdapter& adapter);
    ~Change();
    Change(const Change&) = delete;
    Change& operator=(const Change&) = delete;

   private:
    BoundAdapter& adapter_;
  };

  // Call before a step reads it; throws std::runtime_error while it is being changed.
  void use();

  Adapter adapter;

 private:
  enum class State : uint8_t { kIdle, kChanging, kUsed };
  std::atomic<State> state_{State::kIdle};
};

void bind_adapter(nanobind::module_& module);
void bind_model(nanobind::module_& module);
void bind_decoder(nanobind::module_& module);
void bind_text(nanobind::module_& module);

}  // namespace corral::bind
