# make help lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
KLAB := $(CURDIR)/$(BIN)/klab
PYTEST := $(BIN)/python -m pytest
SLOWEST := --durations=15 --durations-min=5
# Two at a time: they compute, and wait for little. Python keeps what it has compiled, even where the environment
# says otherwise: or each worker rewrites all assertions, and each klab that the tests start compiles its modules.
QUICK_TESTS := PYTHONDONTWRITEBYTECODE= $(PYTEST) -n 2 --dist worksteal tests/unit tests/golden \
	tests/fuzz/test_registry.py tests/fuzz/test_found.py
# The tests of one file, or of one class, follow each other in one process.
FILE_BY_FILE := -n 2 --dist loadscope

.PHONY: help install install-test lab first-lab check fix test test-unit test-fuzz test-contract test-integration test-e2e test-workstation test-kvm test-life test-ha test-lessons test-matrix test-upgrade test-cloud-image fuzz soak bench golden docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: ## Install what is missing: packages, Python environment; about a second when nothing is
	@tools/setup

install-test: ## Install what the tests need as well
	@tools/setup --test

lab: install ## From a fresh machine to three Ready nodes
	@# All sudo comes first: none asks for a password after minutes of building.
	@tools/as-member $(MAKE) first-lab

first-lab:
	$(KLAB) box build
	$(KLAB) create 1m2w
	$(KLAB) kubectl 1m2w -- get nodes -o wide
	@printf '\nNext:\n  %s\n  %s\n  %s\n' \
		'.venv/bin/klab ssh 1m2w cp1                a shell on the control plane' \
		'.venv/bin/klab kubectl 1m2w -- get pods -A   kubectl, pointed at the lab' \
		'.venv/bin/klab destroy 1m2w                remove the lab completely'

check: ## Lint, types, layers, generated docs, unit and golden tests: a minute or two
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(QUICK_TESTS) -q

fix: ## Fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: install-test ## Unit, contract, integration and end to end with a real cluster
	@KLAB_TEST_EXAMPLES=2500 $(MAKE) check
	@$(MAKE) test-fuzz
	@# From source: some tests start the etcd and the API server that were compiled for the box.
	$(KLAB) box build --source source
	$(PYTEST) -v $(SLOWEST) $(FILE_BY_FILE) tests/workstation/test_contract.py tests/contract
	$(PYTEST) -v $(SLOWEST) $(FILE_BY_FILE) tests/integration
	$(PYTEST) -v $(SLOWEST) tests/e2e

test-unit: ## Unit and golden tests
	$(QUICK_TESTS)

test-fuzz: ## Fuzz every parser of foreign input, some 120 inputs each, the same every time: a minute or two
	$(PYTEST) -n 2 --dist worksteal -q tests/fuzz

test-contract: ## The Machines contract: the fake, and real libvirt with tiny VMs
	$(PYTEST) $(FILE_BY_FILE) tests/contract

test-integration: ## The wheel, and the files klab renders, checked by the programs that read them
	$(PYTEST) $(FILE_BY_FILE) tests/integration

test-e2e: ## A real lab; builds the box if there is none
	$(PYTEST) tests/e2e

test-workstation: install-test ## On Debian 13 and 12 with systemd, as an ordinary user: the life of a cluster; hours when emulated
	$(KLAB) box build
	KLAB_TEST_SUITES="$${KLAB_TEST_SUITES:-trixie bookworm}" $(PYTEST) -v -s $(SLOWEST) tests/workstation

test-kvm: install-test ## Two plain nodes on real KVM under AppArmor, in an emulated machine; half an hour
	$(KLAB) box build
	$(PYTEST) -v -s $(SLOWEST) tests/kvm

test-life: install ## Life-cycle and failure tests: broken nodes, lost power, growth, expired certificates; long when emulated
	$(KLAB) box build
	$(PYTEST) -v $(SLOWEST) tests/life

test-ha: install ## Three control planes: power loss, quorum, reboot, replacement; over an hour when emulated
	$(KLAB) box build
	$(PYTEST) -v $(SLOWEST) tests/ha

test-lessons: install ## Lessons that need add-ons, on a real lab: LoadBalancer, Ingress, autoscaling, etcd; half an hour when emulated
	$(KLAB) box build
	$(PYTEST) -v -s $(SLOWEST) tests/lessons

test-upgrade: install ## klab upgrade of real labs at work, killed at each step, by hand, and taken back; hours when emulated
	$(KLAB) box build
	$(PYTEST) -v -s $(SLOWEST) tests/upgrade

fuzz: ## Fuzz with many more inputs: KLAB_FUZZ_EXAMPLES=3000, KLAB_FUZZ_SEED repeats a run; a quarter of an hour
	KLAB_FUZZ_EXAMPLES=$${KLAB_FUZZ_EXAMPLES:-3000} $(PYTEST) -n 2 --dist worksteal -q tests/fuzz

test-cloud-image: install-test ## Two plain nodes on an image made of Debian's packages alone: their life; a quarter of an hour when emulated
	$(PYTEST) -v -s $(SLOWEST) tests/cloud_images

test-matrix: install ## Each version of Kubernetes until Ready, with the nginx lesson; VERSION="1.36 1.37" or SCENARIO=intro-1.16-flannel chooses; hours when emulated
	KLAB_TEST_VERSIONS="$(VERSION)" KLAB_TEST_SCENARIOS="$(SCENARIO)" $(PYTEST) -v -s $(SLOWEST) tests/matrix

soak: install ## Fifty snapshots and restores of a lab at work, and rarer cases; hours when emulated
	$(KLAB) box build
	$(PYTEST) -v tests/soak

bench: install ## Measure klab against the classroom recipe
	bench/run

golden: ## Rewrite the golden files; review the difference
	KLAB_GOLDEN=1 $(PYTEST) -q tests/golden tests/integration/test_vagrantfile.py

docs: ## Regenerate docs/reference
	$(BIN)/python docs/generate.py

lock: ## Regenerate requirements.lock
	$(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
		--extra dev --extra libvirt --output-file requirements.lock pyproject.toml

clean: ## Remove what building and testing left in this folder; labs and boxes are kept
	rm -rf .venv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
