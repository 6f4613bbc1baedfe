# Where the published scores are, and the functions that published.smk looks up.
#
# requires  common.smk, lookups.smk

from sft_atlas import published as published_names

PUBLISHED = "results/published"
PUBLISHED_LOGS = f"{PUBLISHED}/logs"


def published_csv():
    """The local file that published_csv names; nothing where it names none. A file that is not there ends the call before any job."""
    if not study.file.published_csv:
        return []
    path = os.path.expanduser(os.path.expandvars(study.file.published_csv))
    if not os.path.isfile(path):
        raise WorkflowError(f"published_csv: there is no file {path} (a relative path starts at the current directory)")
    return path


def published_figures(policy, policies=None):
    """The files of every figure; with `policies`, of each of them."""
    pattern = f"{PUBLISHED}/figures/{policy}/{{figure}}.{{ending}}"
    over = {"policy": policies} if policies else {}
    return expand(pattern, figure=published_names.FIGURES, ending=("pdf", "png"), **over)


PUBLISHED_MODULES = {
    "tidy": ("tidy", "catalogue"),
    "audit": ("audit", "copies", "quantities", "values", "outliers", "wide", "tidy", "catalogue"),
    "analyse": ("analyses", "contrasts", "frames", "audit", "catalogue", "tidy"),
    "plot": ("figures", "panels", "frames", "audit", "wide", "catalogue", "tidy"),
    "claim": ("claims", "changes", "statements", "evidence", "overall", "frames", "catalogue", "tidy"),
}


def published_code(step):
    """Sources of a step: its script, its modules of the published scores, and the shared ones behind analyses and figures."""
    shared = {
        "analyse": [f"{name}.py" for name in ("analyses", "crossed", "effects", "decomposition", "statistics")],
        "plot": [f"plots/{path.name}" for path in sorted(Path("workflow_scripts/sft_atlas/plots").glob("*.py"))],
        "claim": ["analyses.py", "effects.py", "decomposition.py", "statistics.py", "findings.py"],
    }
    modules = [f"published/{name}.py" for name in ("__init__", *PUBLISHED_MODULES[step])]
    more = shared["analyse"] if step == "plot" else []
    return code(f"{step}_published.py", *(f"sft_atlas/{name}" for name in [*modules, *shared.get(step, []), *more]))


def output_folder(wildcards, output):
    """The folder of the outputs."""
    return os.path.dirname(output[0])


def scores_folder(wildcards, input):
    """The folder of the tidy scores; that of the analyses lies below it."""
    return os.path.dirname(input.scores)
