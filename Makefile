# Everything runs in .venv, which is made on first use and renewed when pyproject.toml changes.
# Needs Python >= 3.11, make and git. Choose another Python with `make PYTHON=/path/to/python ...`.

.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON  ?= python3
WORKERS ?= 3
BENCH_ARGS ?= --save

VENV := .venv
PY   := $(VENV)/bin/python
PIP  := $(PY) -m pip --disable-pip-version-check --no-input

.PHONY: help run test lint format bench clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name does; do \
		printf '  make %-8s %s\n' "$$name" "$$does"; \
	done

run: $(VENV)/.installed-run ## install, then the demo fleet on port 8000
	@$(PY) -m dalsegno demo --serve

test: lint ## install, lint, then every test that this machine can run (WORKERS=3, PYTEST_ARGS=)
	@echo "==> pytest"
	@$(PY) -m pytest -n $(WORKERS) $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## ruff, mypy and the import contracts
	@echo "==> ruff check"
	@$(PY) -m ruff check .
	@echo "==> ruff format --check"
	@$(PY) -m ruff format --check .
	@echo "==> mypy"
	@$(PY) -m mypy
	@echo "==> lint-imports"
	@$(VENV)/bin/lint-imports --no-logo

format: $(VENV)/.installed-dev ## let ruff mend what it can
	@$(PY) -m ruff check --fix --quiet . || true
	@$(PY) -m ruff format .

bench: $(VENV)/.installed-dev ## measure, write docs/figures (BENCH_ARGS=turns: a part, write nothing; 'peers --save': the others)
	@test -f bench/__main__.py || { echo "there is no bench/__main__.py yet: nothing to measure" >&2; exit 1; }
	@$(PY) -m bench $(BENCH_ARGS)

clean: ## remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .bench dist

# ---------------------------------------------------------------------------- the virtual environment

$(VENV)/.installed-run: pyproject.toml | $(PY)
	@echo "==> installing dalsegno with [client,fast] into $(VENV)"
	@$(PIP) install --quiet --editable '.[client,fast]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(PY)
	@echo "==> installing dalsegno with every driver and [dev] into $(VENV) (a minute or two the first time)"
	@$(PIP) install --quiet --no-compile --editable '.[client,fast,postgres,redis,s3,agent,openai-agents,langgraph,dev]'
	@touch $@ $(VENV)/.installed-run

# A candidate is run, not looked up: version managers put names on PATH that do not start.
$(PY):
	@found=; for candidate in "$(PYTHON)" python3.14 python3.13 python3.12 python3.11; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			found=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Dalsegno needs Python >= 3.11: '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1 | head -n 1), and python3.11 to" \
			"python3.14 do not run here. Install one, or say 'make PYTHON=/path/to/python ...'." >&2; \
		exit 1; \
	fi; \
	echo "==> creating $(VENV) with $$("$$found" -V) ($$found)"; \
	"$$found" -m venv --clear $(VENV) || { \
		rm -rf $(VENV); \
		echo "'$$found -m venv' failed; on Debian and Ubuntu it needs the package python3-venv." >&2; \
		exit 1; \
	}
