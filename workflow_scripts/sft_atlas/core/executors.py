"""Snakemake's executors on clusters, where the environment is in a folder whose name a shell would take apart."""

import shlex
import sys
from collections.abc import Iterator


def quote_python() -> None:
    """Have every executor quote the path of Python; Snakemake 9.27.1 writes it into shell scripts as it is, with spaces and brackets."""
    if shlex.quote(sys.executable) == sys.executable:
        return
    from snakemake_interface_executor_plugins.executors.real import RealExecutor

    for executor in _below(RealExecutor):
        if "get_python_executable" in vars(executor) and not hasattr(executor.get_python_executable, "quotes"):
            executor.get_python_executable = _quoted(executor.get_python_executable)


def _below(kind: type) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def _quoted(path):
    def quoted(self) -> str:
        return shlex.quote(path(self))

    quoted.quotes = True
    return quoted
