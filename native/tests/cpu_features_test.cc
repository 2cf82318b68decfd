#include "base/cpu_features.h"

#include <sched.h>

#include "tests/check.h"

namespace corral::testing {
namespace {

void check_isas() {
  const std::vector<Isa> isas = available_isas();
  CHECK(isas.front() == Isa::kScalar, "the scalar kernels run everywhere");
  CHECK(active_isa() == isas.back(), "the best one is the default");
  for (const Isa isa : isas) CHECK(select_isa(isa) && active_isa() == isa, "%s", isa_name(isa).data());
  CHECK(isa_name(Isa::kScalar) == "scalar" && isa_name(Isa::kAvx2) == "avx2" && isa_name(Isa::kAvx512) == "avx512" &&
            isa_name(Isa::kAmx) == "amx",
        "the names of the interface");
  CHECK(select_isa(Isa::kScalar), "back to scalar");
  if (isas.back() != Isa::kAmx) {
    CHECK(!select_isa(Isa::kAmx) && active_isa() == Isa::kScalar, "a missing ISA is refused and changes nothing");
  }
}

// An affinity mask of one CPU leaves one usable CPU.
void check_usable_cpus() {
  cpu_set_t before, one;
  CHECK(sched_getaffinity(0, sizeof before, &before) == 0, "affinity");
  CHECK(usable_cpus() >= 1 && usable_cpus() <= CPU_COUNT(&before), "%d CPUs", usable_cpus());
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  CHECK(sched_setaffinity(0, sizeof one, &one) == 0, "pin to CPU %d", first);
  CHECK(usable_cpus() == 1, "%d CPUs", usable_cpus());
}

}  // namespace
}  // namespace corral::testing

int main() {
  corral::testing::check_isas();
  corral::testing::check_usable_cpus();
  return 0;
}
