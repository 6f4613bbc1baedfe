# From wildcards to files and settings, for tables, figures and findings; they only look things up.
#
# requires  `study`, the path patterns of common.smk, `code` of lookups.smk

# ---------------------------------------------------------------- tables.smk


AS_TABLES = resolve(study)


def study_json(wildcards):
    """The study as written, without defaults (a function, because Snakemake would take its braces for wildcards)."""
    return study.file.model_dump_json(exclude_defaults=True, exclude={"plan", "release"})


def table_files(wildcards):
    """The result files behind a table."""
    return [str(source.path) for source in sources(AS_TABLES, wildcards.table, Path(RESULTS))]


# ---------------------------------------------------------------- figures.smk


def figure_tables(wildcards):
    """The tables that a figure reads."""
    return [f"{RESULTS}/tables/{table}.parquet" for table in FIGURES[wildcards.figure]]


SHARED = [
    f"sft_atlas/{module}.py"
    for module in (
        "analyses",
        "effects",
        "decomposition",
        "statistics",
        "mapping",
        "findings",
        "plots/style",
        "crossed",
        "predictors",
        "map_effects",
        "partition",
    )
]


def figure_code(wildcards):
    """The sources of a figure: editing one figure draws that one again."""
    return code("plot.py", f"sft_atlas/plots/{wildcards.figure}.py", *SHARED)


def tables_folder(wildcards, input):
    """The folder of the tables."""
    return os.path.dirname(input.tables[0])
