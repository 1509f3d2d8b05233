"""The menu's entries as data, for the manifest and `--json`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.menu import Limits, LiveEntry, MemtestEntry
from catalyst_pxeboot.plan.tree import Plan


def menu_entries(plan: Plan) -> list[dict[str, Any]]:
    """Return the manifest's menu entries."""
    loaders = plan.spec.loaders
    return [
        *(_live(entry, loaders) for entry in plan.menu.live),
        *(_memtest(entry, loaders) for entry in plan.menu.memtests),
    ]


def _live(entry: LiveEntry, loaders: Sequence[Loader]) -> dict[str, Any]:
    able = [loader for loader in loaders if loader in entry.offered]
    return {
        "name": entry.name,
        "title": entry.title,
        "kernel": entry.kernel,
        "kernels": {str(loader): LOADERS[loader].kernel(entry) for loader in able},
        "arguments": " ".join(entry.arguments),
        "root": str(entry.root),
        "checked": entry.root_check is not None,
        "initrds": {str(loader): list(LOADERS[loader].initrds(entry)) for loader in able},
        "limits": {str(loader): _limits(entry.limits[loader]) for loader in able},
    }


def _limits(limits: Limits) -> dict[str, Any]:
    return {
        "wire_bytes": limits.wire,
        "memory_bytes": {str(firmware): count for firmware, count in limits.memory.items()},
        "warnings": list(limits.warnings),
    }


def _memtest(entry: MemtestEntry, loaders: Sequence[Loader]) -> dict[str, Any]:
    able = [str(loader) for loader in loaders if entry.firmware in LOADERS[loader].memtest_firmware]
    return {
        "name": entry.name,
        "title": entry.title,
        "kernel": entry.path,
        "kernels": dict.fromkeys(able, entry.path),
        "arguments": "",
        "firmware": str(entry.firmware),
        "initrds": {loader: [] for loader in able},
    }
