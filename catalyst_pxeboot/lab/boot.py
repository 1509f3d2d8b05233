"""Boot a client in QEMU over its user network, which needs no privilege."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from catalyst_pxeboot.lab.machine import (
    Accel,
    Flash,
    Front,
    Machine,
    UserLink,
    choose_accel,
    find_flash,
    find_ipxe_efi,
    find_qemu,
    qemu_argv,
    starts_from_disk,
)
from catalyst_pxeboot.lab.screen import Screen
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.lab.treemenu import view_tree
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.tree.manifest import read_config

#: What x86-64 firmware starts from a disk (UEFI specification, 3.5.1.1).
EFI_PROGRAM = "EFI/BOOT/BOOTX64.EFI"

_HOST = "10.0.2.2"  # this machine, as QEMU's user network shows it


def boot_client(
    tree: Path,
    machine: Machine,
    loader: Loader,
    entry: str,
    *,
    until: re.Pattern[str],
    timeout: float,
    memory_mib: int,
    log: Path | None,
    accel: Accel,
    arguments: str = "",
    typed: Sequence[tuple[str, str]] = (),
    screen: Screen | None = None,
    stop: threading.Event | None = None,
) -> tuple[Verdict, Mapping[str, int]]:
    """Boot a client over QEMU's user network; return the verdict and the web server's bytes.

    `entry`, a path in the tree, is what the network names to `loader`. `arguments` are more words
    for the kernel. `typed`, `screen` and `stop` are `watch_machine`'s.
    """
    qemu = find_qemu(machine)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        server = stack.enter_context(serve_tree(tree, follow=True))
        argv = qemu_argv(
            machine,
            user_link(tree, loader, entry, server.port, arguments=arguments, scratch=scratch),
            qemu=qemu,
            accel=choose_accel(accel, qemu, machine),
            memory_mib=memory_mib,
            flash=prepare_flash(machine, scratch),
            disk=prepare_disk(disk_program(machine, loader, tree / entry), scratch),
            front=Front(control=screen.control(scratch)) if screen else None,
        )
        verdict = watch_machine(
            argv, until=until, timeout=timeout, log=log, typed=typed, screen=screen, stop=stop
        )
        return verdict, dict(server.fetched)


def user_link(
    tree: Path, loader: Loader, entry: str, port: int, *, arguments: str, scratch: Path
) -> UserLink:
    """Plan what QEMU's user network serves: `entry`, a path in the tree, to `loader`'s client.

    `port` is the web server's on this machine. With `arguments` it is a view of the tree, made in
    `scratch`, whose menu has these words for the kernel.
    """
    if not arguments:
        url = f"http://{_HOST}:{port}/{entry}"
        return UserLink(tree, url if loader in (Loader.IPXE, Loader.UKI) else entry)
    name = LOADERS[loader].configs[0]
    text = LOADERS[loader].add_arguments(read_config(tree, name), arguments)
    if loader is Loader.IPXE:
        # The script comes by TFTP then, and the files still by HTTP.
        text = f"#!ipxe\nset base-url http://{_HOST}:{port}\n{text}"
    return UserLink(view_tree(tree, scratch / "view", {name: text.encode()}), entry)


def prepare_flash(machine: Machine, scratch: Path) -> Flash | None:
    """Give a UEFI client a variable store of its own in `scratch`. Raises `CommandError`."""
    found = find_flash(machine)
    if found is None:
        return None
    variables = scratch / "variables.fd"
    shutil.copyfile(found.variables, variables)
    return Flash(found.code, variables)


def disk_program(machine: Machine, loader: Loader, file: Path) -> Path | None:
    """Return what a client starts from a disk: iPXE, or the unified kernel image `file`."""
    if not starts_from_disk(machine, loader):
        return None
    return find_ipxe_efi() if loader is Loader.IPXE else file


def prepare_disk(program: Path | None, scratch: Path) -> Path | None:
    """Put an EFI program on a disk of its own in `scratch`."""
    if program is None:
        return None
    target = scratch / "esp" / EFI_PROGRAM
    target.parent.mkdir(parents=True)
    shutil.copyfile(program, target)
    return scratch / "esp"


def first_unreadable(tree: Path) -> str:
    """Name a file of the tree that only its owner may read; QEMU's TFTP may run as that owner."""
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and not mode & stat.S_IROTH:
            return str(path.relative_to(tree))
    return ""
