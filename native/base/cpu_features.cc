#include "base/cpu_features.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
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

Isa detect() {
  unsigned a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::kScalar;
  const bool osxsave = bit(c, 27), avx = bit(c, 28), fma = bit(c, 12), f16c = bit(c, 29);
  if (!osxsave || !avx || !fma || !f16c) return Isa::kScalar;
  const unsigned state = saved_state();
  if ((state & 0x6u) != 0x6u) return Isa::kScalar;  // XMM and YMM
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::kScalar;
  const bool avx2 = bit(b, 5), bmi2 = bit(b, 8);
  if (!avx2 || !bmi2) return Isa::kScalar;
  const bool avx512 =
      bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && bit(c, 1) && bit(c, 11);  // F DQ BW VL VBMI VNNI
  const bool zmm_saved = (state & 0xE6u) == 0xE6u;  // and opmask, upper ZMM, ZMM16-31
  if (!avx512 || !zmm_saved) return Isa::kAvx2;
  const bool tiles = bit(d, 24) && bit(d, 25) && (state & 0x60000u) == 0x60000u;  // AMX-TILE, AMX-INT8; saved
  return tiles && may_use_tiles() ? Isa::kAmx : Isa::kAvx512;
}
#else
Isa detect() { return Isa::kScalar; }
#endif

Isa best_isa() {
  static const Isa best = detect();
  return best;
}

std::atomic<int>& selected() {
  static std::atomic<int> isa{static_cast<int>(best_isa())};
  return isa;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAmx:
      return "amx";
    default:
      return "scalar";
  }
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= best_isa()) isas.push_back(isa);
  }
  return isas;
}

Isa active_isa() { return static_cast<Isa>(selected().load(std::memory_order_relaxed)); }

bool select_isa(Isa isa) {
  if (isa > best_isa()) return false;
  selected().store(static_cast<int>(isa), std::memory_order_relaxed);
  return true;
}

}  // namespace corral
