"""Boot a netboot tree in QEMU and watch its serial console for a token."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import stat
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catalyst_pxeboot.errors import CommandError
from catalyst_pxeboot.lab.machine import (
    Accel,
    Client,
    Flash,
    choose_accel,
    find_flash,
    find_ipxe_efi,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.model import Firmware, Loader

_TAIL = 40  # lines of the console that a result keeps

# Escape sequences (ECMA-48 control sequences, and two-character ones) and carriage returns.
_NOISE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[ -Z\\-~])|[\x00-\x08\x0b-\x1f\x7f]")

# What the console shows when no live root will come any more, so that a failed boot need not wait
# for its timeout. A menu that stays up, or a loader's prompt, shows nothing of the kind.
_DEAD_ENDS = re.compile(
    "|".join(
        (
            "Kernel panic - not syncing",
            "dracut: Refusing to continue",
            "dracut Warning: Boot has failed",
            'Generating "/run/initramfs/rdsosreport.txt"',  # dracut, before its shell
            "rescue shell!",  # genkernel
            "Could not boot image",  # iPXE
            "No more network devices",  # iPXE
            "^Loading .*failed:",  # PXELINUX
            "^grub rescue>",
            "No bootable device",  # SeaBIOS
            "BdsDxe: No bootable option",  # OVMF
        )
    )
)


@dataclass(frozen=True, slots=True)
class BootResult:
    """How a boot ended.

    `seconds` counts from QEMU's start. `fetched` holds bytes by URL path, of the web server
    only: TFTP is QEMU's own and tells nothing.
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
    unreadable = _first_unreadable(tree)
    if unreadable:
        return BootResult(False, 0.0, f"{unreadable} is not readable by a server", (), {})
    qemu = find_qemu()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        server = stack.enter_context(serve_tree(tree))
        flash, disk = _prepare(client, scratch)
        argv = qemu_argv(
            client,
            qemu=qemu,
            tree=tree,
            port=server.port,
            accel=choose_accel(accel, qemu),
            flash=flash,
            disk=disk,
        )
        sink = stack.enter_context(log.open("wb")) if log else None
        begun = time.monotonic()
        with _started(argv) as process:
            console = _Console(process, sink)
            passed, reason = _watch(console, token, begun + timeout)
        return BootResult(
            passed,
            time.monotonic() - begun,
            reason or f"no line began with {token!r} within {timeout:g} s",
            tuple(console.tail),
            dict(server.fetched),
        )


def _watch(console: _Console, token: str, deadline: float) -> tuple[bool, str]:
    """Read the console until the boot is decided; an empty reason means that time is over."""
    for line in console.lines(deadline):
        if line.startswith(token):
            return True, line
        dead_end = _DEAD_ENDS.search(line)
        if dead_end:
            return False, f"the console shows {dead_end[0]!r}"
    if console.ended:
        code = console.process.wait(timeout=10)
        return False, f"the machine stopped (QEMU's exit code is {code})"
    return False, ""


class _Console:
    """The serial port of a running QEMU, as lines without escape sequences."""

    def __init__(self, process: subprocess.Popen[bytes], sink: IO[bytes] | None) -> None:
        self.process = process
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.ended = False
        self._sink = sink

    def lines(self, deadline: float) -> Iterator[str]:
        """Yield each line until the process closes the console or `deadline` (monotonic)."""
        pending = b""
        if self.process.stdout is None:
            return
        descriptor = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(left):
                    break
                data = os.read(descriptor, 65536)
                if not data:
                    self.ended = True
                    break
                if self._sink:
                    self._sink.write(data)
                    self._sink.flush()
                *complete, pending = (pending + data).split(b"\n")
                for raw in complete:
                    yield self._keep(raw)
        if pending:
            yield self._keep(pending)

    def _keep(self, raw: bytes) -> str:
        line = _NOISE.sub("", raw.decode(errors="replace"))
        if line.strip():
            self.tail.append(line)
        return line


@contextmanager
def _started(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` with its output on a pipe and kill it when the context ends, however it ends."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except OSError as error:
        raise CommandError(f"{argv[0]} could not be started: {error.strerror}") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _prepare(client: Client, scratch: Path) -> tuple[Flash | None, Path | None]:
    """Set up what a UEFI client needs: a variable store of its own, and iPXE on a disk."""
    if client.firmware is not Firmware.EFI:
        return None, None
    found = find_flash()
    variables = scratch / "variables.fd"
    shutil.copyfile(found.variables, variables)
    disk = None
    if client.loader is Loader.IPXE:
        # From the network it could not be: QEMU's DHCP server names one boot file to every
        # asker, so iPXE would be handed itself and not its script.
        disk = scratch / "esp"
        program = disk / "EFI" / "BOOT" / "BOOTX64.EFI"
        program.parent.mkdir(parents=True)
        shutil.copyfile(find_ipxe_efi(), program)
    return Flash(found.code, variables), disk


def _first_unreadable(tree: Path) -> str:
    """Name a file of the tree that only its owner may read; QEMU's TFTP may run as that owner."""
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and not mode & stat.S_IROTH:
            return str(path.relative_to(tree))
    return ""
