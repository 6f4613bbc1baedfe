"""Parameters of rules that decide no result.

Snakemake repeats a job when the set of its recorded parameters changes. It compares values without their names, so a number is passed with
its option: of `--rows 16 --batch-size 512` nothing could otherwise be told from `--rows 512 --batch-size 16`. It does not record a
parameter that is a function of the job's inputs; :func:`untracked` makes use of that.
"""

from collections.abc import Callable


def untracked(value: object) -> Callable:
    """A parameter that is passed to the job but is no reason to repeat it: a batch size, or a path that follows from the wildcards.

    ``value``: a value, a pattern with wildcards, or a function of the wildcards.
    """

    def parameter(wildcards, input):
        if callable(value):
            return value(wildcards)
        return value.format(**wildcards) if isinstance(value, str) else value

    return parameter
