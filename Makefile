# Targets for people and for CI alike; `make` lists them. A Python of your choice: make install PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
COMPILE := $(VENV)/bin/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-package tidegate --annotation-style line --custom-compile-command 'make lock'

# A stamp stands for an installed lock file, so that nothing is installed twice.
RUN := $(VENV)/stamp-run
DEV := $(VENV)/stamp-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run test check bench docs screenshots openapi contract image manifests dist lock clean FORCE

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

install: $(RUN) ## make .venv with what the service needs

run: $(RUN) ## start the bridge with an embedded broker, for trying out
	$(VENV)/bin/tidegate dev

test: $(DEV) ## run the tests, with real brokers and a real browser
	@.ci/require mosquitto=mosquitto mosquitto_pub=mosquitto-clients chromium=chromium curl=curl \
		promtool=prometheus nginx=nginx
	$(VENV)/bin/python -m pytest

check: $(DEV) ## lint, format, types, import contracts, declared dependencies
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --python-version 3.12 client_sdk/tidegate
	$(VENV)/bin/mypy --python-version 3.13 client_sdk/tidegate
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports
	$(VENV)/bin/deptry .
	cd client_sdk && ../$(VENV)/bin/deptry .

docs: $(DEV) ## make a site of docs/ in build/site; a warning is an error
	$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env -c docs/site -d build/doctrees . build/site
	@echo "The site is in build/site. Open its first page in a browser: file://$(CURDIR)/build/site/index.html"

screenshots: $(DEV) ## take the pictures in docs/ anew
	@.ci/require mosquitto=mosquitto chromium=chromium prometheus=prometheus
	$(VENV)/bin/python -m tests.docs.screenshots

bench: $(DEV) ## measure the figures that docs quote
	@.ci/require mosquitto=mosquitto wrk=wrk nginx=nginx \
		/usr/lib/nginx/modules/ngx_nchan_module.so=libnginx-mod-nchan
	$(VENV)/bin/python -m bench

openapi: $(RUN) ## write openapi/ anew from the code
	$(VENV)/bin/tidegate openapi
	$(VENV)/bin/tidegate asyncapi

contract: openapi ## make the contract of this tree the one that later ones may not break (docs/releasing.md)
	mkdir -p openapi/published
	cp openapi/openapi.yaml openapi/asyncapi.yaml openapi/published/
	$(VENV)/bin/python -m app.commands.contract_names > openapi/published/names.yaml

image: ## build the image with docker, podman or buildah; IMAGE= names it, BASE_IMAGE= what it stands on, EXTRAS=otel for traces
	deploy/image/build

manifests: $(DEV) ## write the chart's page and deploy/kubernetes/ anew from the chart
	$(VENV)/bin/python -m deploy

dist: $(DEV) ## build the wheels of both projects and the chart's archive into dist/
	rm -rf dist
	$(PIP) wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir dist ./client_sdk .
	$(VENV)/bin/python -c 'import helm_python; print(helm_python.package("deploy/helm/tidegate", destination="dist"))'

lock: $(DEV) ## pin dependencies anew; UPGRADE=--upgrade takes the newest
	$(COMPILE) $(UPGRADE) pyproject.toml -o requirements.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --extra otel --group dev -c requirements.lock -o requirements-dev.lock
	$(COMPILE) $(UPGRADE) pyproject.toml --extra otel -c requirements-dev.lock -o requirements-otel.lock
	$(COMPILE) $(UPGRADE) --group build -c requirements-dev.lock -o requirements-build.lock
	$(COMPILE) $(UPGRADE) --group sbom -c requirements-dev.lock -o requirements-sbom.lock

clean: ## remove .venv, caches and built files
	rm -rf $(VENV) build dist client_sdk/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A Python that was asked for is compared with that of the environment, which is made anew where they differ.
$(VENV)/pyvenv.cfg: $(if $(filter file,$(origin PYTHON)),,FORCE)
	.ci/create-venv $(PYTHON) $(VENV)

# The two projects are installed as links to this tree, with nothing fetched but what the lock files pin.
$(RUN): $(VENV)/pyvenv.cfg requirements.lock requirements-build.lock pyproject.toml client_sdk/pyproject.toml
	@echo "Fetching what the service needs; it may take a minute …"
	$(PIP) install --quiet --require-hashes -r requirements.lock -r requirements-build.lock
	$(PIP) install --quiet --no-deps --no-build-isolation -e client_sdk -e .
	@touch $@

$(DEV): $(RUN) requirements-dev.lock
	@echo "Fetching what the tests and tools need; it may take a few minutes …"
	$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@touch $@
