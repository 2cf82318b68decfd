#include <cmath>
#include <memory>
#include <string>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "quant/encode.h"

namespace corral::bind {
namespace {

// A copy of nothing: Python owns the bytes from the start, and they are filled without the GIL.
nb::bytes quantize(int64_t type_id, const AnyArray& values) {
  need_between("type", type_id, 0, UINT32_MAX);
  const auto type = static_cast<TensorType>(type_id);
  if (!can_encode(type)) refuse("type is " + std::to_string(type_id) + ", which cannot be written");
  const Array<float, 2> rows = take<float, 2>(values, "values");
  const int64_t cols = rows.shape[1];
  if (cols % block_size(type) != 0) {
    refuse("values has rows of " + std::to_string(cols) + "; they must be multiples of " +
           std::to_string(block_size(type)));
  }
  const int64_t row_bytes = cols / block_size(type) * block_bytes(type);
  PyObject* object = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(row_bytes * rows.size()));
  if (object == nullptr) throw nb::python_error();
  auto out = nb::steal<nb::bytes>(object);
  auto* data = reinterpret_cast<uint8_t*>(PyBytes_AsString(object));
  bool finite = true;
  {
    const nb::gil_scoped_release released;
    for (int64_t i = 0; i < rows.size() * cols && finite; ++i) finite = std::isfinite(rows.data[i]);
    for (int64_t row = 0; row < rows.size() && finite; ++row) {
      encode_row(type, rows.data + row * cols, cols, data + row * row_bytes);
    }
  }
  if (!finite) refuse("values holds NaN or infinity");
  return out;
}

}  // namespace

void bind_quant(nb::module_& module) { module.def("quantize", quantize, nb::arg("type"), nb::arg("values")); }

}  // namespace corral::bind
