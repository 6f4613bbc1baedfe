"""Functions behind the jobs of sft-atlas; one room per stage of the chain; no module imports torch unless it needs it.

``from sft_atlas import load`` reads results: see :mod:`sft_atlas.tables.results`.
"""

from importlib import import_module


def __getattr__(name: str):
    if name == "load":  # by a computed name: an import statement here would make this module a source of every job (core/sources.py)
        return import_module(".tables.results", __name__).load
    raise AttributeError(f"module 'sft_atlas' has no attribute {name!r}")
