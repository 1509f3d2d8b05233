"""What commands say: one text form, one JSON schema, colour and progress for terminals only."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import catalyst_pxeboot
from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.cli.console import Color, Console
from catalyst_pxeboot.lab import boottest
from catalyst_pxeboot.lab.paths import PATHS
from catalyst_pxeboot.lab.result import Outcome, PathResult
from catalyst_pxeboot.spec import file as specfile
from catalyst_pxeboot.util.errors import PxebootError
from tests.support.paths import ROOT
from tests.support.stage2 import storedir_stage2

SCHEMA = json.loads((Path(catalyst_pxeboot.__file__).parent / "cli/output.schema.json").read_text())


@pytest.fixture(autouse=True)
def _no_catalyst_conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(specfile, "DEFAULT_CONF", tmp_path / "none")


@pytest.fixture
def tree(tmp_path: Path, storedir: Path) -> Path:
    output = tmp_path / "trees/one"
    output.parent.mkdir()
    source = str(storedir_stage2(storedir))
    loaders = ["--set", "pxeboot/loaders=ipxe"]
    assert cli.main(["build", "-q", "--source", source, "--output", str(output), *loaders]) == 0
    return output


def documents(argv: Sequence[str], capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Run a command with --json and return its lines, each checked against the schema."""
    capsys.readouterr()
    cli.main([*argv, "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for document in found:
        jsonschema.validate(document, SCHEMA)
    return found


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_each_command_prints_one_document(
    tmp_path: Path, storedir: Path, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(storedir_stage2(storedir))
    build = ["build", "--source", source, "--output", str(tmp_path / "two")]
    for argv in (
        [*build, "--dry-run"],
        build,
        ["inspect", source],
        ["inspect", str(tree)],
        ["verify", str(tree)],
        ["menu", str(tree.parent)],
        ["dhcp", str(tree), "--format", "kea"],
        ["export", str(tree), "--format", "treeinfo"],
        ["serve", str(tree), "--interface", "lo", "--dry-run"],
        ["keys", str(tmp_path / "keys")],
    ):
        (document,) = documents(argv, capsys)
        assert document["command"] == argv[0]
        assert document["ok"] is True
        assert document["problems"] == []
        assert len(document) > 4


def test_qemu_prints_one_document(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("no qemu-system-x86_64")
    (document,) = documents(["qemu", "--dry-run", "--firmware", "bios", str(tree)], capsys)
    assert document["script"][-1]


def test_boot_test_prints_one_document(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = {"http:boot.ipxe": 7}
    result = PathResult(PATHS[0], Outcome.FAILED, 1.25, "why", fetched, console_tail=("x",))
    monkeypatch.setattr(boottest, "boot_test", lambda *_args, **_keys: [result])
    (document,) = documents(["boot-test", str(tree)], capsys)
    assert document["ok"] is False
    assert document["paths"][0]["outcome"] == "failed"
    assert document["paths"][0]["seconds"] == 1.2


def test_a_failure_is_a_document_too(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "boot.ipxe").unlink()
    (document,) = documents(["verify", str(tree)], capsys)
    assert document["ok"] is False
    assert document["files"] > 0
    (problem,) = document["problems"]
    assert problem == {
        "message": "boot.ipxe: missing",
        "hint": "build the tree again",
    }
    (document,) = documents(["inspect", str(tree / "none")], capsys)
    assert document["ok"] is False
    assert len(document["problems"]) == 1
    (document,) = documents(["inspect", str(tree / ("x" * 300))], capsys)
    assert document["problems"][0]["hint"] == "check its permissions"


def test_schema_refuses_what_it_does_not_know() -> None:
    document = {"command": "verify", "ok": True, "warnings": [], "problems": []}
    jsonschema.validate(document, SCHEMA)
    for wrong in ({"command": "x"}, {"extra": 1}, {"ok": "yes"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **wrong}, SCHEMA)


def test_quiet_and_verbose(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert cli.main(["verify", "-q", str(tree)]) == 0
    assert capsys.readouterr() == ("", "")
    console = Console("p", "c")
    console.detail("more")
    Console("p", "c", verbose=True).detail("yes")
    assert capsys.readouterr().out == "yes\n"


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        (Color.AUTO, "p: error: a: b; c\n"),
        (Color.NEVER, "p: error: a: b; c\n"),
        (Color.ALWAYS, "p: \033[1;31merror:\033[0m a: b; c\n"),
    ],
)
def test_colour(color: Color, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    Console("p", "c", color=color).finish([PxebootError("a: b", hint="c")])
    assert capsys.readouterr().err == expected


def test_progress_in_a_log_is_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Console("p", "c").progress("Copying", 1 << 30) as advance:
        for done in range(0, (1 << 30) + 1, 1 << 20):
            advance(done)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"Copying: {percent} % of 1.0 GiB" for percent in range(10, 101, 10)]


@pytest.mark.parametrize("quiet", [True, False])
def test_no_progress_where_nobody_looks(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with Console("p", "c", json=not quiet, quiet=quiet).progress("Copying", 1 << 30) as advance:
        advance(1 << 30)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("term", "colored"), [("xterm", True), ("dumb", False)])
def test_on_a_terminal_there_is_colour_and_a_bar_that_goes(term: str, colored: bool) -> None:
    code = (
        "from catalyst_pxeboot.cli.console import Console\n"
        "console = Console('p', 'c')\n"
        "with console.progress('Copying', 1 << 30) as advance: advance(1 << 29)\n"
        "console.warning('w')\n"
    )
    parent, child = pty.openpty()
    environment = {"PATH": os.environ["PATH"], "TERM": term, "COLUMNS": "100"}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdin=child, stdout=child, stderr=child, env=environment,
    ) as process:  # fmt: skip
        os.close(child)
        text = b""
        try:
            while block := os.read(parent, 4096):
                text += block
        except OSError:
            pass  # how a terminal ends
        finally:
            os.close(parent)
    assert process.returncode == 0
    assert (b"Copying: 50 % of 1.0 GiB\r\n" not in text) is colored
    assert b"Copying" in text
    assert (b"\033[1;33mwarning:\033[0m w" in text) is colored
    assert b"w\r\n" in text
