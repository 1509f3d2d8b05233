"""Where the package's own data lies: templates, example specs, tables.

In a checkout `templates/` and `specs/` stand beside the package; a wheel carries them inside it.
"""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from catalyst_pxeboot.util.errors import TemplateError

_PACKAGE = Path(__file__).resolve().parents[1]


def templates_folder() -> Path:
    """Find the folder of the shipped Jinja2 templates."""
    return _shipped("templates")


def check_templates(folder: Path) -> None:
    """Raise `TemplateError` unless a user's `folder` of templates is one.

    Without it the shipped ones would be used, and no one would know.
    """
    try:
        fits = folder.is_dir()
    except OSError:  # it may not be looked at
        fits = False
    if not fits:
        raise TemplateError(
            f"{folder}: is not a folder of templates",
            hint="name a folder, or take the shipped templates",
        )


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
