"""Where the package's own data lies: templates, example specs, tables.

In a checkout `templates/` and `specs/` stand beside the package; a wheel carries them inside it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent


def templates_folder() -> Path:
    """Find the folder of the shipped Jinja2 templates."""
    return _shipped("templates")


def specs_folder() -> Path:
    """Find the folder of the shipped spec files."""
    return _shipped("specs")


def data_file(name: str) -> Path:
    """Name the package's own data file `name`, such as `arch.toml`."""
    return _PACKAGE / name


@cache
def read_table(name: str) -> dict[str, Any]:
    """Read one of the package's TOML tables. Callers share the result and must not change it."""
    return tomllib.loads(data_file(name).read_text("utf-8"))


def _shipped(name: str) -> Path:
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
