"""catalyst-pxeboot export: what other provisioning systems load of a netboot tree."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.util.errors import PxebootError

#: As `exports.formats.Format` has them, which would make --help slow.
FORMATS = ("matchbox", "netboot.xyz", "foreman", "treeinfo", "ipxe-vars")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "export",
        help="write what another provisioning system loads of a netboot tree",
        description="Write what another provisioning system loads of a netboot tree, from its"
        " manifest: matchbox (profiles and a group), netboot.xyz (custom.ipxe), foreman"
        " (provisioning templates), treeinfo (.treeinfo), ipxe-vars (an iPXE script of settings)."
        " A format of one file is printed unless --output is given.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument("--format", required=True, choices=FORMATS, help="for which system")
    parser.add_argument(
        "--base-url", metavar="URL", help="the tree's folder on its web server, as clients see it"
    )
    parser.add_argument("--output", type=Path, metavar="PATH", help="file or folder to write")
    parser.add_argument("--force", action="store_true", help="replace files that differ")
    parser.add_argument("--templates", type=Path, metavar="FOLDER", help="your own templates")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Export the tree to files, or print the one file that there is."""
    from catalyst_pxeboot.export.formats import (
        FOLDERS,
        Format,
        export_tree,
        lies_in_tree,
        write_export,
    )

    form = Format(arguments.format)
    if arguments.output is None and form in FOLDERS:
        raise PxebootError(
            f"--format {form}: is a folder of several files", hint="give --output FOLDER"
        )
    export = export_tree(
        arguments.tree, form, base_url=arguments.base_url, templates=arguments.templates
    )
    for line in export.left_out:
        console.warning(f"left out: {line}")
    if arguments.output is None:
        (file,) = export.files
        text = file.content.decode()
        console.text(text)
        printed = {"path": file.path, "bytes": len(file.content), "text": text}
        console.result({"format": str(form), "files": [printed]})
        return
    if lies_in_tree(arguments.tree, arguments.output):
        console.warning(
            f"{arguments.output}: lies in the tree, whose manifest does not list it, so that"
            " `verify` will name it"
        )
    paths = write_export(export, form, arguments.output, force=arguments.force)
    files = [
        {"path": str(path), "bytes": len(file.content)}
        for path, file in zip(paths, export.files, strict=True)
    ]
    for row in files:
        console.step(f"{row['path']}: {row['bytes']} bytes")
    console.result({"format": str(form), "files": files})
