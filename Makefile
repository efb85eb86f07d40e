# Everything runs in a virtual environment of its own, .venv; only Python >= 3.11 and make have to be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_WAIT_POLICY ?= PASSIVE
test test-hidden: export OMP_NUM_THREADS ?= 1
# empty is unset: where Python may keep no bytecode, each of the tests' many processes compiles the package anew, a second for most
test test-hidden: export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-hidden lint format sanitize fuzz valgrind provider neon neon-count cortex-m wheels wasm haswell clean

demo: $(VENV)/.train  ## train, prune, shrink, export and benchmark on handwritten digits
	$(BIN)/tdcompress run pipelines/digits.toml

SUITE := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: lint  ## format, lint, types, layers, tests
	$(SUITE)

# torch's vector kernels, oneDNN's and the engine's are hidden; onnxruntime's cannot be: see `make haswell`
test-hidden: export ONEDNN_MAX_CPU_ISA := SSE41
test-hidden: export ATEN_CPU_CAPABILITY := default
test-hidden: export TDCOMPRESS_ENGINE_ISA := scalar
test-hidden: $(VENV)/.dev  ## the tests as on a processor without AVX
	$(SUITE)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sanitize: $(VENV)/.dev  ## the engine's tests under AddressSanitizer and UndefinedBehaviorSanitizer
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/sanitize.sh

fuzz: $(VENV)/.dev  ## damaged plan files for the C library, 300 s under both sanitizers (needs gcc)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/fuzz.sh

valgrind: $(VENV)/.dev  ## the C library under valgrind (needs gcc and valgrind)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/valgrind.sh

provider:  ## the plugin of onnxruntime against its header (needs gcc and ONNXRUNTIME_INCLUDE=FOLDER, of onnxruntime 1.23)
	sh tests/engine/provider.sh "$(ONNXRUNTIME_INCLUDE)"

neon: $(VENV)/.dev  ## the engine's NEON build under qemu-user (needs qemu-user and the ziglang wheel)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/neon.sh

neon-count: $(VENV)/.dev  ## NEON instructions of one ResNet-32 inference at 90 % (needs qemu-user, gcc and the ziglang wheel)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/neon_count.sh

cortex-m: $(VENV)/.dev  ## the digits model as C on a Cortex-M4 (needs gcc-arm-none-eabi, libnewlib-arm-none-eabi, qemu-system-arm)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/cortex_m.sh

wheels: $(VENV)/.dev  ## wheels with the compiled engine for each platform, in dist (needs the ziglang wheel, qemu-user and libc6-arm64-cross)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/wheels.sh dist

wasm: $(VENV)/.dev  ## docs/demo/index.html built anew, and tried in headless Chromium (needs Chromium, the ziglang and playwright wheels)
	PYTHON=$(abspath $(BIN)/python) sh tests/engine/wasm.sh

haswell: $(VENV)/.dev  ## an int8 file on an emulated processor without VNNI (needs qemu-user)
	PYTHON=$(abspath $(BIN)/python) sh tests/onnxfile/haswell.sh

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/.train: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tdcompress needs Python 3.11 or newer; set PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing tdcompress with its training part into $(VENV) (a few minutes, several GB: torch)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[train,dev]'
	@touch $@
