# Recipes for work on onkos; `just` lists them. .ci/run runs the same commands and needs no just.

_list:
    @just --list --unsorted

# Formatting and lints of everything, benches and examples included
check:
    cargo fmt --all --check
    cargo clippy --all-targets -- -D warnings

# Everything that the README's test command runs, or a part of it: `just test --test ops sdir`
test *args:
    cargo test {{ args }}

# The suites on the emulated driver, or a part of them: `just emulated --test ops sdir`
emulated *args:
    emulator/run cargo test {{ args }}

# Builds what a machine with a card and without Rust needs, into target/gpu
gpu-pack:
    benches/gpu/pack

# Everything that only a card can show: suites, sanitizer, benchmark, PyTorch on the same shapes
gpu *args:
    benches/gpu/run {{ args }}

# The documentation, where a broken link is an error
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# The benchmarks, or a part of them
bench *args:
    cargo bench {{ args }}

# What nvcc and NVRTC make of the kernels: registers, spills, instructions
kernels:
    .ci/kernels

# All that has to pass before a merge
ci:
    .ci/run
