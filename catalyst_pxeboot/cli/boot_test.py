"""catalyst-pxeboot boot-test: every path of a tree, booted in QEMU."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from catalyst_pxeboot.cli import personal
from catalyst_pxeboot.cli.console import Console
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import PxebootError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "boot-test",
        help="boot a netboot tree in QEMU",
        description="Boot a netboot tree in QEMU along every path that its loaders have, until"
        " the live system shows its prompt. As root on a network of its own with real DHCP, TFTP"
        " and web servers; otherwise on QEMU's, as far as that goes. Of a failed boot the last"
        " lines of the console and the likely cause are shown.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument(
        "--firmware", metavar="LIST",
        help="only these clients: bios, uefi (any), uefi-x64, uefi-ia32, uefi-arm64, uefi-arm, with"
        " commas between",
    )  # fmt: skip
    parser.add_argument("--loader", metavar="LIST", help=f"only by these: {', '.join(Loader)}")
    parser.add_argument(
        "--memory", type=memory_size, metavar="MIB",
        help="the client's memory (1024, or more if the tree asks for it)",
    )  # fmt: skip
    parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for each boot (300)")
    parser.add_argument(
        "--until", type=_pattern, metavar="REGEX",
        help="console line that shows that the live system is up (the prompt or the banner of"
        " Gentoo's live images)",
    )  # fmt: skip
    parser.add_argument(
        "--screenshot", type=Path, metavar="FILE",
        help="save a picture of the screen at the end, as PNG; of several boots each has its own,"
        " with the path's name in it",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=_jobs, default=1, metavar="N",
        help="boot N clients at once (1); each takes a core and its memory",
    )  # fmt: skip
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    personal.add_options(parser)
    parser.set_defaults(run=run)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a regular expression: {error}"
        ) from error


def memory_size(text: str) -> int:
    """Read an amount of memory. Raises `ArgumentTypeError`."""
    return int(_number(text, int))


def _jobs(text: str) -> int:
    return int(_number(text, int))


def _seconds(text: str) -> float:
    return _number(text, float)


def _number(text: str, kind: type[int] | type[float]) -> int | float:
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Boot the tree and report how far each path came."""
    from catalyst_pxeboot.lab import boottest, report
    from catalyst_pxeboot.lab.paths import parse_firmware, parse_loaders
    from catalyst_pxeboot.lab.result import Outcome

    with personal.tree_with(arguments.tree, personal.read_given(arguments)) as tree:
        results = boottest.boot_test(
            tree,
            firmware=parse_firmware(arguments.firmware) if arguments.firmware else (),
            loaders=parse_loaders(arguments.loader) if arguments.loader else (),
            memory_mib=arguments.memory,
            timeout=arguments.timeout or boottest.TIMEOUT,
            until=arguments.until or boottest.UNTIL,
            junit=arguments.junit,
            screenshot=arguments.screenshot,
            jobs=arguments.jobs,
            report=lambda result: console.step(f"{result.path.name}: {result.outcome}"),
        )
    console.result({"tree": str(arguments.tree), "paths": [result.data() for result in results]})
    for line in report.table_lines(results):
        console.line(line)
    passed = [result for result in results if result.outcome is Outcome.PASSED]
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    for result in failed:
        for line in result.console_tail:
            console.line(f"{result.path.name}| {line}")
    if failed or not passed:
        raise PxebootError(
            f"{arguments.tree}: {len(failed)} of {len(results)} paths failed, {len(passed)} passed",
            hint=failed[0].cause or "the last lines of each console stand above"
            if failed
            else "the table says what each path lacks",
        )
