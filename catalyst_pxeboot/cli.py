"""The standalone door: the command catalyst-pxeboot. Holds no logic of its own.

Heavy modules are imported by the command that needs them, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from catalyst_pxeboot import __version__
from catalyst_pxeboot.errors import PxebootError, SpecError

if TYPE_CHECKING:
    from catalyst_pxeboot.spec import Spec

PROGRAM = "catalyst-pxeboot"

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def run() -> NoReturn:
    """Run the command and exit with its code."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(main(sys.argv[1:]))


def _terminate(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that what is half-written is removed on the way out.
    raise SystemExit(128 + number)


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments `argv` and return its exit code: 0, 1 or 2."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.command(parser, arguments)
        sys.stdout.flush()
    except SpecError as error:
        for problem in error.problems:
            print(f"{PROGRAM}: error: {problem}", file=sys.stderr)
        return EXIT_FAILED
    except PxebootError as error:
        print(f"{PROGRAM}: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted, nothing published", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output has gone (`| head`). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    return EXIT_DONE


def make_parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Make and check trees that network-boot a catalyst live image.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_build(commands)
    _add_inspect(commands)
    _add_verify(commands)
    _add_menu(commands)
    _add_boot_test(commands)
    return parser


def _add_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build",
        help="make a netboot tree from a livecd-stage2 build",
        description="Make a netboot tree, either as a spec file says (the same as `catalyst -f`)"
        " or from a livecd-stage2 folder anywhere.",
        allow_abbrev=False,
    )
    build.add_argument(
        "-f", "--file", type=Path, metavar="SPEC", help="spec file with target: pxeboot"
    )
    build.add_argument("-c", "--config", type=Path, metavar="CONF", help="catalyst.conf to go by")
    build.add_argument("--source", type=Path, metavar="TREE", help="livecd-stage2 folder")
    build.add_argument("--output", type=Path, metavar="DIR", help="folder to publish the tree as")
    build.add_argument("--subarch", help="as in a spec; read off the folder's name if not given")
    build.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", type=_assignment,
        help="a spec key, such as pxeboot/timeout=5; may be given again for others",
    )  # fmt: skip
    build.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    build.add_argument("-q", "--quiet", action="store_true", help="print errors and warnings only")
    build.set_defaults(command=_build)


def _add_inspect(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="say what is in a livecd-stage2 folder or a netboot tree",
        description="Say what is in a livecd-stage2 folder, read from the files themselves, or"
        " what a netboot tree offers and what each way to its live root asks of a client.",
        allow_abbrev=False,
    )
    inspect.add_argument(
        "tree", type=Path, metavar="TREE", help="livecd-stage2 folder or netboot tree"
    )
    inspect.add_argument("--json", action="store_true", help="as JSON")
    inspect.set_defaults(command=_inspect)


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify",
        help="check a netboot tree against its manifest",
        description="Check every file of a netboot tree, and that its configurations fit it.",
        allow_abbrev=False,
    )
    verify.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    verify.add_argument(
        "--keyring", type=Path, metavar="FILE",
        help="OpenPGP public keys: the tree must be signed by one of them",
    )  # fmt: skip
    verify.add_argument(
        "--certificates", type=Path, metavar="FILE",
        help="certificates that iPXE trusts: each file it loads must be signed by one of them",
    )  # fmt: skip
    verify.add_argument("-q", "--quiet", action="store_true", help="print faults only")
    verify.set_defaults(command=_verify)


def _add_menu(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    menu = commands.add_parser(
        "menu",
        help="write one menu over all netboot trees below a folder",
        description="Write menu.ipxe, grub.cfg, pxelinux.cfg/default and releases.json over all"
        " netboot trees below ROOT, newest first. Trees that did not change are not read again.",
        allow_abbrev=False,
    )
    menu.add_argument("root", type=Path, metavar="ROOT", help="folder with netboot trees below it")
    menu.add_argument("--templates", type=Path, metavar="DIR", help="your own templates")
    menu.add_argument("--dry-run", action="store_true", help="say what would be written")
    menu.add_argument("-q", "--quiet", action="store_true", help="print errors and warnings only")
    menu.set_defaults(command=_menu)


def _add_boot_test(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    test = commands.add_parser(
        "boot-test",
        help="boot a netboot tree in QEMU",
        description="Boot a netboot tree in QEMU along every path that its loaders have, until"
        " the live system asks for a login. As root on a network of its own with real DHCP, TFTP"
        " and web servers; otherwise on QEMU's, as far as that goes.",
        allow_abbrev=False,
    )
    test.add_argument("tree", type=Path, metavar="TREE", help="netboot tree")
    test.add_argument("--firmware", choices=["bios", "efi"], help="only clients with this")
    test.add_argument("--loader", choices=["ipxe", "pxelinux", "grub"], help="only by this")
    test.add_argument("--memory", type=int, metavar="MIB", help="the client's memory (1024)")
    test.add_argument("--timeout", type=float, metavar="S", help="for each boot (300)")
    test.add_argument("--until", type=_pattern, metavar="REGEX", help="console line to wait for")
    test.add_argument("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    test.set_defaults(command=_boot_test)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


def _assignment(text: str) -> tuple[str, str | list[str] | None]:
    """Take KEY=VALUE apart; the value has the form that the spec parser gives it."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    words = value.split()
    return key, words[0] if len(words) == 1 else words or None


def _build(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    spec = _read_spec(parser, arguments)
    from catalyst_pxeboot import describe
    from catalyst_pxeboot.pipeline import build, make_plan

    def report(line: str) -> None:
        if not arguments.quiet:
            print(line, flush=True)

    if arguments.dry_run:
        for line in describe.plan_lines(make_plan(spec)):
            print(line)
        return
    built = build(spec, report=report)
    for line in describe.built_warnings(built):
        print(f"{PROGRAM}: warning: {line}", file=sys.stderr)
    for line in describe.built_lines(built):
        report(line)


def _read_spec(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Spec:
    from catalyst_pxeboot.spec import check_keys, parse_folders, parse_settings
    from catalyst_pxeboot.specfile import read_conf, read_spec

    folders = arguments.source or arguments.output or arguments.subarch
    if bool(arguments.file) == bool(folders):
        parser.error("build takes either -f SPEC, or --source TREE and --output DIR")
    changes: dict[str, object] = dict(arguments.set)
    conf = read_conf(arguments.config)
    if arguments.file:
        keys: dict[str, object] = {**read_spec(arguments.file), **changes}
        check_keys(list(keys))
        if keys["target"] != "pxeboot":
            raise PxebootError(
                f"target: {arguments.file} is a spec for {keys['target']}, not for pxeboot",
                hint="give the spec whose target is pxeboot",
            )
        return parse_settings({**conf, **keys})
    if not (arguments.source and arguments.output):
        parser.error("build needs both --source TREE and --output DIR")
    if arguments.subarch:
        changes["subarch"] = arguments.subarch
    check_keys(list(changes), required=())
    return parse_folders(arguments.source, arguments.output, {**conf, **changes})


def _inspect(_parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    from catalyst_pxeboot import describe
    from catalyst_pxeboot.publish import MANIFEST
    from catalyst_pxeboot.source import read_source
    from catalyst_pxeboot.verify import read_manifest

    if (arguments.tree / MANIFEST).exists():
        raw, manifest = read_manifest(arguments.tree)
        if arguments.json:
            sys.stdout.write(raw.decode())
            return
        for line in describe.tree_lines(arguments.tree, manifest):
            print(line)
        return
    source = read_source(arguments.tree)
    if arguments.json:
        print(json.dumps(describe.source_data(source), indent=1, ensure_ascii=False))
        return
    for line in describe.source_lines(source):
        print(line)


def _verify(_parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    from catalyst_pxeboot.verify import verify_tree

    verified = verify_tree(
        arguments.tree, keyring=arguments.keyring, certificates=arguments.certificates
    )
    if verified.faults:
        raise SpecError(verified.faults)
    if not arguments.quiet:
        print(f"{arguments.tree}: {verified.files} files as its manifest says")


def _menu(_parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    from catalyst_pxeboot.releases.write import write_menu

    def report(line: str) -> None:
        if not arguments.quiet:
            print(line, flush=True)

    written = write_menu(
        arguments.root,
        templates=arguments.templates,
        report=report,
        dry_run=arguments.dry_run,
    )
    for line in written.warnings:
        print(f"{PROGRAM}: warning: {line}", file=sys.stderr)


def _boot_test(_parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
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
        report=lambda result: print(f"{result.path.name}: {result.outcome}", flush=True),
    )
    for line in report.table_lines(results):
        print(line)
    passed = [result for result in results if result.outcome is Outcome.PASSED]
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    for result in failed:
        for line in result.console_tail:
            print(f"{result.path.name}| {line}")
    if failed or not passed:
        raise PxebootError(
            f"{arguments.tree}: {len(failed)} of {len(results)} paths failed, {len(passed)} passed",
            hint="the last lines of each console stand above"
            if failed
            else "the table says what each path lacks",
        )
