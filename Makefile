# Every target is one line of work; each sets up what it needs. `make demo` and `make test` are the two to know.
PYTHON ?= python3
TORCH ?= --require-hashes -r locks/torch.txt
VENV := .venv
BIN := $(VENV)/bin
ONCE ?=

.PHONY: demo test lint bench coverage curves figures release soak docs outside vm bundle ablations lock system clean

demo: $(VENV)/.demo
	$(BIN)/safehold demo $(if $(ONCE),--once)

# Two runs side by side, one a core, of about the same length.
ASIDE := tests/secure tests/trust tests/govern tests/improve
# A test that failed once is run again and listed as RERUN, with what it said; ten at most.
RERUNS := --reruns 1 --max-suite-reruns 10 --rerun-show-tracebacks -rfER
test: system $(VENV)/.test lint
	@$(BIN)/python -m pytest --durations=12 $(RERUNS) $(ASIDE) >.aside.log 2>&1 & aside=$$!; \
	$(BIN)/python -m pytest --durations=12 $(RERUNS) $(ASIDE:%=--ignore=%); rest=$$?; \
	wait $$aside; other=$$?; cat .aside.log; [ $$rest -eq 0 ] && [ $$other -eq 0 ]

lint: $(VENV)/.test
	$(BIN)/ruff check src tests bench && $(BIN)/ruff format --check src tests bench && $(BIN)/mypy
	$(BIN)/lint-imports && $(BIN)/deptry src
	$(BIN)/python scripts/house --check
	$(BIN)/python scripts/reference --check

bench: system $(VENV)/.test
	$(BIN)/python -m bench

curves: system $(VENV)/.test
	$(BIN)/python -m bench.curves

soak: system $(VENV)/.test
	$(BIN)/python -m pytest tests/soak -m soak --override-ini addopts= --hypothesis-profile soak

# The site, in an environment of its own; without a network once that is there.
docs: $(VENV)/.test build/docs-env/.made
	$(BIN)/python scripts/reference
	build/docs-env/bin/zensical build --clean -f mkdocs.yml
	@echo "open build/site/index.html"

build/docs-env/.made: locks/docs.txt
	$(PYTHON) -m venv build/docs-env
	build/docs-env/bin/python -m pip install --quiet --no-deps --require-hashes -r locks/docs.txt
	touch $@

figures: $(VENV)/.test
	$(BIN)/python -m bench --docs-only

outside: $(VENV)/.test
	./scripts/outside

# Engines that need a kernel or a PID 1 of their own, in QEMU without KVM; as root.
vm: $(VENV)/.test
	./scripts/vm

release: $(VENV)/.test
	./scripts/release

# Lines and branches of what must not fail: trust, the guard's session, sealed weights, each by itself.
COVERED := tests/trust tests/guard tests/api tests/secure/weights tests/secure/change \
	tests/govern/test_standards_log.py $(wildcard tests/cli/test_cli_trust*.py) \
	tests/cli/test_cli_weights.py tests/cli/test_cli_change.py tests/cli/test_cli_key_files.py

coverage: system $(VENV)/.test
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(COVERED)
	$(BIN)/python -m coverage combine -q
	@for room in trust guard/session secure/weights; do \
		$(BIN)/python -m coverage report --include="src/safehold/$$room/*" --fail-under=95 || exit 1; \
	done

bundle: $(VENV)/.test
	./scripts/remake-bundle

ablations: $(VENV)/.test
	./scripts/ablations

lock:
	./scripts/lock

system:
	./scripts/system-packages

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: locks/demo.txt $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r locks/demo.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.test: locks/test.txt locks/torch.txt $(VENV)/.demo
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r locks/test.txt
	$(BIN)/python -m pip install --quiet --no-deps $(TORCH)
	touch $@

clean:
	rm -rf $(VENV) .demo .bench build dist
