"""The package's structure: one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.support.paths import ROOT

PACKAGE = ROOT / "catalyst_pxeboot"
#: What every command or every export format has.
SHARED = {"add_parser", "main", "render", "run"}


def test_no_two_classes_or_functions_have_one_name() -> None:
    places: defaultdict[str, list[Path]] = defaultdict(list)
    for module in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(module.read_text()).body:
            if isinstance(node, ast.ClassDef) or (
                isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
            ):
                places[node.name].append(module.relative_to(PACKAGE))
    assert len(places) > 500
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert twice.keys() == SHARED, twice


def test_the_packages_top_has_no_modules() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "__main__.py", "py.typed"}
