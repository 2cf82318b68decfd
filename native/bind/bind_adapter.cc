#include <nanobind/stl/string.h>

#include <string>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/held_buffer.h"

namespace corral::bind {
namespace {

TensorView view_of(int64_t type, int64_t rows, int64_t cols, const HeldBuffer& buffer) {
  need_between("type", type, 0, UINT32_MAX);
  return {.type = static_cast<TensorType>(type),
          .rows = rows,
          .cols = cols,
          .data = buffer.data(),
          .num_bytes = buffer.size()};
}

void add(BoundAdapter& self, const std::string& role, int64_t layer, int64_t rank, int64_t rows, int64_t cols,
         int64_t type_a, nb::handle a, int64_t type_b, nb::handle b, float scale) {
  const HeldBuffer held_a(a);
  const HeldBuffer held_b(b);
  const TensorView view_a = view_of(type_a, rank, cols, held_a);
  const TensorView view_b = view_of(type_b, rows, rank, held_b);
  const BoundAdapter::Change change(self);
  const nb::gil_scoped_release released;
  self.adapter.add(role, layer, view_a, view_b, scale);
}

}  // namespace

void BoundAdapter::use() {
  State idle = State::kIdle;
  if (!state_.compare_exchange_strong(idle, State::kUsed) && idle == State::kChanging) {
    throw std::runtime_error("the adapter is being changed by a call on another thread");
  }
}

BoundAdapter::Change::Change(BoundAdapter& adapter) : adapter_(adapter) {
  State idle = State::kIdle;
  if (adapter_.state_.compare_exchange_strong(idle, State::kChanging)) return;
  throw std::runtime_error("the adapter has been used, or is being changed; make a new one");
}

BoundAdapter::Change::~Change() { adapter_.state_.store(State::kIdle); }

void bind_adapter(nb::module_& module) {
  using nb::arg;
  nb::class_<BoundAdapter>(module, "Adapter", "A LoRA adapter for models of one config.")
      .def(nb::init<const DecoderConfig&>(), arg("config"))
      .def("add", add, arg("role"), arg("layer"), arg("rank"), arg("rows"), arg("cols"), arg("type_a"), arg("a"),
           arg("type_b"), arg("b"), arg("scale"), "Adds scale * B (A x) to what a matrix gives.")
      .def_prop_ro("num_bytes", [](const BoundAdapter& self) { return self.adapter.num_bytes(); }, "Memory in bytes.");
}

}  // namespace corral::bind
