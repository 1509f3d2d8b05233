"""Boot a netboot tree in QEMU for a user in front of it."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from catalyst_pxeboot.lab.boot import (
    EFI_PROGRAM,
    disk_program,
    prepare_disk,
    prepare_flash,
    user_link,
)
from catalyst_pxeboot.lab.boottest import MEMORY_MIB
from catalyst_pxeboot.lab.machine import (
    Accel,
    Flash,
    Front,
    Machine,
    UserLink,
    choose_accel,
    find_flash,
    find_qemu,
    qemu_argv,
)
from catalyst_pxeboot.lab.paths import PATHS, BootPath, choose_paths, for_tree
from catalyst_pxeboot.lab.serve import serve_tree
from catalyst_pxeboot.lab.servers import read_arch
from catalyst_pxeboot.lab.treemenu import TreeMenu, read_menu, why_mute
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.services.children import end_process
from catalyst_pxeboot.tree.manifest import read_manifest
from catalyst_pxeboot.util.errors import CommandError, PxebootError
from catalyst_pxeboot.util.process import run


class Display(StrEnum):
    """Where the client's screen is shown."""

    AUTO = "auto"  # a window where there is a desktop, otherwise the serial console
    GTK = "gtk"
    SDL = "sdl"
    CURSES = "curses"  # in the terminal, text modes only
    SERIAL = "serial"  # no screen: the terminal is the client's serial console


_LEAVE = {
    Display.GTK: "Close the window or press Ctrl-C here to end.",
    Display.SDL: "Close the window or press Ctrl-C here to end.",
    Display.CURSES: "Shown in this terminal; Esc 2, then `quit`, ends it.",
    Display.SERIAL: "This terminal is the client's serial console; Ctrl-A X ends it.",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A client for a user: kind of machine, loader, its boot file, and where it is shown."""

    tree: Path
    machine: Machine
    loader: Loader
    entry: str  # the path in the tree that the network names
    display: Display
    memory_mib: int
    arguments: str  # more words for the kernel
    note: str  # what will not be seen
    more: tuple[str, ...]  # for QEMU, as they are
    ssh_port: int = 0  # of this machine, that leads to the client's sshd

    @property
    def disk_program(self) -> Path | None:
        """What it starts from a disk. Raises `CommandError` if that is missing."""
        return disk_program(self.machine, self.loader, self.tree / self.entry)

    @property
    def lines(self) -> tuple[str, ...]:
        """Tell what is started and how to leave it."""
        lines = [
            f"{self.machine.name}, {self.loader}, {self.memory_mib} MiB of memory",
            _LEAVE[self.display],
        ]
        if self.arguments:
            lines.append(
                f"{self.arguments} is added to the kernel's arguments, so that it is seen."
            )
        if self.ssh_port:
            lines.append(f"Log in: ssh -p {self.ssh_port} root@127.0.0.1")
        if self.note:
            lines.append(self.note)
        return tuple(lines)


def plan_session(
    tree: Path,
    *,
    firmware: Sequence[str] = (),
    loaders: Sequence[Loader] = (),
    memory_mib: int | None = None,
    display: Display = Display.AUTO,
    more: Sequence[str] = (),
    ssh: bool = False,
) -> Session:
    """Choose the first client that the tree serves of those that are asked for.

    With `ssh` a port of this machine leads to the client's sshd. Raises `PxebootError` if there is
    no such client, `CommandError` where QEMU is missing.
    """
    tree = tree.resolve()
    path = _choose_path(tree, firmware, loaders)
    menu = read_menu(tree)
    display = choose_display(display, find_qemu(path.machine), path.machine)
    heard = menu.has_serial_console or display is not Display.SERIAL
    mute = "" if heard else why_mute(tree, path.loader)
    return Session(
        tree,
        path.machine,
        path.loader,
        path.entry,
        display,
        memory_mib or _memory(menu, path),
        arguments="" if heard or mute else menu.arguments,
        note=mute,
        more=tuple(more),
        ssh_port=_free_port() if ssh else 0,
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _memory(menu: TreeMenu, path: BootPath) -> int:
    return menu.memory_for(path.loader, path.machine.firmware, MEMORY_MIB)


def _choose_path(tree: Path, firmware: Sequence[str], loaders: Sequence[Loader]) -> BootPath:
    arch = read_arch(tree)
    own = for_tree(choose_paths(PATHS, arch=arch), read_manifest(tree)[1].program)
    can = [path for path in own if path.is_simple]
    asked = choose_paths(can, firmware=firmware, loaders=loaders)
    for path in asked:
        if (tree / path.entry).is_file():
            return path
    if asked:
        files = ", ".join(dict.fromkeys(path.entry for path in asked))
        raise PxebootError(f"{tree}: has none of {files}", hint="choose another --loader")
    raise PxebootError(
        f"{tree}: QEMU's own network starts no client for {arch} of this --firmware and --loader",
        hint="there are "
        + ", ".join(dict.fromkeys(f"{path.loader} on {path.machine.name}" for path in can)),
    )


def choose_display(asked: Display, qemu: Path, machine: Machine) -> Display:
    """Turn AUTO into what this desktop and this QEMU have. Raises `PxebootError`."""
    if asked is Display.SERIAL or not machine.screen:
        return Display.SERIAL
    known = set(run([qemu, "-display", "help"]).decode(errors="replace").split())
    if asked is not Display.AUTO:
        if asked not in known:
            raise PxebootError(
                f"--display: this QEMU was built without {asked}",
                hint="it has " + ", ".join(word for word in Display if word in known | {"serial"}),
            )
        return asked
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        for word in (Display.GTK, Display.SDL):
            if word in known:
                return word
    return Display.SERIAL


def _front(display: Display) -> Front:
    if display is Display.SERIAL:
        return Front(serial="mon:stdio", restarts=True)
    # A window has a tab for the serial port.
    serial = "vc" if display in (Display.GTK, Display.SDL) else "null"
    return Front(display=display.value, serial=serial, restarts=True)


def _argv(
    session: Session, link: UserLink, accel: Accel, flash: Flash | None, disk: Path | None
) -> tuple[str, ...]:
    argv = qemu_argv(
        session.machine,
        link,
        qemu=find_qemu(session.machine),
        accel=accel,
        memory_mib=session.memory_mib,
        flash=flash,
        disk=disk,
        front=_front(session.display),
    )
    return (*argv, *session.more)


def session_script(session: Session) -> tuple[str, ...]:
    """Write the session as shell commands to copy; they leave two files behind under UEFI.

    Without the web server that a session brings: all comes by TFTP.
    """
    flash, disk = find_flash(session.machine), None
    commands: list[Sequence[str]] = []
    if flash:
        own = Path("pxeboot-variables.fd")
        commands.append(["cp", str(flash.variables), str(own)])
        flash = Flash(flash.code, own)
    if session.disk_program:
        disk = Path("pxeboot-esp")
        commands.append(["install", "-D", str(session.disk_program), f"{disk}/{EFI_PROGRAM}"])
    qemu = find_qemu(session.machine)
    accel = choose_accel(Accel.AUTO, qemu, session.machine)
    commands.append(_argv(session, UserLink(session.tree, session.entry), accel, flash, disk))
    return tuple(shlex.join(words) for words in commands)


def run_session(session: Session) -> None:
    """Run the client in front of the user until either ends it. Raises `CommandError`."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pxeboot-lab-")))
        server = stack.enter_context(serve_tree(session.tree, follow=True))
        link = user_link(
            session.tree, session.loader, session.entry, server.port,
            arguments=session.arguments, scratch=scratch,
        )  # fmt: skip
        link = replace(link, ssh_port=session.ssh_port)
        argv = _argv(
            session,
            link,
            choose_accel(Accel.AUTO, find_qemu(session.machine), session.machine),
            prepare_flash(session.machine, scratch),
            prepare_disk(session.disk_program, scratch),
        )
        stack.enter_context(_kept_terminal())
        _wait(argv)


def _wait(argv: Sequence[str]) -> None:
    try:
        process = subprocess.Popen(argv)
    except OSError as error:
        raise CommandError(f"{argv[0]} could not be started: {error.strerror}") from error
    try:
        code = process.wait()
    except KeyboardInterrupt:  # how a window's session is ended from here
        return
    finally:
        end_process(process)
    if code:
        raise CommandError(f"QEMU ended with exit code {code}", hint="its own message is above")


@contextmanager
def _kept_terminal() -> Iterator[None]:
    """Leave the terminal as it was: QEMU turns line editing off, and may be killed."""
    try:
        descriptor = sys.stdin.fileno()
        state = termios.tcgetattr(descriptor)
    except (OSError, ValueError, termios.error):  # no terminal
        yield
        return
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, state)
