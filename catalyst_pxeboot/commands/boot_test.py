"""catalyst-pxeboot boot-test: every path of a tree, booted in QEMU."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from catalyst_pxeboot.console import Console
from catalyst_pxeboot.errors import PxebootError


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "boot-test",
        help="boot a netboot tree in QEMU",
        description="Boot a netboot tree in QEMU along every path that its loaders have, until"
        " the live system asks for a login. As root on a network of its own with real DHCP, TFTP"
        " and web servers; otherwise on QEMU's, as far as that goes.",
        allow_abbrev=False,
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    parser.add_argument("--firmware", choices=["bios", "efi"], help="only clients with this")
    parser.add_argument("--loader", choices=["ipxe", "pxelinux", "grub"], help="only by this")
    parser.add_argument("--memory", type=int, metavar="MIB", help="the client's memory (1024)")
    parser.add_argument("--timeout", type=float, metavar="S", help="for each boot (300)")
    parser.add_argument("--until", type=_pattern, metavar="REGEX", help="console line to wait for")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    parser.set_defaults(run=run)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Boot the tree and tell how far each path came."""
    from catalyst_pxeboot.lab import boottest, report
    from catalyst_pxeboot.lab.result import Outcome
    from catalyst_pxeboot.model import Firmware, Loader

    results = boottest.boot_test(
        arguments.tree,
        firmware=Firmware(arguments.firmware) if arguments.firmware else None,
        loader=Loader(arguments.loader) if arguments.loader else None,
        memory_mib=arguments.memory or boottest.MEMORY_MIB,
        timeout=arguments.timeout or boottest.TIMEOUT,
        until=arguments.until or boottest.UNTIL,
        junit=arguments.junit,
        report=lambda result: console.step(f"{result.path.name}: {result.outcome}"),
    )
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
            hint="the last lines of each console stand above"
            if failed
            else "the table says what each path lacks",
        )
