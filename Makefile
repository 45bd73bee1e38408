# Every target creates the virtual environment it needs. PYTHON picks the interpreter.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BROWSER := $(VENV)/.browser
RAY := $(VENV)/.ray
CLIENTS := $(VENV)/.clients
DOCS := $(VENV)/.docs
TUTORIALS := $(VENV)/.tutorials
VENV_VLLM ?= .venv-vllm
BIN_VLLM := $(VENV_VLLM)/bin
INSTALLED_VLLM := $(VENV_VLLM)/.installed

LLMS ?= smollm2 gemma3
DATA ?= data

.PHONY: demo bench bench-llms llms test test-slow test-browser test-vllm test-ray test-clients lint docs docs-serve docs-version terrarium clean help tutorials

help:  ## Show the targets.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'torch==2.13.0'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(BROWSER): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	@touch $@

$(CLIENTS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[clients]'
	@touch $@

$(RAY): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	@touch $@

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(TUTORIALS): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[tutorials]'
	$(BIN)/python -m ipykernel install --sys-prefix --name python3
	@touch $@

$(INSTALLED_VLLM): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VENV_VLLM)
	$(BIN_VLLM)/python -m pip install --quiet --constraint constraints-vllm.txt 'torch==2.13.0'
	$(BIN_VLLM)/python -m pip install --quiet --no-deps --requirement constraints-vllm.txt
	$(BIN_VLLM)/python -m pip install --quiet --no-deps --editable .
	@touch $@

demo: $(INSTALLED)  ## Fit steerers on the bundled model and show what they do.
	$(BIN)/odesteer demo

bench: $(INSTALLED)  ## Compare all methods on the bundled model, three seeds.
	$(BIN)/odesteer bench terrarium

bench-llms: $(INSTALLED)  ## Compare all methods at equal cost on both real models; DATA=FOLDER of data sets.
	BIN=$(BIN) scripts/bench_llms.sh $(DATA)

llms: $(INSTALLED)  ## Get SmolLM2-135M-Instruct and Gemma 3 270M as folders in .llms (330 MB).
	$(BIN)/python -m scripts.llms $(LLMS)

# Files in the order of their names: by default those with the fewest tests come last, the longest ones.
# One thread for each process: more would wait for those of the others.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadscope --no-loadscope-reorder

test: $(INSTALLED)  ## Run the tests but the slow ones, in a process for each core (eight at most).
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)  ## Run the slow tests: killed runs, full disks, load, lm-eval, compilation, whole suites.
	$(PYTEST) -m slow

test-browser: $(BROWSER)  ## Use the playground in Chromium, which root installs if need be.
	scripts/chromium.sh
	$(BIN)/python -m pytest tests/browser

test-vllm: $(INSTALLED_VLLM)  ## Steer vLLM, which gets an environment of its own (3.11 or newer).
	NUMBA_CACHE_DIR=$(abspath $(VENV_VLLM))/numba $(BIN_VLLM)/python -m pytest tests/vllm

test-clients: $(CLIENTS)  ## Use the server by LangChain's, LiteLLM's and OpenAI's clients and by lm-eval.
	$(BIN)/python -m pytest tests/serving/test_clients.py

test-ray: $(RAY)  ## Capture, fit, write and compare with two workers on Ray.
	$(BIN)/python -m pytest tests/cluster

lint: $(INSTALLED)  ## Check style and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)  ## Build the documentation site into site/, offline.
	$(BIN)/python scripts/write_reference.py
	$(BIN)/python scripts/run_tutorials.py --notebooks
	$(BIN)/zensical build --strict --clean

docs-version: $(DOCS)  ## Build the site of this version into public/MAJOR.MINOR, beside those of other versions.
	$(BIN)/python scripts/write_reference.py
	$(BIN)/python scripts/run_tutorials.py --notebooks
	$(BIN)/python scripts/version_docs.py public

docs-serve: $(DOCS)  ## Show the documentation site, built anew at every change.
	$(BIN)/python scripts/write_reference.py
	$(BIN)/python scripts/run_tutorials.py --notebooks
	$(BIN)/zensical serve

tutorials: $(TUTORIALS) llms  ## Run the tutorials and write what they print into their pages.
	$(BIN)/python scripts/run_tutorials.py

terrarium: $(INSTALLED)  ## Train the bundled model again, about 40 minutes on two cores.
	$(BIN)/python scripts/train_terrarium.py

clean:  ## Remove the virtual environment and caches.
	rm -rf $(VENV) $(VENV_VLLM) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
