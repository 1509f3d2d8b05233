"""Boot a netboot tree in QEMU over its own network and watch the console for a token."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.lab.machine import (
    Accel,
    Client,
    Flash,
    Front,
    Machine,
    UserLink,
    choose_accel,
    find_flash,
    find_ipxe_efi,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.screen import Screen
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.lab.treemenu import view_tree
from catalyst_pxeboot.lab.watch import Verdict, watch_machine
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Firmware, Loader
from catalyst_pxeboot.tree.manifest import read_config

#: What x86-64 firmware starts from a disk (UEFI specification, 3.5.1.1).
EFI_PROGRAM = "EFI/BOOT/BOOTX64.EFI"

_HOST = "10.0.2.2"  # this machine, as QEMU's user network shows it


@dataclass(frozen=True, slots=True)
class BootResult:
    """How a boot over QEMU's user network ended.

    `seconds` counts from QEMU's start. `fetched` holds bytes by URL path, of the web server
    only: TFTP is QEMU's own and reports nothing.
    """

    passed: bool
    seconds: float
    reason: str
    console_tail: tuple[str, ...]
    fetched: Mapping[str, int]


def boot_tree(
    tree: Path,
    client: Client,
    *,
    token: str,
    timeout: float,
    log: Path | None = None,
    accel: Accel = Accel.AUTO,
) -> BootResult:
    """Boot `client` from the netboot tree `tree` and wait until its console shows `token`.

    Only a line that begins with `token` counts, as kernels and loaders print their command
    lines. The boot fails when `timeout` (seconds) is over, when QEMU ends, or when the console
    shows that nothing more will come; the result says which. `log` receives the whole console.
    Raises `CommandError` where QEMU or firmware is missing.
    """
    tree = tree.resolve()
    unreadable = first_unreadable(tree)
    if unreadable:
        return BootResult(False, 0.0, f"{unreadable} is not readable by a server", (), {})
    until = re.compile("^" + re.escape(token))
    verdict, fetched = boot_client(
        tree, client, until=until, timeout=timeout, memory_mib=client.memory_mib, log=log,
        accel=accel,
    )  # fmt: skip
    return BootResult(
        verdict.passed, verdict.seconds, verdict.reason, verdict.console_tail, fetched
    )


def boot_client(
    tree: Path,
    client: Client,
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
    """Boot `client` over QEMU's user network; return the verdict and the web server's bytes.

    `arguments` are more words for the kernel. `typed`, `screen` and `stop` are
    `watch_machine`'s.
    """
    machine = client.machine
    qemu = find_qemu(machine)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        server = stack.enter_context(serve_tree(tree, follow=True))
        argv = qemu_argv(
            machine,
            user_link(
                tree,
                client.loader,
                client.entry,
                server.port,
                arguments=arguments,
                scratch=scratch,
            ),
            qemu=qemu,
            accel=choose_accel(accel, qemu, machine),
            memory_mib=memory_mib,
            processors=client.processors,
            flash=prepare_flash(machine, scratch),
            disk=prepare_disk(disk_program(machine, client.loader, tree / client.entry), scratch),
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


def starts_from_disk(machine: Machine, loader: Loader) -> bool:
    """Say whether a client starts an EFI program from a disk, and the rest from the network.

    QEMU's DHCP server names one boot file to every asker: iPXE would be handed itself and not its
    script, and the initramfs of a unified kernel image would not learn where its tree is.
    """
    return machine.firmware is Firmware.EFI and loader in (Loader.IPXE, Loader.UKI)


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
