# Everything runs in a virtual environment of its own, made on first use and again when the dependencies change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test test-slow lint clean

demo: $(DEMO)/planet/truth.csv
	$(BIN)/python jobs/build_index.py $(DEMO)/planet/references $(DEMO)/index --encoder lite
	$(BIN)/python jobs/geotag_archive.py $(DEMO)/planet/archive $(DEMO)/geotags --recipe lite --index $(DEMO)/index
	@echo "Report: $(abspath $(DEMO))/geotags/report.html"

$(DEMO)/planet/truth.csv: $(VENV)/ready
	$(BIN)/python jobs/make_toy_planet.py $(DEMO)/planet --references 1000 --photos 300

test: $(VENV)/ready
	$(BIN)/python -m pytest

# With killed drivers, nodes that come and go, machines with disks of their own: as long again.
test-slow: $(VENV)/ready
	$(BIN)/python -m pytest --slow

lint: $(VENV)/ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "geoloc needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

clean:
	rm -rf $(VENV) $(DEMO)
