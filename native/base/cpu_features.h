#pragma once

#include <string_view>
#include <vector>

namespace corral {

// kAvx512 means F, BW, DQ, VL, VNNI and VBMI; kAmx these and the tiles of int8.
enum class Isa { kScalar, kAvx2, kAvx512, kAmx };

std::string_view isa_name(Isa isa);

// What this CPU and operating system can run, best last; always holds kScalar.
std::vector<Isa> available_isas();

// The ISA whose kernels run: the best available one until select_isa() says otherwise.
Isa active_isa();

// False, and no change, if `isa` is not available.
bool select_isa(Isa isa);

// CPUs this process may use: affinity mask and cgroup quota, at least 1.
int usable_cpus();

}  // namespace corral
