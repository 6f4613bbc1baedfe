# make env    install what envs/locks/sft-atlas.txt lists into .venv, checked by hashes; PYTHON=python3.12, INSTALLER=pip, TORCH=cpu: envs/install.py
# make lock   after a change of dependencies in pyproject.toml: write envs/locks/, envs/*.yaml and pixi.toml; UPGRADE=NAME or UPGRADE=ALL
# make demo   run the default study, config/demo.yaml, with progress and time left; print what was found and where to look
# make plan   forecast the cost of a study: make plan STUDY=paper
# make watch  how far a running study is, in a second terminal and as a page: make watch STUDY=paper
# make doctor what this machine has and lacks for a study, with remedies: make doctor STUDY=paper; works before make env too
# make pin    write the commits of a study's hub entries into its file (asks the model hub)
# make grade  compare how answers in a file are graded here and by a person: make grade ANSWERS=answers.jsonl
# make test   lint, unit tests, dry runs and end-to-end runs of a small study
# make test-fast   for daily work: lint, the unit tests that are not marked slow, one dry run
# make benchmarks-smoke   the paper's benchmarks on SmolLM2-135M, 20 items each, real data (config/benchmarks-smoke.yaml)
# make clean  delete results and environment

STUDY ?= demo
BIN := .venv/bin
SNAKEMAKE := $(BIN)/snakemake

.PHONY: env lock demo plan watch doctor pin grade test test-fast test-unit-fast lint clean benchmarks-smoke

# PYTHON if it is given, else the first supported Python; where there is none, python3 gets the message that says what is needed.
env:
	@chosen="$(or $(PYTHON),python3)"; for python in $(if $(PYTHON),,.venv/bin/python python3 python3.13 python3.12 python3.11); do \
		"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && chosen="$$python" && break; \
	done; "$$chosen" envs/install.py $(if $(INSTALLER),--with $(INSTALLER)) $(if $(TORCH),--torch $(TORCH))

lock: env
	$(BIN)/python envs/lock.py $(if $(UPGRADE),--upgrade $(UPGRADE))

demo: env
	@$(BIN)/python workflow_scripts/run.py release_lock
	@$(BIN)/python workflow_scripts/run.py run_study $(STUDY)

plan: env
	@test -f config/$(STUDY).yaml || { echo "there is no config/$(STUDY).yaml; here are:" $(patsubst config/%.yaml,%,$(wildcard config/*.yaml)); exit 1; }
	@$(SNAKEMAKE) plan --quiet all --configfile config/$(STUDY).yaml

watch: env
	@$(BIN)/python workflow_scripts/run.py watch $(STUDY)

doctor:
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,$(or $(PYTHON),python3)) workflow_scripts/run.py doctor --file config/$(STUDY).yaml

pin: env
	$(BIN)/python workflow_scripts/run.py pin_revisions config/$(STUDY).yaml

grade: env
	@$(if $(ANSWERS),,$(error name a file: make grade ANSWERS=answers.jsonl))
	@$(BIN)/python workflow_scripts/run.py grade $(if $(SANDBOX),--sandbox "$(SANDBOX)") "$(ANSWERS)"

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
