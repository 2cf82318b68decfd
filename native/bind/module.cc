#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "base/cpu_features.h"
#include "bind/bind.h"

namespace nb = nanobind;

namespace {

nb::dict cpu_info() {
  nb::list isas;
  for (const corral::Isa isa : corral::available_isas()) isas.append(std::string(corral::isa_name(isa)));
  nb::dict info;
  info["isa"] = std::string(corral::isa_name(corral::active_isa()));
  info["isas"] = isas;
  info["num_cpus"] = corral::usable_cpus();
  return info;
}

void select_isa(const std::string& name) {
  std::string names;
  for (const corral::Isa isa : corral::available_isas()) {
    if (corral::isa_name(isa) == name && corral::select_isa(isa)) return;
    names.append(names.empty() ? "" : ", ").append(corral::isa_name(isa));
  }
  throw std::invalid_argument("isa is \"" + name + "\"; this machine has " + names);
}

}  // namespace

NB_MODULE(_native, module) {
  nb::set_leak_warnings(false);  // a program that ends while it holds a model has done nothing wrong
  module.doc() = "The C++ core: packed weights, paged KV cache, decoder, sampler and tokenizer. Typed in _native.pyi.";
  module.def("cpu_info", cpu_info, "The active ISA, those this machine has, and the CPUs this process may use.");
  module.def("select_isa", select_isa, nb::arg("name"), "Chooses the kernels of models made from now on.");
  corral::bind::bind_model(module);
  corral::bind::bind_adapter(module);
  corral::bind::bind_decoder(module);
  corral::bind::bind_text(module);
}
