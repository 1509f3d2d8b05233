"""The command catalyst-pxeboot: options in, exit code out; it holds no logic.

Each command is a module of `commands`. Heavy modules are imported by the command that needs them,
so that --help answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Final, NoReturn

from catalyst_pxeboot import __version__
from catalyst_pxeboot.cli import (
    boot_test,
    build,
    dhcp,
    export,
    inspect,
    keys,
    menu,
    qemu,
    serve,
    verify,
)
from catalyst_pxeboot.cli.console import Color, Console, OutputError
from catalyst_pxeboot.util.errors import SYSTEM_ERRORS, PxebootError, SpecError, from_system

PROGRAM = "catalyst-pxeboot"
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

#: 128 and the signal's number, as a shell has it.
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT

#: What --help and the manual say of them.
EXIT_CODES: Final = {
    EXIT_DONE: "done",
    EXIT_FAILED: "failed",
    EXIT_USAGE: "wrong usage",
    EXIT_INTERRUPTED: "interrupted",
}

#: In the order in which --help and the manual name them.
COMMANDS = (build, serve, dhcp, boot_test, qemu, inspect, verify, menu, export, keys)


def run() -> NoReturn:
    """Run the command and exit with its code."""
    _open_closed_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signal.signal(signal.SIGHUP, _terminate)
    # What we make, we must be able to read and remove, whatever the umask.
    os.umask(os.umask(0o077) & ~0o700)
    sys.exit(main(sys.argv[1:]))


def _open_closed_streams() -> None:
    # Otherwise the next file opened gets the number, and what a program we start says goes into it.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


def _terminate(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that what is half-written is removed on exit.
    raise SystemExit(128 + number)


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments `argv` and return its exit code, one of `EXIT_CODES`."""
    arguments = make_parser().parse_args(argv)
    console = Console(
        PROGRAM,
        arguments.command,
        json=arguments.json,
        quiet=arguments.quiet,
        verbose=arguments.verbose,
        color=Color(arguments.color),
    )
    try:
        return _run(arguments, console)
    except KeyboardInterrupt:
        # If the interrupt met an exec(), and every dataclass is made by one, CPython would end by
        # SIGINT whatever is returned here; the next exec() lets it forget that.
        exec("")
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OutputError as error:
        console.error(str(error))
    except BrokenPipeError:
        pass  # The reader of our output has gone (`| head`).
    # Python would complain once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FAILED


def _run(arguments: argparse.Namespace, console: Console) -> int:
    try:
        arguments.run(arguments, console)
        console.finish()
    except (OutputError, BrokenPipeError):
        raise
    except SpecError as error:
        console.finish(error.problems)
        return EXIT_FAILED
    except PxebootError as error:
        console.finish([error])
        return EXIT_FAILED
    except SYSTEM_ERRORS as error:
        problem = from_system(error)
        if arguments.verbose:
            import traceback

            traceback.print_exc()
        console.finish([problem])
        return EXIT_FAILED
    return EXIT_DONE


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Make, check, serve and try trees that network-boot a catalyst live image.",
        epilog=f"Exit codes: {', '.join(f'{code} {what}' for code, what in EXIT_CODES.items())}."
        f" {PROGRAM} COMMAND --help tells more of one.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add_parser(commands)
    for command_parser in commands.choices.values():
        _add_common(command_parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    """Add what every command takes."""
    group = parser.add_argument_group("output")
    group.add_argument("-q", "--quiet", action="store_true", help="errors, warnings and results")
    group.add_argument("-v", "--verbose", action="store_true", help="say more")
    group.add_argument("--json", action="store_true", help="for machines: JSON, one line each")
    group.add_argument(
        "--color", choices=list(Color), default=Color.AUTO, help="colour; auto: on a terminal"
    )
