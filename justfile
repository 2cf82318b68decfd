# The tasks that CI runs (.ci/run calls these). `pip install '.[dev]'` brings `just` and the tools.

# List the tasks
default:
    @just --list

# Make this checkout ready for work: editable install, hooks
setup:
    pip install nanobind scikit-build-core
    pip install --no-build-isolation -e '.[dev]'
    pre-commit install

# Format, lint, types, generated pages: everything but tests
check: lint types docs-fresh

# Formatting and lint of Python and C++
lint:
    ruff format --check .
    ruff check .
    git ls-files '*.cc' '*.h' '*.inl' | xargs clang-format --dry-run --Werror

# Strict types
types:
    mypy

# Rewrite everything that a tool can rewrite
fmt:
    ruff format .
    ruff check --fix .
    git ls-files '*.cc' '*.h' '*.inl' | xargs clang-format -i

# The tests that need no model
test:
    pytest -n 2 --dist loadfile -m "not e2e"

# All tests; the models are fetched once
test-all:
    pytest -n 2 --dist loadfile
    pytest -m slow

# The C++ tests; `just native build/asan address,undefined` adds sanitizers, a third argument names the tests to run
native dir="build/native" sanitize="" tests="":
    cmake -S . -B {{dir}} -G Ninja -DCMAKE_BUILD_TYPE=Release -DCORRAL_NATIVE_TESTS=ON -DCORRAL_SANITIZE={{sanitize}}
    cmake --build {{dir}} --target {{ if tests == "" { "all" } else { tests } }}
    ctest --test-dir {{dir}} --output-on-failure --no-tests=error -R '^({{ if tests == "" { ".*" } else { replace(tests, " ", "|") } }})$'

# The C++ tests of the 64-bit Arm build under qemu: with the dot product, then without it
native-aarch64 dir="build/aarch64":
    cmake -S . -B {{dir}} -G Ninja -DCMAKE_BUILD_TYPE=Release -DCORRAL_NATIVE_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=native/cmake/aarch64-linux-gnu.cmake
    cmake --build {{dir}}
    QEMU_CPU=max CORRAL_EXPECT_ISA=neon ctest --test-dir {{dir}} --output-on-failure -j 2
    QEMU_CPU=cortex-a53 CORRAL_EXPECT_ISA=scalar CORRAL_TEST_SHAPES=small ctest --test-dir {{dir}} --output-on-failure -j 2

# The C++ tests under qemu on x86-64 CPUs without AVX-512, then without AVX: an instruction they lack ends a test
native-emulated dir="build/emulated":
    cmake -S . -B {{dir}} -G Ninja -DCMAKE_BUILD_TYPE=Release -DCORRAL_NATIVE_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=native/cmake/x86_64-emulated.cmake
    cmake --build {{dir}}
    QEMU_CPU=Haswell CORRAL_EXPECT_ISA=avx2 CORRAL_TEST_SHAPES=small ctest --test-dir {{dir}} --output-on-failure -j 2
    QEMU_CPU=Nehalem CORRAL_EXPECT_ISA=scalar CORRAL_TEST_SHAPES=small ctest --test-dir {{dir}} --output-on-failure -j 2

# A few tokens of a tiny model by the installed extension under qemu, with AVX2 alone and without AVX
python-emulated:
    QEMU_CPU=Haswell qemu-x86_64 "$(python -c 'import sys; print(sys.executable)')" -m pytest -q tests/native/test_decoder.py -k "wanted_rows or copied_blocks"
    QEMU_CPU=Nehalem qemu-x86_64 "$(python -c 'import sys; print(sys.executable)')" -m pytest -q tests/native/test_decoder.py -k "wanted_rows or copied_blocks"

# Fuzz the GGUF reader for a bounded time
fuzz seconds="30":
    python -m tests.support.fuzz_gguf --seconds {{seconds}}

# Write the generated pages
docs:
    python docs/generate.py

# Fail if a generated page is stale
docs-fresh:
    python docs/generate.py --check

# Speed of the engine beside llama.cpp's and OpenVINO GenAI's on a GGUF file; flags of benchmarks.compare_engines follow
bench model *flags:
    python -m benchmarks.compare_engines --model {{model}} {{flags}}

# The matmul kernels alone, every packed type, as shares of what the machine can do
kernel-bench dir="build/native":
    cmake -S . -B {{dir}} -G Ninja -DCMAKE_BUILD_TYPE=Release -DCORRAL_NATIVE_TESTS=ON
    cmake --build {{dir}} --target matmul_bench
    python -m benchmarks.kernel_table --bench {{dir}}/native/bench/matmul_bench
