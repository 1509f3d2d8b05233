"""Options for what a machine gets beside the stock image, the same for each command."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalyst_pxeboot.personal.model import Personal


def add_options(parser: argparse.ArgumentParser, *, hosts: bool = False) -> None:
    """Add the options, with `hosts` that for single machines, too."""
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
    if hosts:
        group.add_argument(
            "--hosts", type=Path, metavar="FOLDER",
            help="what single machines get, by MAC address or SMBIOS UUID (pxeboot/hosts)",
        )  # fmt: skip


def spec_keys(arguments: argparse.Namespace) -> dict[str, object]:
    """Return the spec keys that the options given mean."""
    places = {
        "pxeboot/ssh_keys": arguments.ssh_key,
        "pxeboot/files": arguments.files,
        "pxeboot/script": arguments.script,
        "pxeboot/hosts": getattr(arguments, "hosts", None),
    }
    words = {"pxeboot/hostname": arguments.hostname, "pxeboot/keymap": arguments.keymap}
    given: dict[str, object] = {key: [str(path.absolute())] for key, path in places.items() if path}
    return {**given, **{key: word for key, word in words.items() if word is not None}}


def read_given(arguments: argparse.Namespace) -> Personal:
    """Read what the options name. Raises `PxebootError` or `SpecError`."""
    from catalyst_pxeboot.personal.read import read_personal
    from catalyst_pxeboot.spec.personal import parse_personal

    return read_personal(parse_personal(spec_keys(arguments)))


@contextmanager
def tree_with(tree: Path, given: Personal) -> Iterator[Path]:
    """Yield a folder that looks like `tree` with `given` in it, or the tree if that is nothing.

    Raises `PxebootError`, also for a tree with a symbolic link, by which whoever made it could have
    another file of this machine sent to its client.
    """
    from catalyst_pxeboot.tree.manifest import list_tree

    if not given:
        list_tree(tree)
        yield tree
        return
    from catalyst_pxeboot.lab.treemenu import view_tree
    from catalyst_pxeboot.serve.facts import read_served_tree
    from catalyst_pxeboot.serve.personal import plan_additions
    from catalyst_pxeboot.util.files import read_regular
    from catalyst_pxeboot.util.tempdir import scratch_folder

    served = read_served_tree(tree)
    additions = plan_additions(served, given)
    appended = {
        path: read_regular(served.path / path, limit=served.files[path]) + more
        for path, more in additions.appended.items()
    }
    with scratch_folder() as folder:
        folder.chmod(0o755)  # servers run as other users
        yield view_tree(served.path, folder, {**additions.replaced, **appended})
