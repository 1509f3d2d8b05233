"""Options for what a machine gets beside the stock image, the same for each command."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("for the machines that boot")
    group.add_argument(
        "--ssh-key", type=Path, metavar="FILE",
        help="public keys that may log in as root (pxeboot/ssh_keys)",
    )  # fmt: skip
    group.add_argument(
        "--files", type=Path, metavar="FOLDER",
        help="files that are laid over the live root (pxeboot/files)",
    )  # fmt: skip
    group.add_argument(
        "--script", type=Path, metavar="FILE",
        help="a script that runs once when the network is up (pxeboot/script)",
    )  # fmt: skip
    group.add_argument(
        "--hostname", metavar="NAME", help="the live system's host name (pxeboot/hostname)"
    )
    group.add_argument("--keymap", metavar="NAME", help="its keyboard layout (pxeboot/keymap)")


def spec_keys(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the spec keys that the options given mean."""
    places = {
        "pxeboot/ssh_keys": arguments.ssh_key,
        "pxeboot/files": arguments.files,
        "pxeboot/script": arguments.script,
    }
    words = {"pxeboot/hostname": arguments.hostname, "pxeboot/keymap": arguments.keymap}
    given: dict[str, object] = {key: [str(path.absolute())] for key, path in places.items() if path}
    return {**given, **{key: word for key, word in words.items() if word is not None}}
