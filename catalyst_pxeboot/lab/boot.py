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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catalyst_pxeboot.errors import CommandError
from catalyst_pxeboot.lab.machine import (
    Accel,
    Client,
    Flash,
    Machine,
    UserLink,
    choose_accel,
    find_flash,
    find_ipxe_efi,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.model import Firmware, Loader

_TAIL = 40  # lines of the console that a result keeps
_PROMPT = 0.5  # seconds of silence after which an unfinished line is a prompt

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
            # dracut's livenet would ask a hundred times, five seconds apart, for what the server
            # has just refused.
            r"curl: \(22\) The requested URL returned error.*",
            r"failed to download live image after \d+ attempts",
            r"mount\.nfs: .*",  # the same for NFS, each time after two minutes
            "rescue shell!",  # genkernel
            "Could not boot image",  # iPXE
            "No more network devices",  # iPXE
            "^Loading .*failed:",  # PXELINUX
            "^grub rescue>",
            "^grub> ",  # it found no configuration
            "No bootable device",  # SeaBIOS
            "BdsDxe: No bootable option",  # OVMF
        )
    )
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a console told of a boot; `seconds` counts from QEMU's start."""

    passed: bool
    seconds: float
    reason: str
    console_tail: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BootResult:
    """How a boot over QEMU's user network ended.

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
) -> tuple[Verdict, Mapping[str, int]]:
    """Boot `client` over QEMU's user network; return the verdict and the web server's bytes."""
    machine = client.machine
    qemu = find_qemu(machine)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        server = stack.enter_context(serve_tree(tree))
        argv = qemu_argv(
            machine,
            UserLink(tree, user_boot_file(client, server.port)),
            qemu=qemu,
            accel=choose_accel(accel, qemu, machine),
            memory_mib=memory_mib,
            processors=client.processors,
            flash=prepare_flash(machine, scratch),
            disk=_prepare_disk(client, scratch),
        )
        verdict = watch_machine(argv, until=until, timeout=timeout, log=log)
        return verdict, dict(server.fetched)


def user_boot_file(client: Client, port: int) -> str:
    """Name what QEMU's DHCP server hands out; `port` is the web server's on this machine."""
    if client.loader is Loader.IPXE:
        return f"http://10.0.2.2:{port}/{client.entry}"
    return client.entry


def watch_machine(
    argv: Sequence[str],
    *,
    until: re.Pattern[str],
    timeout: float,
    log: Path | None = None,
    inherited: Sequence[int] = (),
    typed: Sequence[tuple[str, str]] = (),
) -> Verdict:
    """Run a client's QEMU and watch its console until the boot is decided, then kill it.

    `inherited` are descriptors that QEMU takes over. `typed` is what is typed: each text in its
    turn, once the console's last line matches the pattern before it.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(log.open("wb")) if log else None
        begun = time.monotonic()
        process = stack.enter_context(_started(argv, inherited))
        console = _Console(process, sink)
        passed, reason = _watch(console, until, begun + timeout, typed)
        return Verdict(
            passed,
            time.monotonic() - begun,
            reason or f"no line of the console matched {until.pattern!r} within {timeout:g} s",
            tuple(console.tail),
        )


def _watch(
    console: _Console,
    until: re.Pattern[str],
    deadline: float,
    typed: Sequence[tuple[str, str]],
) -> tuple[bool, str]:
    """Read the console until the boot is decided; an empty reason means that time is over."""
    waiting = deque(typed)
    for line in console.lines(deadline):
        if waiting and re.search(waiting[0][0], line):
            console.write(waiting.popleft()[1])
            continue
        if until.search(line):
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
        """Yield each line until the process closes the console or `deadline` (monotonic).

        What stands without a line's end is yielded once nothing more comes: a prompt.
        """
        pending = b""
        told = True
        if self.process.stdout is None:
            return
        descriptor = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                if not selector.select(min(left, _PROMPT)):
                    if not told:
                        told = True
                        yield self._clean(pending)
                    continue
                told = False
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
                told = not pending
        if pending:
            yield self._keep(pending)

    def write(self, text: str) -> None:
        """Type `text`."""
        if self.process.stdin is None:
            return
        with suppress(BrokenPipeError):  # QEMU has ended; reading tells so
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()

    def _keep(self, raw: bytes) -> str:
        line = self._clean(raw)
        if line.strip():
            self.tail.append(line)
        return line

    def _clean(self, raw: bytes) -> str:
        return _NOISE.sub("", raw.decode(errors="replace"))


@contextmanager
def _started(
    argv: Sequence[str], inherited: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `argv` with its output on a pipe and kill it when the context ends, however it ends."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=inherited,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except OSError as error:
        raise CommandError(f"{argv[0]} could not be started: {error.strerror}") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()


def prepare_flash(machine: Machine, scratch: Path) -> Flash | None:
    """Give a UEFI client a variable store of its own in `scratch`. Raises `CommandError`."""
    found = find_flash(machine)
    if found is None:
        return None
    variables = scratch / "variables.fd"
    shutil.copyfile(found.variables, variables)
    return Flash(found.code, variables)


def _prepare_disk(client: Client, scratch: Path) -> Path | None:
    """Put iPXE on a disk for a UEFI client.

    From the network it could not be: QEMU's DHCP server names one boot file to every asker, so
    iPXE would be handed itself and not its script.
    """
    if client.firmware is not Firmware.EFI or client.loader is not Loader.IPXE:
        return None
    disk = scratch / "esp"
    program = disk / "EFI" / "BOOT" / "BOOTX64.EFI"
    program.parent.mkdir(parents=True)
    shutil.copyfile(find_ipxe_efi(), program)
    return disk


def first_unreadable(tree: Path) -> str:
    """Name a file of the tree that only its owner may read; QEMU's TFTP may run as that owner."""
    for path in sorted(tree.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and not mode & stat.S_IROTH:
            return str(path.relative_to(tree))
    return ""
