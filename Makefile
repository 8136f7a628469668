# Every verb does its own set-up. `make` alone lists them.
#
# As root, the verbs that run programs are handed over to an ordinary user, on a copy of this tree: see .ci/ordinary-user.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

BUILD ?= .build
build := $(abspath $(BUILD))
bin := $(build)/venv/bin
build_pgpool := image/build-pgpool --cache $(build)/cache

# Chosen once, when first needed; build-pgpool says on stderr which release it takes, and why.
version = $(eval version := $(or $(PGPOOL_VERSION),$(shell PGPOOL_TARBALL='$(PGPOOL_TARBALL)' $(build_pgpool) --newest 4.6),$(error There is no pgpool to build, see above)))$(version)
series = $(basename $(version))
tarball = $(if $(PGPOOL_TARBALL),--tarball '$(PGPOOL_TARBALL)')
# Beside the usual one, so that both can be kept and compared: pgpool-4.6.1-patches-none.
prefix = $(build)/pgpool-$(version)$(addprefix -patches-,$(notdir $(PGPOOL_PATCHES)))
patches = $(if $(PGPOOL_PATCHES),--patches '$(PGPOOL_PATCHES)')
source = $(build)/pgpool-$(version)-source
catalogue = entrypoint/catalogues/pgpool-$(series).json

# The entrypoint takes an unknown PGPOOL_* variable for a mistake, so ours must not reach it.
unexport PGPOOL_VERSION PGPOOL_TARBALL PGPOOL_PATCHES
# Caches belong with the other things that can be made again.
export MYPY_CACHE_DIR := $(build)/mypy
export RUFF_CACHE_DIR := $(build)/ruff
# The cluster wants a network of its own.
isolated = $(bin)/python tests/isolated.py
patroni = $(build)/patroni/bin
pytest = $(bin)/python -m pytest -o cache_dir=$(build)/pytest $(if $(CI),--durations=10) $(ARGS)

IMAGE ?= pgpool-entrypoint
# Its test has images and containers of its own.
containers = .ci/containers $(build)/containers
tested_image = localhost/pgpool-entrypoint
tested_base = localhost/debian:trixie-slim
build_tested = $(containers) image/build-image --builder buildah --through-host --base $(tested_base) --version $(version) \
	--tarball $(build)/cache/pgpool-$(version).tar.gz --tag $(tested_image):$(1) --jobs 2 $(2) >$(build)/image-$(1).log 2>&1 || \
	{ tail -n 40 $(build)/image-$(1).log; $(call fail,The image could not be built: see above and $(build)/image-$(1).log); }

handed_over := demo demo-failover cluster test lint unit integration image-test image-twice pgpool bench bench-failover
.PHONY: help setup source docs catalogue requirements format image clean $(handed_over)

help:
	@echo "make VERB, where VERB is"
	@awk -F ' *## ' '/^#: / {print "  " substr($$0, 4)}' $(MAKEFILE_LIST)

#: demo            a real PostgreSQL and pgpool on this machine, and a SCRAM login through both (KEEP=1 leaves them running)
#: demo-failover   a switchover, a crash and a cut of a real cluster, as clients of pgpool see them (two minutes)
#: cluster         a Patroni cluster of three nodes to play with, until Ctrl-C (ARGS='--pgpool': with pgpool in front of it)
#: test            everything below: lint, unit, integration, image-test
#: lint            style, types, layers, spelling, shell scripts, generated files
#: unit            the tests that need no server, those of deploy/ among them
#: integration     the tests against a real pgpool, PostgreSQL and Patroni
#: image-test      build the container image and start containers of it; needs buildah and podman, and no registry
#: image-twice     the same, and once more without a cache: the layers have to be the same
#: image           build the container image for use: with docker, buildah or podman (IMAGE=NAME, BASE_IMAGE=NAME@DIGEST)
#: pgpool          build pgpool, and nothing else
#: bench           measure; the report is docs/benchmarks.md (make bench >docs/benchmarks.md; ARGS='--only rotation' for a part)
#: bench-failover  the same of failovers: docs/failover.md; an hour and a half (ARGS=--short: one event of each; --list, --only)
#: docs            generate docs/settings.md
#: requirements    pin what the image installs from the package index: image/*requirements.txt
#: catalogue       generate entrypoint/catalogues/ from pgpool's source
#: format          format the Python code, fix what can be fixed
#: clean           remove everything that was built
#:
#: variables:      PGPOOL_VERSION=4.6.1        which pgpool (default: newest 4.6 that can be had; see image/releases.tsv)
#:                 PGPOOL_TARBALL=FILE         its tarball, where the network cannot reach the origin
#:                 PGPOOL_PATCHES=none         pgpool without image/patches, built beside the other one (or a DIR of other patches)
#:                 ARGS='-k tls -x'            more arguments for pytest, or for what else is run (--help lists them)
#:                 IMAGE=NAME                  what the container image is called (default: pgpool-entrypoint)
#:                 BASE_IMAGE=NAME@DIGEST      what it is based on (default: see Dockerfile)
#:                 BUILD=DIR                   where everything is built (default: .build)

ifeq ($(shell id -u),0)

export PGPOOL_VERSION PGPOOL_TARBALL PGPOOL_PATCHES KEEP ARGS
$(handed_over):
	@.ci/ordinary-user $@

else

demo: setup pgpool
	@$(bin)/python tests/demo.py --pgpool-bin $(prefix)/bin $(if $(KEEP),--keep)

demo-failover: setup pgpool
	@$(isolated) $(bin)/python tests/demo_failover.py --pgpool-bin $(prefix)/bin --patroni-bin $(patroni)

cluster: setup pgpool
	@$(isolated) $(bin)/python tests/cluster.py --pgpool-bin $(prefix)/bin --patroni-bin $(patroni) $(ARGS)

test: lint
	@$(MAKE) pgpool >$(build)/pgpool.log 2>&1 & \
	$(MAKE) unit; wait $$! || { cat $(build)/pgpool.log >&2; exit 1; }
	@$(MAKE) integration
	@$(MAKE) image-test

lint: setup source
	$(bin)/ruff check --quiet
	$(bin)/ruff format --check --quiet
	$(bin)/mypy --no-error-summary
	$(bin)/lint-imports --no-cache >$(build)/lint-imports.log || { cat $(build)/lint-imports.log; exit 1; }
	$(bin)/codespell
	$(bin)/shellcheck $(shell_scripts)
	$(bin)/hadolint --ignore DL3008 Dockerfile # Debian keeps only the newest version of a package: none can be named
	$(bin)/actionlint -shellcheck $(bin)/shellcheck -pyflakes= .github/workflows/*.yml
	$(bin)/zizmor --offline --quiet .github/workflows
	@echo "comparing the generated files with their sources"
	@$(bin)/python image/lock_requirements.py --check || $(call stale,requirements)
	@$(bin)/python -m entrypoint settings --format md | diff -u docs/settings.md - || $(call stale,docs)
	@$(bin)/python -m image.extract_catalogue $(source) --check $(catalogue) || $(if $(other_release),$(differs),$(call stale,catalogue))

unit: setup
	$(pytest) tests/unit tests/deploy

# Those of pgpool's nodes beside all others, each in namespaces of their own: most of the time, tests wait. With ARGS, one
# of the two may find nothing.
integration: setup pgpool
	@rm -f $(build)/integration-*.xml
	@$(call integration_tests,nodes,$(nodes)) >$(build)/nodes.log 2>&1 & \
	others=0; $(call integration_tests,others,tests/integration --ignore=$(nodes)) || others=$$?; \
	nodes=0; wait $$! || nodes=$$?; cat $(build)/nodes.log; \
	case "$$nodes $$others" in "0 0" $(if $(ARGS),| "0 5" | "5 0")) ;; *) exit 1 ;; esac
	@$(if $(CI),for report in $(build)/integration-*.xml; do grep -qE '<testsuite [^>]*skipped="0" tests="[1-9]' "$$report" || $(call fail,CI needs every integration test to run: some were skipped or are expected to fail); done)

image-test: setup pgpool
	@.ci/setup --containers
	@$(containers) image/debian-base $(tested_base) $(build)/cache
	@$(call build_tested,one)
	$(containers) $(pytest) tests/image --image $(tested_image):one

image-twice: image-test
	@$(call build_tested,two,--no-cache)
	$(containers) $(pytest) tests/image_twice --image $(tested_image):one --rebuilt-image $(tested_image):two

pgpool: setup
	@$(build_pgpool) --version $(version) $(tarball) $(patches) --prefix $(prefix)

bench: setup pgpool
	@$(bin)/python tests/bench/run.py --pgpool-bin $(prefix)/bin $(ARGS)

bench-failover: setup pgpool
	@$(isolated) $(bin)/python tests/bench/failover.py --pgpool-bin $(prefix)/bin --patroni-bin $(patroni) $(ARGS)

endif

# As whoever calls it: the image is for them, in their docker or their podman.
image:
	@image/build-image --tag $(IMAGE) --version $(version) $(tarball) $(if $(BASE_IMAGE),--base '$(BASE_IMAGE)') $(ARGS)

requirements: setup
	@$(bin)/python -m pip install --quiet --group lock
	@$(bin)/python image/lock_requirements.py

docs: setup
	$(bin)/python -m entrypoint settings --format md >$(build)/settings.md
	@mkdir -p docs && cp $(build)/settings.md docs/settings.md

catalogue: setup source
	$(bin)/python -m image.extract_catalogue $(source) --output $(catalogue)

format: setup
	$(bin)/ruff format
	$(bin)/ruff check --fix

clean:
	@[ "$$(id -u)" = 0 ] || [ ! -d $(build)/containers ] || $(containers) podman unshare rm -rf $(build)/containers/storage
	rm -rf $(build) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	@[ "$$(id -u)" != 0 ] || .ci/ordinary-user --clean

nodes = tests/integration/nodes
integration_tests = $(isolated) $(pytest) $2 --pgpool-bin $(prefix)/bin --patroni-bin $(patroni) --junit-xml=$(build)/integration-$1.xml

# --- Set-up; quiet when there is nothing to do -------------------------------

setup:
	@.ci/setup $(build)

source: setup
	@[ -d $(source) ] || $(build_pgpool) --version $(version) $(tarball) --source $(source)

shell_scripts = $(shell find . -name '.?*' ! -name .ci -prune -o -type f -exec awk 'FNR == 1 && /^\#!.*sh$$/ {print FILENAME}' {} +)
fail = { echo "$(1)." >&2; exit 1; }
stale = $(call fail,A generated file is not what the code says: run 'make $(1)' and commit the result)
# A catalogue serves a whole series. That another of its releases differs is worth knowing, but no mistake of this tree.
catalogue_release = $(shell sed -n 's/^"generated_from": "pgpool-II-\(.*\)",$$/\1/p' $(catalogue))
other_release = $(filter-out $(version),$(catalogue_release))
differs = echo "lint: note: pgpool $(version) differs from $(catalogue_release), which the catalogue was generated from."
