# `make` or `make help` lists what can be made: each line that a target shares with ##.
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ifndef RUN
RUN := runs/demo-$(shell date +%Y%m%d-%H%M%S)
endif
DEMO_MODEL ?= tiny-qwen2.5-vl
DEMO_SETS := --data stickers/count --data stickers/spatial --max-new-tokens 160

export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help demo test test-quick test-wheel test-engines check docs pictures audit setup lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the locked packages and this one

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "OpenGRIT needs Python 3.11 or newer; set PYTHON=python3.12, for example."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $(READY)

demo: $(READY)  ## train a packaged model, compare it with the base asked plainly and asked to point (no GPU, no network but the package index)
	$(BIN)/opengrit eval --model $(DEMO_MODEL) $(DEMO_SETS) --out $(RUN)/before
	$(BIN)/opengrit eval --model $(DEMO_MODEL) $(DEMO_SETS) --strategy direct --out $(RUN)/plain
	$(BIN)/opengrit train demo --set model=$(DEMO_MODEL) --out $(RUN)/train
	$(BIN)/opengrit eval --model $(RUN)/train $(DEMO_SETS) --out $(RUN)/after
	$(BIN)/opengrit report $(RUN)/plain $(RUN)/before $(RUN)/train $(RUN)/after --out $(RUN)/report.html

# One thread each: tests start servers and second processes beside the model, and threads that wait for each other are slow.
# A file of tests stays on one worker, because its tests share what they set up; tests/conftest.py puts the longest first.
WORKERS ?= 2
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test: $(READY)  ## every test, on WORKERS=2 workers
	$(PYTEST) --durations=8

# vLLM, bitsandbytes, DeepSpeed and the real vocabulary are fetched once (5 GB) and kept in .venv-vllm and .engines.
# No test begins after ENGINE_MINUTES, setting up included; what cannot be had or has no time left is named at the end.
ENGINE_MINUTES ?= 28
test-engines: $(READY)  ## against the real engines, on a CPU: vLLM, bitsandbytes, DeepSpeed, lmms-eval, the real vocabulary
	@ends=$$(($$(date +%s) + 60 * $(ENGINE_MINUTES))); $(BIN)/python scripts/engines.py --ends $$ends && \
	OPENGRIT_TEST_ENGINES=$$ends $(PYTEST) --durations=8 tests/engines

test-quick: $(READY)  ## the tests that train nothing, open no browser and are not slow
	$(PYTEST) -m "not (trains or browser or slow)"

# REVISION=v0.2.0 tests a tag. In another environment with the locked packages, so it fetches what `make setup` fetches.
REVISION ?= HEAD
test-wheel: $(READY)  ## build the wheel of REVISION=HEAD, install it where no checkout is, and run the quick tests against it
	$(BIN)/python scripts/wheel_test.py --revision $(REVISION)

check: $(READY)  ## format, lint, types, spelling, and that what is installed is what is locked
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/typos
	$(BIN)/python scripts/audit.py

# Links and anchors that lead nowhere are errors (strict). `python -m http.server -d site` serves what it writes.
docs: $(READY)  ## write the documentation site into site/, with the reference from the code (no network)
	for page in recipe_keys command_reference http_reference; do $(BIN)/python scripts/$$page.py || exit; done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The demo is trained into runs/pictures once; remove that folder after a change of the packaged models.
pictures: $(READY)  ## take the pictures of README and site anew, from the product itself (some minutes, needs Chromium)
	$(BIN)/python scripts/screenshots.py

# Strict: a package that nobody could be asked about is a failure, and no package without known vulnerabilities.
audit: requirements.lock  ## known vulnerabilities of what is locked (asks pip-audit, with a network)
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip install --quiet --disable-pip-version-check 'pip-audit>=2.9'
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.lock

lock: $(READY)  ## write requirements.lock from what is installed
	@{ echo "# Exact versions of everything the project runs and is tested with (make lock writes this file)."; \
	   echo "# CUDA packages are left out: torch's own metadata pins them where they exist."; \
	   $(BIN)/pip freeze --all --exclude-editable | grep -v -iE '^(nvidia|triton|cuda|pip==|opengrit)'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:  ## remove .venv and the tools' caches
	rm -rf $(VENV) .venv-vllm .engines .audit .pytest_cache .mypy_cache .ruff_cache
