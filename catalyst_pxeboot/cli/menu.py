"""catalyst-pxeboot menu: one menu over many trees."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalyst_pxeboot.cli.console import Console


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "menu",
        help="write one menu over all netboot trees below a folder",
        description="Write menu.ipxe, grub.cfg, pxelinux.cfg/default, index.html and"
        " releases.json over all netboot trees below ROOT, newest first. Trees that did not change"
        " are not read again.",
        allow_abbrev=False,
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="folder with trees below it")
    parser.add_argument("--templates", type=Path, metavar="FOLDER", help="your own templates")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Write the menus, or say what would be written."""
    from catalyst_pxeboot.releases.write import write_menu

    written = write_menu(
        arguments.root,
        templates=arguments.templates,
        report=console.step,
        dry_run=arguments.dry_run,
    )
    console.result(
        {
            "root": str(arguments.root),
            "trees": written.trees,
            "read": written.read,
            "written": list(written.written),
        }
    )
    for line in written.warnings:
        console.warning(line)
