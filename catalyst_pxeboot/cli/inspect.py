"""catalyst-pxeboot inspect: what is in a live image or a netboot tree."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from catalyst_pxeboot.cli.console import Console


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "inspect",
        help="say what is in an ISO, a livecd-stage2 folder or a netboot tree",
        description="Say what is in an ISO or a livecd-stage2 folder, read from the files"
        " themselves, or what a netboot tree offers and what each way to its live root asks of a"
        " client.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "tree", type=Path, metavar="WHAT", help="ISO, livecd-stage2 folder or netboot tree"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Tell what is in it."""
    from catalyst_pxeboot.build import report as describe
    from catalyst_pxeboot.build.stream import find_stream_tools
    from catalyst_pxeboot.model.manifest import MANIFEST
    from catalyst_pxeboot.source.image import read_source
    from catalyst_pxeboot.tree.manifest import read_manifest

    if os.path.lexists(arguments.tree / MANIFEST):  # False, too, for what may not be looked at
        raw, manifest = read_manifest(arguments.tree)
        lines = list(describe.tree_lines(arguments.tree, manifest))
        console.result({"tree": str(arguments.tree), "manifest": json.loads(raw)})
    else:
        source = read_source(arguments.tree)
        tools = find_stream_tools(source, [])
        lines = list(describe.source_lines(source, tools))
        console.result({"source": describe.source_data(source, tools)})
    for line in lines:
        console.line(line)
