# The tasks of a developer; CI runs the same. `make help` lists them.
#
# PYTHON: the interpreter that the environment .venv is made with, python3 by default.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VERSIONS := 3.10 3.11 3.12 3.13
PYTEST := $(BIN)/python -m pytest
# The tests wait more than they compute: one process more than there are cores.
PARALLEL := -n $(shell expr $$(nproc) + 1) --dist worksteal
# What every interpreter runs: no test of it needs minutes.
QUICK_TESTS := tests/unit tests/format tests/e2e/test_smoke.py \
  tests/contract/test_s3_origins.py::TestCephByObstore \
  tests/contract/test_s3_origins.py::TestCephByS3fs
BENCHMARKS := $(filter-out %/common.py,$(sort $(wildcard benchmarks/*.py)))

.DEFAULT_GOAL := help
.PHONY: help demo test test-docker test-interpreters stress check lint types imports bench docs
.PHONY: protos clean clean-results ceph

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/.trainer ## Forebay at work: origin, daemon, two epochs of a loader, a detector
	@deploy/ceph/install.sh || true
	@PYTHONPATH=tests $(BIN)/python -m deploy.demo

test: $(VENV)/.plugs ceph ## all tests but those of `make stress`, and the quick ones on each Python found
	$(PYTEST) -m "not stress and not gpu and not docker" $(PARALLEL)
	@$(MAKE) --no-print-directory test-interpreters

test-docker: $(VENV)/.installed ## the image, docker compose, containers as clients; as root
	@deploy/dev/docker.sh
	$(PYTEST) -m docker -o faulthandler_timeout=480 --summary .pytest_results/docker.json tests/docker

test-interpreters: $(VENV)/.installed ## the quick tests on every other Python found
	@main=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	deploy/dev/pythons.sh $(filter-out $$main,$(VERSIONS)) | while read -r version python; do \
	  [ "$$version" != "$$main" ] || continue; \
	  $(MAKE) --no-print-directory .venv-$$version/.installed PYTHON_OF_VERSION="$$python" && \
	  echo "Python $$version:" && \
	  .venv-$$version/bin/python -m pytest -q -m "not stress and not gpu and not docker" $(PARALLEL) \
	    --summary .pytest_results/python$$version.json $(QUICK_TESTS) || exit 1; \
	done

stress: $(VENV)/.plugs ceph ## the full counts; results are kept in benchmarks/results
	$(PYTEST) -m "stress and not gpu" -o faulthandler_timeout=1800 --summary=benchmarks/results/stress.json

check: lint types imports test ## everything that a change must pass

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/mypy

imports: $(VENV)/.installed
	$(BIN)/lint-imports

bench: $(VENV)/.plugs ceph ## every number that the documentation claims
	@for script in $(BENCHMARKS); do echo "$$script:"; $(BIN)/python $$script || exit 1; done

docs: $(VENV)/.installed ## docs/configuration.md, from the definitions
	$(BIN)/python -m deploy.dev.configuration_docs docs/configuration.md

protos: .venv-protos/.installed ## the stubs, from cache.proto
	.venv-protos/bin/python -m grpc_tools.protoc -I protos \
	  --plugin=protoc-gen-mypy_grpc=.venv-protos/bin/protoc-gen-mypy_grpc \
	  --python_out=protos --pyi_out=protos --grpc_python_out=protos --mypy_grpc_out=protos \
	  protos/forebay_protos/cache.proto

ceph:
	@deploy/ceph/install.sh || true
	@deploy/dev/tools.sh

clean-results:
	@rm -rf .pytest_results

clean: clean-results ## remove environments, caches and results of tests
	rm -rf .venv .venv-* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	rm -rf .hypothesis .demo build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt
	@deploy/dev/venv.sh "$(PYTHON)" $(VENV) -e '.[daemon,dev]' -c constraints.txt
	@touch $@

$(VENV)/.trainer: $(VENV)/.installed
	@deploy/dev/venv.sh "$(PYTHON)" $(VENV) -e '.[trainer]' -c constraints.txt
	@$(BIN)/python -c "import mmengine" # yapf writes its cache, which several at once get wrong
	@touch $@

$(VENV)/.plugs: $(VENV)/.trainer deploy/dev/plugs.sh
	@deploy/dev/plugs.sh $(BIN)/python
	@touch $@

.venv-3.%/.installed: pyproject.toml constraints.txt
	@deploy/dev/venv.sh "$(PYTHON_OF_VERSION)" $(@D) -e '.[daemon,test]' -c constraints.txt
	@touch $@

# Old tools on purpose: their stubs run with every grpcio from 1.62 and protobuf from 4.25 on, and
# protobuf checks no version of stubs as old as these. There are no wheels for Python 3.13.
.venv-protos/.installed: Makefile
	@python=$$(deploy/dev/pythons.sh 3.12 3.11 3.10 | head -n 1 | cut -d ' ' -f 2); \
	deploy/dev/venv.sh "$${python:-$(PYTHON)}" .venv-protos \
	  grpcio-tools==1.62.3 grpcio==1.62.3 protobuf==4.25.9 mypy-protobuf==3.6.0 'setuptools<81'
	@touch $@
