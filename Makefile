# `make serve` and `make test` do all. The first run makes .venv and installs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BROWSER := tests/clients/browser
export PYTHONDONTWRITEBYTECODE := # every start, and every engine process, would compile all modules anew
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: serve demo setup test test-fast bench clean

serve: $(VENV)/ready-to-serve  ## serve at ws://localhost:8080/v1/realtime
	$(BIN)/vivavoce serve $(ARGS)

demo: $(VENV)/ready-to-serve  ## ask a server of its own a spoken question
	$(BIN)/vivavoce demo $(ARGS)

setup: $(VENV)/ready-to-serve  ## only install

test: $(VENV)/ready-to-test $(if $(shell command -v npm),$(BROWSER)/node_modules/.package-lock.json)  ## format, lint, types, tests
	scripts/check

test-fast: $(VENV)/ready-to-test  ## the layers below the wire, in virtual time: under 30 s
	scripts/check fast

bench: $(VENV)/ready-to-test  ## measure; tables here, JSON in out/
	$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) out build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vivavoce needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/ready-to-serve: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "downloads 150 MB of packages and 70 MB of speech models"
	$(PIP) --editable '.[local]'
	$(BIN)/python -m compileall -q src
	$(BIN)/vivavoce models pull || echo "without the models the server uses pocketsphinx, words and energy"
	touch $@

$(VENV)/ready-to-test: $(VENV)/ready-to-serve
	$(PIP) --editable '.[local,dev]'
	touch $@

$(BROWSER)/node_modules/.package-lock.json: $(BROWSER)/package-lock.json  ## npm writes it last
	cd $(BROWSER) && npm ci --ignore-scripts --no-audit --no-fund --silent
	touch $@
