#include "bench/machine_peak.h"

#include "base/cpu_features.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace corral::bench {
namespace {

constexpr int kRounds = 20000;
constexpr int kChains = 12;  // two vpdpbusd a cycle of 5 cycles each need 10

bool has_vnni() { return available_isas().back() >= Isa::kAvx512; }

}  // namespace

#if defined(__x86_64__)

__attribute__((target("avx2"))) uint64_t read_all(const uint8_t* data, size_t bytes) {
  __m256i sum = _mm256_setzero_si256();
  for (size_t i = 0; i < bytes; i += 256) {
    for (size_t j = i; j < i + 256; j += 64) {
      sum = _mm256_xor_si256(sum, _mm256_load_si256(reinterpret_cast<const __m256i*>(data + j)));
      sum = _mm256_xor_si256(sum, _mm256_load_si256(reinterpret_cast<const __m256i*>(data + j + 32)));
    }
  }
  return static_cast<uint64_t>(_mm256_extract_epi64(sum, 0));
}

__attribute__((target("avx512f,avx512vnni"))) void int8_burst() {
  if (!has_vnni()) return;
  const __m512i a = _mm512_set1_epi8(1);
  __m512i s0 = a, s1 = a, s2 = a, s3 = a, s4 = a, s5 = a, s6 = a, s7 = a, s8 = a, s9 = a, s10 = a, s11 = a;
  for (int i = 0; i < kRounds; ++i) {
    s0 = _mm512_dpbusd_epi32(s0, a, a);
    s1 = _mm512_dpbusd_epi32(s1, a, a);
    s2 = _mm512_dpbusd_epi32(s2, a, a);
    s3 = _mm512_dpbusd_epi32(s3, a, a);
    s4 = _mm512_dpbusd_epi32(s4, a, a);
    s5 = _mm512_dpbusd_epi32(s5, a, a);
    s6 = _mm512_dpbusd_epi32(s6, a, a);
    s7 = _mm512_dpbusd_epi32(s7, a, a);
    s8 = _mm512_dpbusd_epi32(s8, a, a);
    s9 = _mm512_dpbusd_epi32(s9, a, a);
    s10 = _mm512_dpbusd_epi32(s10, a, a);
    s11 = _mm512_dpbusd_epi32(s11, a, a);
    __asm__ volatile(""
                     : "+v"(s0), "+v"(s1), "+v"(s2), "+v"(s3), "+v"(s4), "+v"(s5), "+v"(s6), "+v"(s7), "+v"(s8),
                       "+v"(s9), "+v"(s10), "+v"(s11));
  }
}

#else

uint64_t read_all(const uint8_t* data, size_t bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes; ++i) sum += data[i];
  return sum;
}

void int8_burst() {}

#endif

double int8_burst_ops() { return has_vnni() ? 128.0 * kChains * kRounds : 0.0; }

}  // namespace corral::bench
