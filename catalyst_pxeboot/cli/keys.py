"""catalyst-pxeboot keys: your own keys for Secure Boot."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.util.errors import needs_extra


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "keys",
        help="make your own keys for Secure Boot",
        description="Make a new folder with keys of your own for Secure Boot: PK, KEK and db, each"
        " with its certificate, and the files that enrol them in a machine's firmware. db.key signs"
        " unified kernel images (pxeboot/secureboot_key).",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a folder that is not there")
    parser.add_argument(
        "--name",
        default="netboot",
        metavar="NAME",
        help="the certificates' name (netboot)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Make the keys."""
    with needs_extra("sign", "keys"):
        from catalyst_pxeboot.formats.signing.keyset import write_keys

    files = write_keys(arguments.folder, arguments.name)
    console.result({"folder": str(arguments.folder), "files": list(files)})
    folder = arguments.folder
    for line in (
        f"Made {folder}. Keep PK.key, KEK.key and db.key to yourself; the other files are public.",
        f"Sign with them: pxeboot/secureboot_cert: {folder.absolute() / 'db.crt'} and"
        f" pxeboot/secureboot_key: {folder.absolute() / 'db.key'}",
        "Enrol them in each machine, after its firmware's keys were deleted (setup mode): from a"
        f" running Linux by {folder / 'enrol.sh'}, or by the firmware's own menu from db.auth,"
        " KEK.auth and PK.auth, PK last (some want the .cer or .esl files).",
    ):
        console.step(line)
