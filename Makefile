# Two commands do all the set-up: `make run` (the main job) and `make test`. Both make .venv from the lock file first.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PIPELINE ?= train
PIPELINE_ARGS ?=
BASE ?=
NAME ?=
EXPERIMENTS ?=
EXPERIMENTS_ARGS ?=
# The tiny model's operations are too small to share out: SFT made 5.8k tokens/s with one thread beside other work, with
# two 6.6k alone and 3.3k beside other work. Give a real model its cores: OMP_NUM_THREADS=16 make run ...
export OMP_NUM_THREADS ?= 1
# Threads that spin while they wait slow a small machine down several times over.
export OMP_WAIT_POLICY ?= passive
export GOMP_SPINCOUNT ?= 0
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help images images-list setup run experiments-demo test lint format house docs-check pictures release bench compile manifests lint-chart test-cluster lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

setup: $(VENV)/.ready  ## make the virtual environment from requirements.lock

run: setup  ## run the whole pipeline on this machine: BASE=smollm2 PIPELINE=train PIPELINE_ARGS="--cases FILE --limit 300"
	$(BIN)/clinical-r1 run $(PIPELINE) $(if $(BASE),--config $(BASE)) $(PIPELINE_ARGS)

experiments-demo: setup  ## the experiments on the simulated world: EXPERIMENTS="audit-verifier held-out-site", none = all seven
	$(BIN)/clinical-r1 experiments $(EXPERIMENTS) $(EXPERIMENTS_ARGS)

test: setup  ## run the tests
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

lint: setup  ## formatter, linter and type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs-check: setup  ## every link, path and command of README and docs, tried against what is there
	$(BIN)/python -m tests.docs_check

pictures: setup  ## docs/pictures of a finished run's report and of the chat page; needs Debian's chromium: RUN=runs/latest
	$(BIN)/python -m tests.pictures $(if $(RUN),--run $(RUN))

house: setup  ## modules, lines, circles of imports, longest file: one JSON object
	$(BIN)/python -m tests.house

bench: setup  ## one benchmark; its last line is one JSON object: NAME=synthesis
	@test -f "benchmarks/$(NAME).py" || { echo "error: which one? make bench NAME=<$$(ls benchmarks | sed -n 's/\.py$$//p' | grep -v __init__ | paste -sd'|')>"; exit 2; }
	$(BIN)/python -m benchmarks.$(NAME) $(BENCH_ARGS)

compile: setup  ## compile the pipelines to manifests/pipelines
	$(BIN)/clinical-r1 compile all

manifests: setup  ## render the chart to manifests/rendered, make its README and schema
	PYTHON=$(BIN)/python tests/chart/render.sh

lint-chart: setup  ## helm lint, schemas, the chart's tests; builds helm and kubeconform once (minutes)
	PYTHON=$(BIN)/python tests/chart/render.sh check
	$(BIN)/python -m pytest tests/chart

test-cluster: setup  ## the chart on a real node, root only (docs/operations.md): MODEL=runs/latest/model
	$(BIN)/python -m tests.cluster.build
	$(BIN)/python -m tests.cluster.suite $(if $(MODEL),--model $(MODEL)) $(CLUSTER_ARGS)

UV_LOCK = $(BIN)/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-package clinical-r1 \
  --no-header --no-annotate

lock: setup  ## renew both lock files (ours, the trainer image's) from pyproject.toml
	$(UV_LOCK) --extra dev --output-file requirements.lock pyproject.toml
	$(UV_LOCK) --extra trainer --output-file components/requirements.lock pyproject.toml

release: setup  ## version, commit, tag; dist/ with sdist, wheel, chart, image names, SBOM: VERSION=0.2.0 or DRY_RUN=1
	VERSION=$(VERSION) DRY_RUN=$(DRY_RUN) PYTHON=$(BIN)/python .ci/release

images:  ## build the trainer's and the gateway's image with buildah: IMAGE_REGISTRY=, IMAGE_TAG=, BASE=, IMAGES=gateway
	@components/images.sh build $(IMAGES)

images-list:  ## every image to mirror: IMAGE_REGISTRY=registry.example IMAGE_TAG=0.1.0
	@components/images.sh list

clean:  ## remove the environment (runs/ stays)
	rm -rf $(VENV) build *.egg-info
