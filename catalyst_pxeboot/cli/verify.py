"""catalyst-pxeboot verify: a netboot tree against its manifest and signatures."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.util.errors import SpecError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "verify",
        help="check a netboot tree against its manifest",
        description="Check every file of a netboot tree, and that its configurations fit it.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument(
        "--keyring", type=Path, metavar="FILE",
        help="OpenPGP public keys: the tree must be signed by one of them",
    )  # fmt: skip
    parser.add_argument(
        "--certificates", type=Path, metavar="FILE",
        help="certificates that iPXE trusts: each file it loads must be signed by one of them",
    )  # fmt: skip
    parser.add_argument(
        "--secureboot-cert", type=Path, metavar="FILE",
        help="a certificate that firmware trusts: each unified kernel image must be signed by it",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Check the tree and report every fault."""
    from catalyst_pxeboot.tree.verify import verify_tree

    verified = verify_tree(
        arguments.tree,
        keyring=arguments.keyring,
        certificates=arguments.certificates,
        secureboot=arguments.secureboot_cert,
    )
    console.result({"tree": str(arguments.tree), "files": verified.files})
    if verified.faults:
        raise SpecError(verified.faults)
    console.step(f"{arguments.tree}: {verified.files} files as its manifest says")
