# From wildcards to files and settings: the input and parameter functions of the other files. They only look things up.
#
# requires  `study` and the path patterns of common.smk


def entry_json(kind):
    """A function from wildcards to the JSON of a model's, dataset's or benchmark's entry, without its cosmetic keys."""
    cosmetic = {"label", "group", "family", "language", "chance", "parameters"}

    def entry(wildcards):
        part = getattr(wider.file, f"{kind}s")[wildcards[kind]]
        return part.model_dump_json(exclude=cosmetic, exclude_defaults=True)

    return entry


def local_path(kind):
    """A function from wildcards to the local file or folder that an entry names; nothing where it names none."""

    def path(wildcards):
        entry = getattr(wider.file, f"{kind}s")[wildcards[kind]]
        return wider.path(entry.path) if entry.path else []

    return path


def path_argument(wildcards, input):
    """The command-line argument for `local_path`."""
    return f"--path {shlex.quote(str(input[0]))}" if input else ""


def settings_json(wildcards):
    """Resolved hyper-parameters of a run; as a parameter of the rule they decide whether the run is trained again."""
    return study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.model_dump_json()


def template_json(wildcards):
    """The prompt template, the same for every job."""
    return study.file.template.model_dump_json()


def run_data(wildcards):
    """The training set of a run."""
    rows = study.runs[wildcards.model, wildcards.dataset, wildcards.recipe].settings.rows
    return f"{RESULTS}/data/{wildcards.dataset}/{rows}/train.parquet"


def weights_of(wildcards):
    """The folder of a checkpoint's weights; nothing for a base model."""
    return [] if wildcards.dataset == studies.BASE else f"{CHECKPOINT.format(**wildcards)}/weights"


def checkpoint_files(name, checkpoints):
    """One file of each of the checkpoints."""
    return [f"{RESULTS}/runs/{c.model}/{c.dataset}/{c.recipe}/epoch-{c.epoch}/{name}" for c in checkpoints]


def code(*modules):
    """Sources of a cheap job as its inputs, so that editing them makes it again."""
    return [f"workflow_scripts/{module}" for module in modules]


# ---------------------------------------------------------------- data.smk


def training_sets():
    """Every sample of every source dataset that is trained on; merged sets hold nothing else."""
    return [f"{RESULTS}/data/{name}/{rows}/train.parquet" for name in study.sources for rows in study.rows_of(name)]


def benchmark_items():
    """The items of every benchmark in a suite."""
    return [f"{BENCHMARK.format(benchmark=name)}/test.jsonl" for suite in study.file.suites.values() for name in suite.benchmarks]


def members_data(wildcards):
    """The samples that a merged set consists of."""
    return [f"{RESULTS}/data/{name}/{wildcards.rows}/train.parquet" for name in study.members(wildcards.dataset)]


def pretraining_json(wildcards):
    """How a tiny base model is pre-trained."""
    return study.file.models[wildcards.model].pretrain.model_dump_json()


# ---------------------------------------------------------------- train.smk


def stays(recipe, epoch):
    """Whether an epoch's weights stay: adapters do, full weights as `keep_weights` says."""
    entry = study.file.recipes[recipe]
    kept = {"none": [], "final": [entry.kept_epochs[-1]], "all": entry.kept_epochs}[study.file.keep_weights]
    return entry.method == "lora" or epoch in kept


def weights_output(recipe, epoch):
    """Where an epoch's weights go; those that do not stay die once everything derived from them exists."""
    folder = directory(f"{RUN}/epoch-{epoch}/weights")
    return folder if stays(recipe, epoch) else temp(folder)


def trained_files(checkpoints):
    """What shows that runs were trained: the weights that stay, and what is measured on those that do not."""
    tuned = [c for c in checkpoints if c.dataset != studies.BASE]
    return [*checkpoint_files("weights", [c for c in tuned if stays(c.recipe, c.epoch)]), *passing_files(tuned)]


def passing_files(checkpoints):
    """Every file made from weights that do not stay. A target that asks for some of them only would lose the weights for the others."""
    passing = [c for c in checkpoints if c.dataset != studies.BASE and not stays(c.recipe, c.epoch)]
    return measured_files(passing)


def measured_files(checkpoints):
    """Every file made from the weights of tuned checkpoints."""
    scores = [path for suite in study.file.suites for path in checkpoint_files(f"scores/{suite}.parquet", checkpoints)]
    likelihoods = checkpoint_files("likelihood.parquet", [c for c in checkpoints if c.represented])
    return [*scores, *checkpoint_files("layers.parquet", checkpoints), *likelihoods]


# ---------------------------------------------------------------- blocks.smk, plan.smk


def block_files(block):
    """Every file of the runs of a block."""
    checkpoints = [c for c in study.checkpoints if c.dataset != studies.BASE and block in study.runs[c.model, c.dataset, c.recipe].blocks]
    return list(dict.fromkeys([*trained_files(checkpoints), *measured_files(checkpoints)]))


def plan_json(wildcards):
    """The study as written, with the assumptions of its plan."""
    return study.file.model_dump_json(exclude_defaults=True)


# ---------------------------------------------------------------- measure.smk


def perplexity_rows(wildcards):
    """Rows of the sample that perplexity is measured on: the smallest in use."""
    return wider.smallest_rows(wildcards.dataset)


def perplexity_data(wildcards):
    """The sample that perplexity is measured on."""
    return f"{RESULTS}/data/{wildcards.dataset}/{perplexity_rows(wildcards)}/train.parquet"


def representation_settings(wildcards):
    """How hidden states and likelihoods are measured, as arguments."""
    how = study.file.measure.representation
    return (
        f"--items-per-benchmark {how.items_per_benchmark} --seed {study.file.seed}"
        f" --template {shlex.quote(template_json(wildcards))} --estimators {','.join(how.estimators)}"
        f" --batch-size {how.batch_size} --max-length {how.max_length}"
    )
