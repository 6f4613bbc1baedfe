# make env    install the pins of requirements.txt into .venv
# make demo   run the default study, config/demo.yaml; print its findings and where the figures are
# make plan   forecast the cost of a study: make plan STUDY=paper
# make pin    write the commits of a study's hub entries into its file (asks the model hub)
# make grade  compare how answers in a file are graded here and by a person: make grade ANSWERS=answers.jsonl
# make test   lint, unit tests, dry runs and end-to-end runs of a small study
# make test-fast   for daily work: lint, the unit tests that are not marked slow, one dry run
# make benchmarks-smoke   the paper's benchmarks on SmolLM2-135M, 20 items each, real data (config/benchmarks-smoke.yaml)
# make clean  delete results and environment

PYTHON ?= $(shell command -v python3.11 || command -v python3)
STUDY ?= demo
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake

.PHONY: env demo plan pin grade test test-fast test-unit-fast lint clean benchmarks-smoke

env: .venv/.installed

# --no-deps: requirements.txt lists every package except pycosat, which reasoning-gym requires, no task here uses, and needs a C compiler.
.venv/.installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("sft-atlas needs CPython 3.11; this is " + sys.version.split()[0] + ". Choose one: make env PYTHON=/path/to/python3.11") if sys.version_info[:2] != (3, 11) else 0'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.txt
	@touch $@

demo: env
	@$(BIN)/python workflow_scripts/run.py release_lock
	$(SNAKEMAKE) --configfile config/$(STUDY).yaml
	@$(BIN)/python workflow_scripts/run.py show_findings results/$(STUDY)

plan: env
	@test -f config/$(STUDY).yaml || { echo "there is no config/$(STUDY).yaml; here are:" $(patsubst config/%.yaml,%,$(wildcard config/*.yaml)); exit 1; }
	@$(SNAKEMAKE) plan --quiet all --configfile config/$(STUDY).yaml

pin: env
	$(BIN)/python workflow_scripts/run.py pin_revisions config/$(STUDY).yaml

grade: env
	@$(if $(ANSWERS),,$(error name a file: make grade ANSWERS=answers.jsonl))
	@$(BIN)/python workflow_scripts/run.py grade "$(ANSWERS)"

SMOKE := results/benchmarks-smoke/runs/smollm2-135m/base/base/epoch-0/scores
benchmarks-smoke: env
	$(SNAKEMAKE) $(SMOKE)/zero-shot.parquet $(SMOKE)/few-shot.parquet $(SMOKE)/likelihood.parquet $(SMOKE)/judged.parquet --configfile config/benchmarks-smoke.yaml
	@$(BIN)/python workflow_scripts/run.py show_scores $(SMOKE)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(SNAKEMAKE) --lint

test: env lint
	tests/run.sh $(BIN)/python

test-fast: env
	@$(MAKE) --no-print-directory --jobs=2 --output-sync test-unit-fast lint
	$(SNAKEMAKE) -n --quiet rules

test-unit-fast: env
	$(BIN)/python -m pytest tests/unit -m "not slow"

clean:
	rm -rf .venv .snakemake results/*
