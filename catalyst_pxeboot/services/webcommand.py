"""The command that runs our own web server, for `serve` and for the lab.

`catalyst_pxeboot.services.web` is a program of its own and takes aiohttp; nothing of this process
imports it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

INSTALL = "catalyst-pxeboot[serve]"


@dataclass(frozen=True, slots=True)
class WebCommand:
    """A command line, its environment, and the text of the settings file that it names."""

    argv: tuple[str, ...]
    settings: str
    env: Mapping[str, str] = field(default_factory=dict)


def has_web_server() -> bool:
    """Say whether what our own web server takes is installed."""
    return importlib.util.find_spec("aiohttp") is not None


def web_command(
    file: Path,
    *,
    root: Path,
    follow: bool,
    address: str,
    port: int,
    log: Path,
    ready: Path,
    probe: str = "",
    account: tuple[int, int] | None = None,
) -> WebCommand:
    """Plan a web server for the folder `root`; its settings are to be written into `file`.

    `follow` follows the symbolic links of `root`. Port 0 takes a free one: the server writes its
    process id and its port into `ready` when it listens. `account` are the user and group ids that
    it takes, after it has answered itself the file `probe` of `root`.
    """
    uid, gid = account or (None, None)
    settings = {
        "root": str(root), "follow": follow, "address": address, "port": port, "log": str(log),
        "ready": str(ready), "probe": probe, "uid": uid, "gid": gid,
    }  # fmt: skip
    return WebCommand(
        # It imports what we import, and nothing from the current folder (-P).
        (sys.executable, "-P", "-m", "catalyst_pxeboot.services.web", str(file)),
        json.dumps(settings, indent=1) + "\n",
        {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
