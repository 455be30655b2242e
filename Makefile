# Everything that people and CI run. `make setup` needs python3 and a package index, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
RUN := $(BIN)/python
FAST := not wire and not browser and not chaos

.PHONY: setup demo run check test fix wire-setup wire browser chaos bench clean

$(STAMP): pyproject.toml
	@echo "Creating the environment in $(VENV) (about a minute) ..."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --progress-bar off --quiet -e '.[all]' --group dev
	@touch $(STAMP)

setup: $(STAMP)

demo: $(STAMP)
	@$(RUN) manage.py llm_demo

run: $(STAMP)
	$(RUN) manage.py migrate --verbosity 0
	$(RUN) manage.py runserver

test: $(STAMP)
	$(RUN) -m pytest -m "$(FAST)" -n auto

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy llm_wrapper example
	$(BIN)/lint-imports
	$(RUN) manage.py check
	$(RUN) manage.py makemigrations --check --dry-run
	$(RUN) -m build --outdir build/dist .

fix: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wire-setup: $(STAMP)
	$(BIN)/python -m pip install --progress-bar off --quiet --group wire
	npm install --prefix tests/wire --no-package-lock --no-audit --no-fund

wire: wire-setup
	$(RUN) -m pytest -m wire

browser: $(STAMP)
	$(BIN)/python -m pip install --progress-bar off --quiet --group browser
	$(RUN) -m pytest -m browser

chaos: $(STAMP)
	$(RUN) -m tests.chaos

bench: $(STAMP)
	$(BIN)/python -m pip install --progress-bar off --quiet --group bench
	$(RUN) -m benchmarks $(BENCH)

clean:
	rm -rf $(VENV) build dist *.egg-info demo.sqlite3* .cache
