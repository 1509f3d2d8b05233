"""Every test below this folder boots a client, which takes 15 to 90 s under emulation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIMEOUT = 600  # seconds, for a machine that is busy with other work


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.boot)
            item.add_marker(pytest.mark.timeout(TIMEOUT))
            if item.get_closest_marker("genkernel") and "GENKERNEL_SRC" not in os.environ:
                item.add_marker(pytest.mark.skip(reason="GENKERNEL_SRC names no checkout"))
