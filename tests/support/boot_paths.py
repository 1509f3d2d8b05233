"""Rows of the table of boot paths, by name or by turn."""

from __future__ import annotations

from collections.abc import Sequence

from catalyst_pxeboot.lab.paths import PATHS, BootPath
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.text import nearest


def find_paths(words: Sequence[str], paths: Sequence[BootPath] = PATHS) -> tuple[BootPath, ...]:
    """Return the paths that `words` name, by number or by name, in the table's order.

    Raises `PxebootError` for a word that names none.
    """
    known = {str(path.number) for path in paths} | {path.name for path in paths}
    for word in words:
        if word not in known:
            raise PxebootError(
                f"no path of the table is {word!r}{nearest(word, known)}",
                hint="the paths are " + ", ".join(f"{path.number} {path.name}" for path in paths),
            )
    return tuple(path for path in paths if {str(path.number), path.name} & set(words))


def rotate_paths(paths: Sequence[BootPath], run: int, parts: int = 3) -> tuple[BootPath, ...]:
    """Return the paths of run number `run`: every one has had its turn after `parts` runs."""
    return tuple(paths[run % parts :: parts])
