"""Watch a client's serial console until its boot is decided."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catalyst_pxeboot.lab.screen import Screen
from catalyst_pxeboot.util.errors import CommandError

_TAIL = 40  # lines of the console that a result keeps
_PROMPT = 0.5  # seconds of silence after which an unfinished line is a prompt

# Escape sequences (ECMA-48 control sequences, and two-character ones) and carriage returns.
# A shell's prompt may hold an operating system command, which sets a window's title.
_NOISE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[ -Z\\-~])"
    r"|[\x00-\x08\x0b-\x1f\x7f]"
)

#: What PXELINUX shows before it starts again.
GAVE_UP = "Boot failed: press a key to retry"

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
            "^This did not work: .*",  # our script for iPXE; its reason is above
            "No more network devices",  # iPXE
            "^Loading .*failed:",  # PXELINUX
            GAVE_UP,
            "You are in (?:emergency|rescue) mode",  # systemd
            "Otherwise this machine starts again",  # our menus for GRUB; the reason is above
            "^grub rescue>",
            "^grub> ",  # it found no configuration
            "No bootable device",  # SeaBIOS
            "BdsDxe: No bootable option",  # OVMF
        )
    )
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a console showed of a boot; `seconds` counts from QEMU's start.

    `silence` is for how many seconds nothing had come when it ended.
    """

    passed: bool
    seconds: float
    reason: str
    console_tail: tuple[str, ...]
    timed_out: bool = False
    silence: float = 0.0


def watch_machine(
    argv: Sequence[str],
    *,
    until: re.Pattern[str],
    timeout: float,
    log: Path | None = None,
    inherited: Sequence[int] = (),
    typed: Sequence[tuple[str, str]] = (),
    screen: Screen | None = None,
    stop: threading.Event | None = None,
) -> Verdict:
    """Run a client's QEMU and watch its console until the boot is decided, then kill it.

    `inherited` are descriptors that QEMU takes over. `typed` is what is typed: each text in its
    turn, once the console's last line matches the pattern before it. A picture of `screen` is saved
    when the boot is decided. `stop` ends it as if time were over.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(log.open("wb")) if log else None
        begun = time.monotonic()
        process = stack.enter_context(_started(argv, inherited))
        console = _Console(process, sink, stop or threading.Event())
        passed, reason = _watch(console, until, begun + timeout, typed)
        ended = time.monotonic()
        if screen:
            screen.save(running=not console.ended)
        return Verdict(
            passed,
            ended - begun,
            reason or f"no line of the console matched {until.pattern!r} within {timeout:g} s",
            tuple(console.tail),
            timed_out=not reason,
            silence=ended - max(console.heard, begun),
        )


def _watch(
    console: _Console,
    until: re.Pattern[str],
    deadline: float,
    typed: Sequence[tuple[str, str]],
) -> tuple[bool, str]:
    """Read the console until the boot is decided; an empty reason means that time is over."""
    waiting = deque(typed)
    before = ""
    for line in console.lines(deadline):
        if waiting and re.search(waiting[0][0], line):
            console.write(waiting.popleft()[1])
            continue
        if until.search(line):
            return True, line
        # The second copy of a letter may come after the end of the first copy's line.
        for said in (line, _unmix(line), _unmix(before + line)):
            dead_end = _DEAD_ENDS.search(said)
            if dead_end:
                return False, f"the console shows {dead_end[0]!r}"
        before = line
    if console.ended:
        code = console.process.wait(timeout=10)
        return False, f"the machine stopped (QEMU's exit code is {code})"
    return False, ""


def _unmix(line: str) -> str:
    """Return what a line says once that came twice, its letters mixed.

    PXELINUX prints to the serial port itself and by the BIOS, which SeaBIOS sends there as well.
    """
    said = []
    behind: deque[str] = deque()  # what the second copy has still to say
    for letter in line:
        if behind and letter == behind[0]:
            behind.popleft()
        else:
            behind.append(letter)
            said.append(letter)
    return "".join(said)


class _Console:
    """The serial port of a running QEMU, as lines without escape sequences."""

    def __init__(
        self, process: subprocess.Popen[bytes], sink: IO[bytes] | None, stop: threading.Event
    ) -> None:
        self.process = process
        self._stop = stop
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.ended = False
        self.heard = 0.0  # when the last of it came (monotonic)
        self._sink = sink

    def lines(self, deadline: float) -> Iterator[str]:
        """Yield each line until the process closes the console or `deadline` (monotonic).

        A line without an end, which is a prompt, is yielded once nothing more comes.
        """
        pending = b""
        yielded = True
        if self.process.stdout is None:
            return
        descriptor = self.process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0 and not self._stop.is_set():
                if not selector.select(min(left, _PROMPT)):
                    if not yielded:
                        yielded = True
                        yield self._clean(pending)
                    continue
                yielded = False
                data = os.read(descriptor, 65536)
                if not data:
                    self.ended = True
                    break
                self.heard = time.monotonic()
                if self._sink:
                    self._sink.write(data)
                    self._sink.flush()
                *complete, pending = (pending + data).split(b"\n")
                for raw in complete:
                    yield self._keep(raw)
                yielded = not pending
        if pending:
            yield self._keep(pending)

    def write(self, text: str) -> None:
        """Type `text`."""
        if self.process.stdin is None:
            return
        with suppress(BrokenPipeError):  # QEMU has ended; reading shows it
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
