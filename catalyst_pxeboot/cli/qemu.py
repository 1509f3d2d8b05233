"""catalyst-pxeboot qemu: a tree in QEMU, to look at."""

from __future__ import annotations

import argparse
from pathlib import Path

from catalyst_pxeboot.cli import personal
from catalyst_pxeboot.cli.boot_test import memory_size
from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.util.errors import PxebootError

_DISPLAYS = ("auto", "gtk", "sdl", "curses", "serial")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "qemu",
        help="boot a netboot tree in QEMU and sit in front of it",
        description="Boot a netboot tree in QEMU, in a window or in this terminal, over QEMU's own"
        " network: no privilege, no server and no change to this machine's network is needed.",
        epilog="Arguments for QEMU come last, behind --, and all options before TREE then.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument(
        "--firmware", metavar="WORD",
        help="the client's: bios, uefi-x64, uefi-ia32, uefi-arm64, uefi-arm (the first that the"
        " tree serves)",
    )  # fmt: skip
    parser.add_argument(
        "--loader", metavar="WORD", help="ipxe, pxelinux, grub or uki (the first that the tree has)"
    )
    parser.add_argument(
        "--memory", type=memory_size, metavar="MIB",
        help="the client's memory (1024, or more if the tree asks for it)",
    )  # fmt: skip
    parser.add_argument(
        "--display", choices=_DISPLAYS, default="auto",
        help="a window, or the terminal: curses shows text modes of the screen, serial is the"
        " client's serial console (auto: a window if there is a desktop, otherwise serial)",
    )  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="print the commands to copy and start nothing"
    )
    personal.add_options(parser)
    parser.add_argument("more", nargs="*", metavar="QEMU_ARGUMENT", help="handed to QEMU as it is")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Boot the tree in front of the user, or print how."""
    from catalyst_pxeboot.lab import session
    from catalyst_pxeboot.lab.paths import parse_firmware, parse_loaders

    given = personal.read_given(arguments)
    if given and arguments.dry_run:
        raise PxebootError(
            "--dry-run: commands to copy cannot add keys, files or a script to a tree",
            hint="build it with them, or leave --dry-run out",
        )
    with personal.tree_with(arguments.tree, given) as tree:
        planned = session.plan_session(
            tree,
            firmware=parse_firmware(arguments.firmware) if arguments.firmware else (),
            loaders=parse_loaders(arguments.loader) if arguments.loader else (),
            memory_mib=arguments.memory,
            display=session.Display(arguments.display),
            more=arguments.more,
            ssh=bool(given.keys),
        )
        console.result(
            {
                "firmware": planned.machine.name,
                "loader": planned.loader.value,
                "memory_mib": planned.memory_mib,
                "display": planned.display.value,
            }
        )
        if arguments.dry_run:
            script = session.session_script(planned)
            console.result({"script": list(script)})
            for line in script:
                console.line(line)
            return
        for line in planned.lines:
            console.step(line)
        session.run_session(planned)
