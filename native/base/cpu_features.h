#pragma once

#include <string_view>
#include <vector>

namespace corral {

// The kernels of one kind of CPU; a machine has those of its architecture only.
enum class Isa {
  kScalar,
  kNeon,      // Armv8.2 with the dot product
  kAvx2,      // AVX2, FMA, F16C and BMI2
  kAvx2Vnni,  // and AVX-VNNI: vpdpbusd of 32 bytes
  kAvx512,    // AVX-512 F, BW, DQ, VL, VNNI and VBMI
  kAmx,       // and the int8 tiles of AMX
};

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
