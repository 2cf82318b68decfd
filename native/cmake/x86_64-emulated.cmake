# Builds with the compiler of an x86-64 machine; `ctest` runs the programs under qemu-user (7.2 or later, which has
# AVX2), on the CPU that QEMU_CPU names.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR x86_64)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-x86_64)
