#include "base/cpu_features.h"

#include <algorithm>
#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace corral {
namespace {

#if defined(__x86_64__)
bool bit(unsigned word, int index) { return ((word >> index) & 1u) != 0; }

// Register state that the operating system saves: XCR0.
unsigned saved_state() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Tiles are 8 KiB of state that Linux saves only for processes that ask for it.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// The kernels of this CPU that the operating system lets run, best last.
std::vector<Isa> detect() {
  std::vector<Isa> isas = {Isa::kScalar};
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return isas;
  const bool osxsave = bit(c, 27), avx = bit(c, 28), fma = bit(c, 12), f16c = bit(c, 29);
  if (!osxsave || !avx || !fma || !f16c) return isas;
  const unsigned state = saved_state();
  if ((state & 0x6u) != 0x6u) return isas;  // XMM and YMM
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return isas;
  const bool avx2 = bit(b, 5), bmi2 = bit(b, 8);
  if (!avx2 || !bmi2) return isas;
  isas.push_back(Isa::kAvx2);
  const bool avx512 =
      bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && bit(c, 1) && bit(c, 11);  // F DQ BW VL VBMI VNNI
  const bool zmm_saved = (state & 0xE6u) == 0xE6u;                                // and opmask, upper ZMM, ZMM16-31
  const bool tiles = bit(d, 24) && bit(d, 25) && (state & 0x60000u) == 0x60000u;  // AMX-TILE, AMX-INT8; saved
  // EAX of subleaf 0 counts the subleaves that follow.
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) && bit(a, 4)) isas.push_back(Isa::kAvx2Vnni);
  if (!avx512 || !zmm_saved) return isas;
  isas.push_back(Isa::kAvx512);
  if (tiles && may_use_tiles()) isas.push_back(Isa::kAmx);
  return isas;
}
#elif defined(__aarch64__)
std::vector<Isa> detect() {
  std::vector<Isa> isas = {Isa::kScalar};
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) isas.push_back(Isa::kNeon);
  return isas;
}
#else
std::vector<Isa> detect() { return {Isa::kScalar}; }
#endif

const std::vector<Isa>& isas_here() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

std::atomic<int>& selected() {
  static std::atomic<int> isa{static_cast<int>(isas_here().back())};
  return isa;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx2Vnni:
      return "avx2_vnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
    default:
      return "scalar";
  }
}

std::vector<Isa> available_isas() { return isas_here(); }

Isa active_isa() { return static_cast<Isa>(selected().load(std::memory_order_relaxed)); }

bool select_isa(Isa isa) {
  const std::vector<Isa>& isas = isas_here();
  if (std::find(isas.begin(), isas.end(), isa) == isas.end()) return false;
  selected().store(static_cast<int>(isa), std::memory_order_relaxed);
  return true;
}

}  // namespace corral
