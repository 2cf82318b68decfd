#include "base/cpu_features.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "tests/check.h"

namespace corral::testing {
namespace {

void check_isas() {
  const std::vector<Isa> isas = available_isas();
  CHECK(isas.front() == Isa::kScalar, "the scalar kernels run everywhere");
  CHECK(active_isa() == isas.back(), "the best one is the default");
  for (const Isa isa : isas) CHECK(select_isa(isa) && active_isa() == isa, "%s", isa_name(isa).data());
  const std::pair<Isa, const char*> names[] = {{Isa::kScalar, "scalar"}, {Isa::kNeon, "neon"},
                                               {Isa::kAvx2, "avx2"},     {Isa::kAvx2Vnni, "avx2_vnni"},
                                               {Isa::kAvx512, "avx512"}, {Isa::kAmx, "amx"}};
  for (const auto& [isa, name] : names) {
    CHECK(isa_name(isa) == name, "%s", name);
    CHECK(select_isa(Isa::kScalar), "back to scalar");
    const bool here = std::find(isas.begin(), isas.end(), isa) != isas.end();
    CHECK(select_isa(isa) == here, "%s", name);
    CHECK(active_isa() == (here ? isa : Isa::kScalar), "%s: a missing ISA is refused and changes nothing", name);
  }
}

// Who runs the tests on an emulated CPU says what they must find there.
void check_expected_isa() {
  const char* expected = std::getenv("CORRAL_EXPECT_ISA");
  if (expected == nullptr) return;
  const std::string_view best = isa_name(available_isas().back());
  CHECK(best == expected, "the best ISA is %s, expected %s", best.data(), expected);
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
  corral::testing::check_expected_isa();
  corral::testing::check_usable_cpus();
  return 0;
}
