"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mirror import NEW, OLD, Opened, tree


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
