#!/bin/bash
# Build, test and measure on a machine with a GPU: benchmarks/gpu.sh build | test | bench | all
#
# Needs nvcc, cmake and a C++ compiler, and a Python (PYTHON, default python3) that has torch with
# CUDA, torch_geometric, wrapt, typing_extensions, pytest and hypothesis; for `bench` numpy and scipy
# as well. Nothing is installed or fetched: what is missing may lie in a folder named by SITE, e.g.
# made by `pip install --no-deps --target SITE pytest hypothesis wrapt`. Results and logs go to OUT,
# default benchmarks/results. Each stage takes less than ten minutes on 16 cores and one H200.
set -eo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
mkdir -p "$OUT"
export PYTHONPATH="$PWD/src${SITE:+:$SITE}${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
PYTEST=("$PYTHON" -m pytest -q -p no:cacheprovider)

build() {
  make native PYTHON_WITH_TORCH="$(command -v "$PYTHON")" CUDA=on JOBS="$(nproc)" \
    >"$OUT/build.log" 2>&1 || { tail -40 "$OUT/build.log"; return 1; }
  "$PYTHON" - <<'CHECK'
import torch
from gnnscript.ops import library

library.load()
assert torch.cuda.is_available(), "torch sees no GPU"
assert library.has_kernels("cuda"), "libgnnscript_cuda.so was not loaded"
print("built for", torch.cuda.get_device_name(), "torch", torch.__version__)
CHECK
}

# All parts run, so that one call tells of all failures.
tests() {
  local failed=0
  "${PYTEST[@]}" tests/cuda 2>&1 | tee "$OUT/test-cuda.log" || failed=1
  # The grid of the op tests, on tensors of the GPU.
  GNNSCRIPT_TEST_DEVICE=cuda GNNSCRIPT_CHECKS=1 timeout 240 "${PYTEST[@]}" \
    tests/ops/test_native_values.py tests/ops/test_edge_programs.py \
    tests/ops/test_edge_gradients.py 2>&1 | tee "$OUT/test-ops.log" || failed=1
  if command -v compute-sanitizer >/dev/null; then
    local small="opcheck or no_row or unchecked or farthest or (csr and dtype1)"
    for tool in memcheck racecheck; do
      timeout 120 compute-sanitizer --tool "$tool" --error-exitcode 9 --target-processes all \
        "${PYTEST[@]}" tests/cuda/test_kernels.py -k "$small" \
        >"$OUT/$tool.log" 2>&1 && echo "$tool: no fault" ||
        { failed=1; echo "$tool: failed"; grep -m 20 "=========" "$OUT/$tool.log" || tail -5 "$OUT/$tool.log"; }
    done
  else
    echo "no compute-sanitizer: not run"
  fi
  return $failed
}

bench() {
  "$PYTHON" benchmarks/gpu.py --json "$OUT/gpu.json" 2>&1 | tee "$OUT/bench.log"
}

case "${1:-all}" in
  build) build ;;
  test) tests ;;
  bench) bench ;;
  all) build && tests && bench ;;
  *) sed -n '2,9s/^# //p' "$0"; exit 2 ;;
esac
