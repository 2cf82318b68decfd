#pragma once

#include <cstddef>
#include <cstdint>

// What this machine can do at this moment, the measure of every kernel's figure beside it.
namespace corral::bench {

// Reads `bytes` (a multiple of 256) in a small loop; returns a checksum so that the loop stays.
uint64_t read_all(const uint8_t* data, size_t bytes);

// Int8 operations (2 per multiply-add) of one call of int8_burst on this ISA; 0 if there is no vpdpbusd.
double int8_burst_ops();

// A run of independent vpdpbusd on registers.
void int8_burst();

}  // namespace corral::bench
