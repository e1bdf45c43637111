# On a machine with python3, gcc and make: `make demo`, `make test`.
#
#   make demo [EVENTS=path.root]    the main job on real input, as a table
#   make hgcal [EVENTS=path.root]   train, serve and compare the calorimeter application
#   make serve-demo                 a real Triton, and a client without torch
#   make libtorch-backend           Triton's libtorch backend, built from its sources
#   make test [PYTEST_ARGS="-k gat"]    linters, types, architecture, then the tests
#   make lint                       the first three alone
#   make native [CUDA=auto|on|off]  the library of kernels, beside the package
#   make wheel                      the package with its library, in dist/
#   make sanitize                   the CPU kernels under ASan, UBSan and TSan
#   make emulate                    the CUDA kernels as a library for the CPU, to test them without a GPU
#   make clean                      removes the virtual environment and all caches
#
# Another Python, torch or PyG: `make clean`, then e.g. `make test TORCH=torch==2.10.0`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
PYG ?= torch-geometric==2.8.1
VENV ?= .venv
EVENTS ?=
PYTEST_ARGS ?=
CUDA ?= auto
JOBS ?= 2
# Without it `native` takes the Python of the virtual environment, which it makes if need be.
PYTHON_WITH_TORCH ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo hgcal test lint native wheel sanitize emulate install server serve-demo libtorch-backend clean
.DELETE_ON_ERROR:

help:
	@sed -n '3,13s/^#  //p' Makefile

# What an installation reads: requirements from the one, the version from the other.
METADATA := pyproject.toml src/gnnscript/__init__.py

# torch comes first and alone: its version decides which packages follow. The build backend stands
# in the environment itself, so that later installs neither fetch it again nor bring another torch.
$(VENV)/.base:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install '$(TORCH)'
	$(PIP) install '$(TORCH)' '$(PYG)' 'scikit-build-core>=1.0' 'cmake>=3.22' ninja
	touch $@

$(VENV)/.demo: $(VENV)/.base $(METADATA)
	$(PIP) install --no-build-isolation '$(TORCH)' '$(PYG)' -e '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.base $(METADATA)
	$(PIP) install --no-build-isolation '$(TORCH)' '$(PYG)' -e '.[test,dev]'
	touch $@

install: $(VENV)/.test

demo: $(VENV)/.demo
	$(BIN)/python docs/examples/demo.py $(if $(EVENTS),--events '$(EVENTS)')

hgcal: native server
	$(BIN)/python docs/examples/hgcal_service.py $(if $(EVENTS),--events '$(EVENTS)')

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

NATIVE_PYTHON := $(or $(PYTHON_WITH_TORCH),$(abspath $(BIN)/python))
CMAKE ?= $(or $(shell command -v cmake),$(BIN)/cmake)

# Puts libgnnscript.so, and libgnnscript_cuda.so where nvcc is found, beside the package.
native: $(if $(PYTHON_WITH_TORCH),,$(VENV)/.base)
	$(CMAKE) -S src/gnnscript/csrc -B build/native -DGNNSCRIPT_CUDA=$(CUDA) \
	  -DPython_EXECUTABLE="$$(command -v $(NATIVE_PYTHON))"
	$(CMAKE) --build build/native --parallel $(JOBS)
	$(CMAKE) --install build/native --prefix src
	@ls src/gnnscript/libgnnscript.* >/dev/null || { echo 'no library was built'; exit 1; }

# The inference server that the serving tests and the demo start; its wheel exists for Linux.
$(VENV)/.server: $(VENV)/.test
	$(BIN)/gnnscript serve --install
	touch $@

server: $(VENV)/.server

serve-demo: $(VENV)/.server
	$(BIN)/python docs/examples/serve_demo.py

# The wheel's server has the Python backend alone. Of its release, 2.51; or of what lies in a folder.
TRITON_RELEASE ?= r24.10
TRITON_SOURCES ?= build/triton/$(TRITON_RELEASE)
TRITON_REPOSITORIES := $(addprefix $(TRITON_SOURCES)/,pytorch_backend backend core common)
$(TRITON_REPOSITORIES):
	@git clone --quiet --depth 1 --branch $(TRITON_RELEASE) \
	  https://github.com/triton-inference-server/$(notdir $@) $@ || { \
	  echo '$(notdir $@) of Triton $(TRITON_RELEASE) cannot be cloned: bring it and the others,' \
	    '$(notdir $(TRITON_REPOSITORIES)), and name their folder by TRITON_SOURCES=DIR' >&2; exit 1; }

libtorch-backend: $(VENV)/.base | $(TRITON_REPOSITORIES)
	$(CMAKE) -S docs/examples/libtorch_backend -B build/libtorch_backend \
	  -DTRITON_SOURCES='$(abspath $(TRITON_SOURCES))' -DCMAKE_PREFIX_PATH='$(TORCH_ROOT)'
	$(CMAKE) --build build/libtorch_backend --parallel $(JOBS)
	$(CMAKE) --install build/libtorch_backend --prefix $(VENV)/share/gnnscript/backends

wheel: $(VENV)/.base
	$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist \
	  -C cmake.define.GNNSCRIPT_CUDA=$(CUDA) .

# A program of the kernels alone, without torch and Python, in which the sanitizers see everything.
SANITIZERS ?= address,undefined thread
SANITIZE_BUILD ?= build/sanitize
sanitize:
	@for sanitizer in $(SANITIZERS); do \
	  echo "-fsanitize=$$sanitizer" && mkdir -p $(SANITIZE_BUILD) && \
	  $(CXX) -std=gnu++17 -g -O1 -fsanitize=$$sanitizer -fno-sanitize-recover=all \
	    -ffp-contract=off -Wno-psabi -Isrc/gnnscript/csrc -DGNNSCRIPT_ISA=baseline \
	    tests/native/kernels.cpp -pthread -o $(SANITIZE_BUILD)/kernels && \
	  $(SANITIZE_BUILD)/kernels || exit 1; \
	done

# The CUDA kernels with an emulator in place of CUDA's headers, registered for the CPU. For tests:
# GNNSCRIPT_EMULATED=1 GNNSCRIPT_LIBRARY=build/emulated/libgnnscript.so pytest tests/cuda
EMULATED := build/emulated
CUDA_SOURCES := $(wildcard src/gnnscript/csrc/cuda/*.cu)
EMULATED_OBJECTS := $(CUDA_SOURCES:src/gnnscript/csrc/cuda/%.cu=$(EMULATED)/%.o)
TORCH_ROOT = $(shell $(NATIVE_PYTHON) -c "import importlib.util as u; \
  print(u.find_spec('torch').submodule_search_locations[0])")
EMULATED_CXX = $(CXX) -std=gnu++17 -O1 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wno-psabi \
  -Wno-unknown-pragmas -Wno-unused-function -DGNNSCRIPT_EMULATED -DGNNSCRIPT_ISA=cuda_kernels \
  -DTORCH_TARGET_VERSION=0x020a000000000000 -Itests/native/emulated -Isrc/gnnscript/csrc \
  -isystem $(TORCH_ROOT)/include

$(EMULATED)/%.o: src/gnnscript/csrc/cuda/%.cu $(shell find src/gnnscript/csrc tests/native/emulated -name '*.h' -o -name '*.cuh')
	@mkdir -p $(EMULATED)
	$(EMULATED_CXX) -x c++ -c $< -o $@

$(EMULATED)/libgnnscript.so: $(EMULATED_OBJECTS) src/gnnscript/csrc/library.cpp
	$(EMULATED_CXX) -shared src/gnnscript/csrc/library.cpp src/gnnscript/csrc/edge_program/*.cpp \
	  src/gnnscript/csrc/cpu/plans.cpp src/gnnscript/csrc/cpu/parallel.cpp $(EMULATED_OBJECTS) -L$(TORCH_ROOT)/lib -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10 -o $@

emulate: $(EMULATED)/libgnnscript.so

test: lint native $(if $(filter Linux,$(shell uname -s)),server)
	GNNSCRIPT_COMPLETE=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

clean:
	rm -f src/gnnscript/*.so src/gnnscript/*.dylib
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
