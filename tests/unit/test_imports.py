"""The import contract: rooms import in one direction, and no modules import each other in a circle.

The floor plan is in CONTRIBUTING. A room that needs something of a later room gets it from a place that both may import.
"""

import graphlib

import pytest

from helpers.imports import MODULES, imported
from sft_atlas.core.provenance import ROOT

# Each room and the rooms that it may import.
CONTRACT = {
    "core": (),
    "study": ("core",),
    "models": ("core", "study"),
    "data": ("core", "study", "models"),
    "train": ("core", "study", "models"),
    "evaluate": ("core", "study", "models"),
    "measure": ("core", "study", "models"),
    "tables": ("core", "study", "models"),
    "stats": ("core",),
    "analyse": ("core", "study", "tables", "stats"),
    "report": ("core", "study", "tables", "stats", "analyse"),
    "published": ("core", "study", "stats", "analyse", "report"),
    "atlas": ("core", "study", "tables", "stats", "analyse", "report", "published"),
    "plan": ("core", "study", "models", "tables", "stats", "analyse"),
    "reproduce": ("core", "study", "tables", "stats", "analyse", "report", "published", "plan"),
    "machine": ("core", "study", "evaluate", "report"),
    "cluster": ("core", "study", "models", "plan"),
}


def room(module):
    return module.split(".")[1]


def test_every_room_has_a_line_in_the_contract():
    assert {room(module) for module in MODULES if module != "sft_atlas"} == set(CONTRACT)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_room_imports_only_rooms_below_it(name):
    broken = [
        f"{MODULES[module].relative_to(ROOT)} imports {other}; {name} may import {', '.join(CONTRACT[name]) or 'no other room'}"
        for module in MODULES
        if module != "sft_atlas" and room(module) == name
        for other in sorted(imported(module))
        if other != "sft_atlas" and room(other) not in (name, *CONTRACT[name])
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_the_contract_has_no_circle():
    list(graphlib.TopologicalSorter(CONTRACT).static_order())


def test_no_modules_import_each_other_in_a_circle():
    try:
        list(graphlib.TopologicalSorter({module: imported(module) - {module} for module in MODULES}).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")
