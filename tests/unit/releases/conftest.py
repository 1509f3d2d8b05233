"""Fixtures of these tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mirror import NEW, OLD, tree


class Opened:
    """Names that Python opens; an audit hook cannot be taken away, so there is one for all."""

    names: list[str] | None = None

    @classmethod
    def note(cls, event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and cls.names is not None:
            cls.names.append(str(arguments[0]))


sys.addaudithook(Opened.note)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """Return a folder with two releases for amd64 and one for arm64."""
    root = tmp_path / "mirror"
    tree(root, f"amd64/{OLD}", "amd64", OLD)
    tree(root, f"amd64/{NEW}", "amd64", NEW)
    tree(root, f"arm64/{NEW}", "arm64", NEW)
    return root


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Return the list of names that are opened from here on."""
    Opened.names = []
    yield Opened.names
    Opened.names = None
