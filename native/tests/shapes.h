#pragma once

#include <cstdlib>
#include <string_view>

namespace corral::testing {

// CORRAL_TEST_SHAPES=small leaves fewer shapes of each kind, for a CPU that is emulated; nothing is left out.
inline bool small_shapes() {
  const char* shapes = std::getenv("CORRAL_TEST_SHAPES");
  return shapes != nullptr && std::string_view(shapes) == "small";
}

}  // namespace corral::testing
