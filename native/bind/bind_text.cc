#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/held_buffer.h"
#include "text/byte_pair.h"
#include "text/string_table.h"

namespace corral::bind {
namespace {

// A string as Python has it: bytes that are no UTF-8 become surrogate escapes.
nb::object to_python(std::string_view text) {
  PyObject* object = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogateescape");
  if (object == nullptr) throw nb::python_error();
  return nb::steal(object);
}

// The bytes of a string; empty where it cannot be written as bytes: it holds halves of surrogate pairs.
std::optional<std::string> from_python(nb::handle text) {
  PyObject* encoded = PyUnicode_AsEncodedString(text.ptr(), "utf-8", "surrogateescape");
  if (encoded == nullptr) {
    if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError) == 0) throw nb::python_error();
    PyErr_Clear();
    return std::nullopt;
  }
  const auto bytes = nb::steal<nb::bytes>(encoded);
  return std::string(bytes.c_str(), bytes.size());
}

void init_table(StringTable* self, nb::sequence strings) {
  StringTable table;
  for (const nb::handle item : strings) {
    if (!nb::isinstance<nb::str>(item)) throw nb::type_error("a StringTable is made of str only");
    const std::optional<std::string> text = from_python(item);
    if (!text) refuse("string " + std::to_string(table.size()) + " holds halves of surrogate pairs");
    table.append(*text);
  }
  new (self) StringTable(std::move(table));
}

std::pair<StringTable, size_t> read_table(nb::handle data, size_t offset, size_t end, size_t count, size_t max_bytes) {
  const HeldBuffer buffer(data);
  if (offset > end || end > buffer.size()) {
    refuse("[offset, end) is [" + std::to_string(offset) + ", " + std::to_string(end) + "); the data has " +
           std::to_string(buffer.size()) + " bytes");
  }
  const nb::gil_scoped_release released;
  StringTable table;
  const size_t num_bytes = table.read(buffer.data() + offset, end - offset, count, max_bytes);
  return {std::move(table), offset + num_bytes};
}

nb::object string_at(const StringTable& table, int64_t index) {
  const auto size = static_cast<int64_t>(table.size());
  if (index < -size || index >= size) {
    throw nb::index_error(("index " + std::to_string(index) + " of " + std::to_string(size) + " strings").c_str());
  }
  return to_python(table[static_cast<size_t>(index < 0 ? index + size : index)]);
}

nb::list to_list(const StringTable& table) {
  nb::list strings;
  for (size_t i = 0; i < table.size(); ++i) strings.append(to_python(table[i]));
  return strings;
}

void init_index(StringIndex* self, const StringTable& table) {
  const nb::gil_scoped_release released;
  new (self) StringIndex(table);
}

std::optional<uint32_t> find(const StringIndex& index, nb::str text) {
  const std::optional<std::string> bytes = from_python(text);
  return bytes ? index.find(*bytes) : std::nullopt;
}

std::optional<size_t> find_bad_merge(const StringTable& merges) {
  for (size_t i = 0; i < merges.size(); ++i) {
    if (!cut_merge(merges[i])) return i;
  }
  return std::nullopt;
}

void init_encoder(BytePairEncoder* self, const StringTable& tokens, const StringIndex& index, const StringTable& merges,
                  nb::handle is_usable, bool keeps_whole_words) {
  const HeldBuffer flags(is_usable);
  if (&index.table() != &tokens) refuse("index is of another table than tokens");
  const nb::gil_scoped_release released;
  std::vector<bool> usable(flags.size());
  for (size_t i = 0; i < usable.size(); ++i) usable[i] = flags.data()[i] != 0;
  new (self) BytePairEncoder(tokens, index, merges, std::move(usable), keeps_whole_words);
}

std::vector<int32_t> encode(const BytePairEncoder& encoder, nb::handle units) {
  const HeldBuffer buffer(units);
  if (buffer.size() % sizeof(uint16_t) != 0 || reinterpret_cast<uintptr_t>(buffer.data()) % alignof(uint16_t) != 0) {
    refuse("units must be an array of uint16");
  }
  const nb::gil_scoped_release released;
  return encoder.encode(reinterpret_cast<const uint16_t*>(buffer.data()), buffer.size() / sizeof(uint16_t));
}

}  // namespace

void bind_text(nb::module_& module) {
  using nb::arg;
  nb::class_<StringTable>(module, "StringTable", "An immutable sequence of strings, in one block of memory.")
      .def("__init__", init_table, arg("strings"))
      .def_static("read", read_table, arg("data"), arg("offset"), arg("end"), arg("count"), arg("max_bytes"),
                  "Reads strings as GGUF files write them; returns them and where the next one would begin.")
      .def("__len__", &StringTable::size)
      .def("__getitem__", string_at, arg("index"))
      .def("to_list", to_list, "All strings.")
      .def_prop_ro("longest_bytes", &StringTable::longest_bytes, "Bytes of the longest string.")
      .def_prop_ro("longest_characters", &StringTable::longest_characters, "Characters of the longest string.");

  nb::class_<StringIndex>(module, "StringIndex", "Finds strings of a table.")
      .def("__init__", init_index, arg("table"), nb::keep_alive<1, 2>())
      .def("find", find, arg("text"), "The first string that is `text`.")
      .def_prop_ro("duplicate", &StringIndex::duplicate, "Two strings of the table that are the same.");

  module.def("find_bad_merge", find_bad_merge, arg("merges"), "The first merge that is no pair.");
  nb::class_<BytePairEncoder>(module, "BytePairEncoder", "Byte-level BPE over words that are split already.")
      .def("__init__", init_encoder, arg("tokens"), arg("index"), arg("merges"), arg("is_usable"),
           arg("keeps_whole_words"), nb::keep_alive<1, 2>(), nb::keep_alive<1, 3>())
      .def("encode", encode, arg("units"), "The ids of a text.")
      .def_prop_ro("num_missing_bytes", &BytePairEncoder::num_missing_bytes, "Bytes that are no token by themselves.")
      .def_prop_ro(
          "first_unnamed",
          [](const BytePairEncoder& encoder) -> std::optional<nb::object> {
            if (!encoder.first_unnamed()) return std::nullopt;
            return to_python(*encoder.first_unnamed());
          },
          "The first text of several characters that merges name and that is no usable token.");
}

}  // namespace corral::bind
