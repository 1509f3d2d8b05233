"""catalyst-pxeboot build: a netboot tree from a spec, a livecd-stage2 folder or an ISO."""

from __future__ import annotations

import argparse
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.cli import personal
from catalyst_pxeboot.cli.console import Advance, Console
from catalyst_pxeboot.util.errors import PxebootError

if TYPE_CHECKING:
    from catalyst_pxeboot.spec.parse import Spec


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command's options."""
    parser = commands.add_parser(
        "build",
        help="make a netboot tree from an ISO or a livecd-stage2 build",
        description="Make a netboot tree, either as a spec file says (the same as `catalyst -f`)"
        " or from an ISO or a livecd-stage2 folder anywhere.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-f", "--file", type=Path, metavar="SPEC", help="spec file with target: pxeboot"
    )
    parser.add_argument("-c", "--config", type=Path, metavar="CONF", help="catalyst.conf to go by")
    parser.add_argument(
        "--source", type=Path, metavar="ISO|FOLDER", help="live ISO or livecd-stage2 folder"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER",
        help="folder to publish the tree as; else the source's name and -netboot, here",
    )  # fmt: skip
    parser.add_argument(
        "--keyring", type=Path, metavar="FILE",
        help="OpenPGP public keys: the ISO must be signed by one of them",
    )  # fmt: skip
    parser.add_argument(
        "--subarch", help="as in a spec; read off the source's name or kernel if not given"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", type=_assignment,
        help="a spec key, such as pxeboot/timeout=5; may be given again for others",
    )  # fmt: skip
    personal.add_options(parser, hosts=True)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and write nothing")
    parser.set_defaults(run=run, usage_error=parser.error)


def _assignment(text: str) -> tuple[str, str | list[str] | None]:
    """Take KEY=VALUE apart; the value has the form that the spec parser gives it."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    words = value.split()
    return key, words[0] if len(words) == 1 else words or None


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Build the tree, or print what would be built."""
    spec = _read_spec(arguments, console)
    from catalyst_pxeboot.build.pipeline import build, make_plan

    if arguments.dry_run:
        from catalyst_pxeboot.build import report as describe

        with _Progress(console) as progress:
            plan = make_plan(spec, report=console.detail, progress=progress)
        console.result(describe.plan_data(plan))
        for line in describe.plan_lines(plan):
            console.line(line)
        return
    with _Progress(console) as progress:
        built = build(spec, report=console.step, progress=progress)
    from catalyst_pxeboot.build import report as describe

    console.result(describe.built_data(built))
    for line in describe.built_warnings(built):
        console.warning(line)
    for line in describe.built_lines(built):
        console.step(line)
    if arguments.source:
        console.step(f"Serve it: catalyst-pxeboot serve {shlex.quote(str(built.output))}")
    for file in built.files:
        console.detail(f"{file.path}  {file.role}, {file.bytes} bytes, {file.origin}")


def _read_spec(arguments: argparse.Namespace, console: Console) -> Spec:
    from catalyst_pxeboot.build.pipeline import parse_image
    from catalyst_pxeboot.spec.file import read_conf, read_spec
    from catalyst_pxeboot.spec.keys import ignored_warnings
    from catalyst_pxeboot.spec.names import default_output
    from catalyst_pxeboot.spec.parse import check_keys, parse_settings

    folders = arguments.source or arguments.output or arguments.subarch
    if bool(arguments.file) == bool(folders):
        arguments.usage_error("build takes either -f SPEC, or --source ISO or folder")
    changes: dict[str, object] = {**dict(arguments.set), **personal.spec_keys(arguments)}
    if arguments.keyring:
        changes["pxeboot/keyring"] = str(arguments.keyring.absolute())
    conf = read_conf(arguments.config)
    if arguments.file:
        keys: dict[str, object] = {**read_spec(arguments.file), **changes}
        check_keys(list(keys))
        if keys["target"] != "pxeboot":
            raise PxebootError(
                f"target: {arguments.file} is a spec for {keys['target']}, not for pxeboot",
                hint="give the spec whose target is pxeboot",
            )
        for line in ignored_warnings(keys):
            console.warning(line)
        return parse_settings({**conf, **keys})
    if not arguments.source:
        arguments.usage_error("build needs --source ISO or folder")
    if arguments.subarch:
        changes["subarch"] = arguments.subarch
    check_keys(list(changes), required=())
    output = arguments.output or default_output(arguments.source)
    return parse_image(arguments.source, output, {**conf, **changes})


class _Progress:
    """Shows one thing after the other, as the pipeline comes to it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stack = ExitStack()
        self._what = ""
        self._advance: Advance

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._stack.close()
            self._what = what
            self._advance = self._stack.enter_context(self._console.progress(what, total))
        self._advance(done)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()
