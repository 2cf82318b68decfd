#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace corral::bind {

namespace nb = nanobind;

using AnyArray = nb::ndarray<nb::ro, nb::device::cpu>;

[[noreturn]] inline void refuse(const std::string& message) { throw std::invalid_argument(message); }

template <class T>
constexpr const char* type_name() {
  if constexpr (std::is_same_v<T, float>) return "float32";
  if constexpr (std::is_same_v<T, int32_t>) return "int32";
  if constexpr (std::is_same_v<T, uint32_t>) return "uint32";
  if constexpr (std::is_same_v<T, int64_t>) return "int64";
  if constexpr (std::is_same_v<T, uint64_t>) return "uint64";
}

// A checked view of a C-contiguous array of T with `Dims` dimensions.
template <class T, size_t Dims>
struct Array {
  const T* data = nullptr;
  std::array<int64_t, Dims> shape{};
  const char* name = "";

  int64_t size() const { return shape[0]; }
};

// Throws std::invalid_argument that says what the array is and what it should be.
template <class T, size_t Dims = 1>
Array<T, Dims> take(const AnyArray& array, const char* name) {
  if (array.dtype() != nb::dtype<T>()) refuse(std::string(name) + " must be an array of " + type_name<T>());
  if (array.ndim() != Dims) {
    refuse(std::string(name) + " has " + std::to_string(array.ndim()) + " dimensions; it must have " +
           std::to_string(Dims));
  }
  Array<T, Dims> out;
  out.name = name;
  int64_t stride = 1;
  bool contiguous = true;
  for (size_t dim = Dims; dim-- > 0;) {
    out.shape[dim] = static_cast<int64_t>(array.shape(dim));
    if (out.shape[dim] > 1 && array.stride(dim) != stride) contiguous = false;
    stride *= out.shape[dim];
  }
  if (stride > 0 && !contiguous)
    refuse(std::string(name) + " is not C-contiguous; pass numpy.ascontiguousarray() of it");
  out.data = static_cast<const T*>(array.data());
  return out;
}

template <class T>
void need_size(const Array<T, 1>& array, int64_t size) {
  if (array.size() == size) return;
  refuse(std::string(array.name) + " has " + std::to_string(array.size()) + " values; it must have " +
         std::to_string(size));
}

// Every value in [low, high].
template <class T, size_t Dims, class Bound>
void need_values(const Array<T, Dims>& array, Bound low, Bound high) {
  int64_t count = 1;
  for (const int64_t size : array.shape) count *= size;
  for (int64_t i = 0; i < count; ++i) {
    if (array.data[i] >= low && array.data[i] <= high) continue;
    refuse(std::string(array.name) + "[" + std::to_string(i) + "] is " + std::to_string(array.data[i]) +
           "; it must be from " + std::to_string(low) + " to " + std::to_string(high));
  }
}

// Offsets of parts of an array of `total` values: begin at 0, never fall, end at `total`.
inline void need_offsets(const Array<int32_t, 1>& offsets, int64_t num_parts, int64_t total) {
  need_size(offsets, num_parts + 1);
  if (offsets.data[0] != 0)
    refuse(std::string(offsets.name) + " begins at " + std::to_string(offsets.data[0]) + ", not 0");
  for (int64_t i = 0; i < num_parts; ++i) {
    if (offsets.data[i + 1] < offsets.data[i]) {
      refuse(std::string(offsets.name) + " falls from " + std::to_string(offsets.data[i]) + " to " +
             std::to_string(offsets.data[i + 1]) + " at " + std::to_string(i + 1));
    }
  }
  if (offsets.data[num_parts] != total) {
    refuse(std::string(offsets.name) + " ends at " + std::to_string(offsets.data[num_parts]) + "; there are " +
           std::to_string(total) + " values");
  }
}

inline void need_between(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  refuse(std::string(name) + " is " + std::to_string(value) + "; it must be from " + std::to_string(low) + " to " +
         std::to_string(high));
}

}  // namespace corral::bind
