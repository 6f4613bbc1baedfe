# The jobs and files of config/paper.yaml and nothing else: the measure for the dry run of the real workflow (benchmarks/dry_run.py, which
# checks that the counts still agree). Plain wildcards, no configuration, no settings, no functions but the expansion of names.

MODELS = [f"model{i}" for i in range(12)]
SETS = [f"set{i}" for i in range(10)]
ROOT = "results/bare"
LOGS = f"{ROOT}/logs"
EDITED = ""  # the recipe whose settings are others than those that its runs were made with
LAST, ALL = [10], list(range(1, 11))
BLOCKS = [  # models, sets, recipes, kept epochs
    (MODELS, SETS, ["full", "lora"], LAST),
    (MODELS, ["all"], ["merged-full", "merged-lora"], ALL),
    (MODELS[:1], [f"without-{name}" for name in SETS], ["full", "lora"], LAST),
    (MODELS[:3], SETS, ["constant-1k"], ALL),
    (MODELS[:3], SETS[:9], ["constant-20k"], ALL),
]
KEPT = {"full": LAST, "lora": LAST, "merged-full": ALL, "merged-lora": ALL, "constant-1k": ALL, "constant-20k": ALL}
BASES = [f"{model}/base/base/epoch-0" for model in MODELS]
TUNED = [
    f"{model}/{name}/{recipe}/epoch-{epoch}"
    for models, sets, recipes, epochs in BLOCKS
    for model in models
    for name in sets
    for recipe in recipes
    for epoch in epochs
]
REPRESENTED = BASES + [place for place in TUNED if "/without-" not in place]
SAMPLES_20K = [f"{ROOT}/data/{name}/20000/train.parquet" for name in SETS[:9]]
SAMPLES_1K = [f"{ROOT}/data/{name}/1000/train.parquet" for name in SETS]

BENCHMARKS = [f"{ROOT}/benchmarks/bench{i}/test.jsonl" for i in range(19)]
ITEMS = {"zero": BENCHMARKS[:10], "few": BENCHMARKS[10:17], "judged": BENCHMARKS[17:]}
SHOTS = {"zero": [], "few": [path.replace("test", "shots") for path in ITEMS["few"]], "judged": []}
TASK_FILES = [f"config/benchmarks/{name}.yaml" for name in glob_wildcards("config/benchmarks/{name}.yaml").name]
TASKS = {"zero": TASK_FILES[:11], "few": TASK_FILES[:8], "judged": TASK_FILES[:2]}  # as many, with what they include; whichever
CODE = [f"workflow_scripts/sft_atlas/{name}.py" for name in glob_wildcards("workflow_scripts/sft_atlas/{name,[a-z_]+}.py").name]

SCORES = expand(f"{ROOT}/runs/{{place}}/scores/{{suite}}.parquet", place=BASES + TUNED, suite=ITEMS)
SAMPLES = expand(f"{ROOT}/runs/{{place}}/samples/{{suite}}.parquet", place=BASES + TUNED, suite=ITEMS)
RECORDS = [f"{ROOT}/runs/{run}/train.json" for run in dict.fromkeys(place.rsplit("/", 1)[0] for place in TUNED)]
TABLES = {
    "runs": RECORDS,
    "history": [path.replace("train.json", "history.parquet") for path in RECORDS],
    "scores": SCORES,
    "gains": SAMPLES,
    "perplexity": expand(f"{ROOT}/perplexity/{{model}}/{{dataset}}.parquet", model=MODELS, dataset=SETS),
    "properties": [path.replace("train", "properties") for path in SAMPLES_1K],
    "layers": expand(f"{ROOT}/runs/{{place}}/layers.parquet", place=TUNED),
    "dimension": expand(f"{ROOT}/runs/{{place}}/dimension.parquet", place=REPRESENTED),
    "likelihood": expand(f"{ROOT}/runs/{{place}}/likelihood.parquet", place=REPRESENTED),
}
ANALYSED = ["predictors", "layer_curves", "layer_peaks", "map_shares", "map_effects", "map_spread"]
CHECKED = ["overlap", "contamination", "clean_scores", "similarity"]
FIGURES = [f"figure{i}" for i in range(16)]
TABLE = f"{ROOT}/tables/{{table}}.parquet"
CHECKPOINT = f"{ROOT}/runs/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}"
JUST_TUNED = "set[0-9]+|all|without-set[0-9]+"


wildcard_constraints:
    model="model[0-9]+",
    dataset=f"{JUST_TUNED}|base",
    recipe="[a-z0-9-]+",
    epoch="[0-9]+",
    rows="[0-9]+",
    table="|".join(TABLES),


rule all:
    input:
        SCORES,
        expand(TABLE, table=[*TABLES, *ANALYSED, *CHECKED]),
        expand(f"{ROOT}/figures/{{figure}}.{{ending}}", figure=FIGURES, ending=("pdf", "png")),
        f"{ROOT}/findings.md",


rule fetch_model:
    output:
        f"{ROOT}/models/{{model}}/model.json",
    log:
        f"{LOGS}/fetch_model/{{model}}.log",
    shell:
        "touch {output}"


rule fetch_encoder:
    output:
        f"{ROOT}/encoder/model.json",
    log:
        f"{LOGS}/fetch_encoder.log",
    shell:
        "touch {output}"


rule fetch_dataset:
    output:
        f"{ROOT}/data/{{dataset}}/source.parquet",
    log:
        f"{LOGS}/fetch_dataset/{{dataset}}.log",
    shell:
        "touch {output}"


rule fetch_benchmark:
    output:
        f"{ROOT}/benchmarks/{{benchmark}}/test.jsonl",
    log:
        f"{LOGS}/fetch_benchmark/{{benchmark}}.log",
    shell:
        "touch {output}"


rule fetch_shots:
    input:
        f"{ROOT}/benchmarks/{{benchmark}}/test.jsonl",
    output:
        f"{ROOT}/benchmarks/{{benchmark}}/shots.jsonl",
    log:
        f"{LOGS}/fetch_shots/{{benchmark}}.log",
    shell:
        "touch {output}"


rule prepare_dataset:
    input:
        f"{ROOT}/data/{{dataset}}/source.parquet",
    output:
        f"{ROOT}/data/{{dataset}}/{{rows}}/train.parquet",
    log:
        f"{LOGS}/prepare_dataset/{{dataset}}/{{rows}}.log",
    wildcard_constraints:
        dataset="set[0-9]+",
    shell:
        "touch {output}"


rule merge_all:
    input:
        SAMPLES_1K,
    output:
        f"{ROOT}/data/all/1000/train.parquet",
    log:
        f"{LOGS}/merge_datasets/all.log",
    shell:
        "touch {output}"


for number in range(len(SETS)):

    rule:
        name:
            f"merge_without_{number}"
        input:
            SAMPLES_1K[:number] + SAMPLES_1K[number + 1 :],
        output:
            f"{ROOT}/data/without-set{number}/1000/train.parquet",
        log:
            f"{LOGS}/merge_datasets/{number}.log",
        shell:
            "touch {output}"


rule check_overlap:
    input:
        SAMPLES_1K + SAMPLES_20K,
        BENCHMARKS,
    output:
        f"{ROOT}/tables/overlap.parquet",
    log:
        f"{LOGS}/check_overlap.log",
    shell:
        "touch {output}"


rule measure_contamination:
    input:
        SAMPLES_1K + SAMPLES_20K,
        BENCHMARKS,
        CODE[:2],
    output:
        f"{ROOT}/tables/contamination.parquet",
        f"{ROOT}/tables/contaminated_items.parquet",
    log:
        f"{LOGS}/measure_contamination.log",
    shell:
        "touch {output}"


for recipe, epochs in KEPT.items():

    rule:
        name:
            f"train_{recipe}"
        input:
            f"{ROOT}/models/{{model}}/model.json",
            f"{ROOT}/data/{{dataset}}/{20000 if '20k' in recipe else 1000}/train.parquet",
            f"{ROOT}/tables/overlap.parquet",
        output:
            f"{ROOT}/runs/{{model}}/{{dataset}}/{recipe}/train.json",
            f"{ROOT}/runs/{{model}}/{{dataset}}/{recipe}/history.parquet",
            f"{ROOT}/runs/{{model}}/{{dataset}}/{recipe}/preflight.txt",
            [directory(f"{ROOT}/runs/{{model}}/{{dataset}}/{recipe}/epoch-{epoch}/weights") for epoch in epochs],
        log:
            f"{LOGS}/train/{{model}}/{{dataset}}/{recipe}.log",
        params:
            "new" if recipe == EDITED else "old",
        shell:
            "train {params} {output}"


for suite in ITEMS:

    rule:
        name:
            f"prepare_{suite}"
        input:
            TASKS[suite],
            ITEMS[suite],
            SHOTS[suite],
        output:
            f"{ROOT}/suites/{suite}.json",
        log:
            f"{LOGS}/prepare_suite/{suite}.log",
        shell:
            "touch {output}"


for suite in ("zero", "few"):

    rule:
        name:
            f"evaluate_base_{suite}"
        input:
            f"{ROOT}/models/{{model}}/model.json",
            f"{ROOT}/suites/{suite}.json",
        output:
            f"{ROOT}/runs/{{model}}/base/base/epoch-0/scores/{suite}.parquet",
            f"{ROOT}/runs/{{model}}/base/base/epoch-0/samples/{suite}.parquet",
        log:
            f"{LOGS}/evaluate/{{model}}/{suite}.log",
        shell:
            "touch {output}"

    rule:
        name:
            f"evaluate_{suite}"
        input:
            f"{ROOT}/models/{{model}}/model.json",
            f"{CHECKPOINT}/weights",
            f"{ROOT}/suites/{suite}.json",
        output:
            f"{CHECKPOINT}/scores/{suite}.parquet",
            f"{CHECKPOINT}/samples/{suite}.parquet",
        log:
            f"{LOGS}/evaluate/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/{suite}.log",
        wildcard_constraints:
            dataset=JUST_TUNED,
        shell:
            "touch {output}"


rule generate_base:
    input:
        f"{ROOT}/models/{{model}}/model.json",
        f"{ROOT}/suites/judged.json",
    output:
        f"{ROOT}/runs/{{model}}/base/base/epoch-0/answers/judged.parquet",
    log:
        f"{LOGS}/generate/{{model}}/judged.log",
    shell:
        "touch {output}"


rule generate:
    input:
        f"{ROOT}/models/{{model}}/model.json",
        f"{CHECKPOINT}/weights",
        f"{ROOT}/suites/judged.json",
    output:
        f"{CHECKPOINT}/answers/judged.parquet",
    log:
        f"{LOGS}/generate/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/judged.log",
    wildcard_constraints:
        dataset=JUST_TUNED,
    shell:
        "touch {output}"


rule judge:
    input:
        f"{CHECKPOINT}/answers/judged.parquet",
        f"{ROOT}/suites/judged.json",
    output:
        f"{CHECKPOINT}/scores/judged.parquet",
        f"{CHECKPOINT}/samples/judged.parquet",
        f"{CHECKPOINT}/judgements/judged.parquet",
    log:
        f"{LOGS}/judge/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}/judged.log",
    shell:
        "touch {output}"


rule measure_layers:
    input:
        f"{ROOT}/models/{{model}}/model.json",
        f"{CHECKPOINT}/weights",
    output:
        f"{CHECKPOINT}/layers.parquet",
    log:
        f"{LOGS}/measure_layers/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}.log",
    shell:
        "touch {output}"


rule represent_base:
    input:
        f"{ROOT}/models/{{model}}/model.json",
        BENCHMARKS[:11],
    output:
        f"{ROOT}/runs/{{model}}/base/base/epoch-0/dimension.parquet",
        f"{ROOT}/runs/{{model}}/base/base/epoch-0/likelihood.parquet",
    log:
        f"{LOGS}/represent/{{model}}.log",
    shell:
        "touch {output}"


rule represent:
    input:
        f"{ROOT}/models/{{model}}/model.json",
        f"{CHECKPOINT}/weights",
        BENCHMARKS[:11],
    output:
        f"{CHECKPOINT}/dimension.parquet",
        f"{CHECKPOINT}/likelihood.parquet",
    log:
        f"{LOGS}/represent/{{model}}/{{dataset}}/{{recipe}}/epoch-{{epoch}}.log",
    wildcard_constraints:
        dataset=JUST_TUNED,
    shell:
        "touch {output}"


rule measure_perplexity:
    input:
        f"{ROOT}/models/{{model}}/model.json",
        f"{ROOT}/data/{{dataset}}/1000/train.parquet",
    output:
        f"{ROOT}/perplexity/{{model}}/{{dataset}}.parquet",
    log:
        f"{LOGS}/measure_perplexity/{{model}}/{{dataset}}.log",
    shell:
        "touch {output}"


rule measure_dataset:
    input:
        f"{ROOT}/data/{{dataset}}/{{rows}}/train.parquet",
        CODE[:2],
    output:
        f"{ROOT}/data/{{dataset}}/{{rows}}/properties.parquet",
    log:
        f"{LOGS}/measure_dataset/{{dataset}}/{{rows}}.log",
    shell:
        "touch {output}"


rule measure_similarity:
    input:
        f"{ROOT}/encoder/model.json",
        SAMPLES_1K,
        BENCHMARKS,
        CODE[:3],
    output:
        f"{ROOT}/tables/similarity.parquet",
    log:
        f"{LOGS}/measure_similarity.log",
    shell:
        "touch {output}"


rule resolve_study:
    output:
        f"{ROOT}/study.json",
    log:
        f"{LOGS}/resolve_study.log",
    shell:
        "touch {output}"


for table, files in TABLES.items():

    rule:
        name:
            f"collect_{table}"
        input:
            files,
            f"{ROOT}/study.json",
            CODE[:5],
        output:
            f"{ROOT}/tables/{table}.parquet",
        log:
            f"{LOGS}/collect/{table}.log",
        shell:
            "touch {output}"


rule score_clean_items:
    input:
        SAMPLES,
        f"{ROOT}/study.json",
        f"{ROOT}/tables/contaminated_items.parquet",
        CODE[:3],
    output:
        f"{ROOT}/tables/clean_scores.parquet",
    log:
        f"{LOGS}/score_clean_items.log",
    shell:
        "touch {output}"


rule analyse_predictors:
    input:
        expand(TABLE, table=("gains", "perplexity", "properties", "similarity")),
        f"{ROOT}/study.json",
        CODE[:6],
    output:
        f"{ROOT}/tables/predictors.parquet",
    log:
        f"{LOGS}/analyse_predictors.log",
    shell:
        "touch {output}"


rule analyse_layers:
    input:
        expand(TABLE, table=("gains", "layers")),
        f"{ROOT}/study.json",
        CODE[:6],
    output:
        expand(TABLE, table=("layer_curves", "layer_peaks")),
    log:
        f"{LOGS}/analyse_layers.log",
    shell:
        "touch {output}"


rule analyse_map:
    input:
        f"{ROOT}/tables/likelihood.parquet",
        f"{ROOT}/study.json",
        CODE[:6],
    output:
        expand(TABLE, table=("map_shares", "map_effects", "map_spread")),
    log:
        f"{LOGS}/analyse_map.log",
    shell:
        "touch {output}"


rule plot:
    input:
        f"{ROOT}/tables/gains.parquet",
        f"{ROOT}/study.json",
        CODE[:11],
    output:
        f"{ROOT}/figures/{{figure}}.pdf",
        f"{ROOT}/figures/{{figure}}.png",
    log:
        f"{LOGS}/plot/{{figure}}.log",
    shell:
        "touch {output}"


rule summarise:
    input:
        expand(TABLE, table=["runs", "scores", "gains", "perplexity", "layers", "dimension", "likelihood", *ANALYSED]),
        f"{ROOT}/study.json",
        CODE[:13],
    output:
        f"{ROOT}/findings.md",
    log:
        f"{LOGS}/summarise.log",
    shell:
        "touch {output}"


onstart:  # as in the Snakefile: without it `--touch` takes many minutes
    workflow.scheduler.job_rate_limiter = None
