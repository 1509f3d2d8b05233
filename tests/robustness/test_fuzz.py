"""A short run of the fuzzer, and proof that it finds what it is there to find.

`python tests/fuzz.py` is the long one, and uses atheris where that is installed.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import pytest

from catalyst_pxeboot.util.errors import FormatError, PxebootError
from tests.robustness import fuzz
from tests.robustness.fuzz import Figures, Judge, fuzz_at_random, table_lines
from tests.robustness.fuzztargets import TARGETS, Target
from tests.robustness.syscalls import call_apart

#: Each lzo archive is unpacked by a process of its own.
RUNS = {"initramfs-lzo": 150, "manifest": 1000, "config-ipxe": 1000, "config-grub": 1000}
#: What no input is refused by: it tells all faults of a text at once.
NEVER_REFUSED = {name for name in TARGETS if name.startswith("config-")}


@pytest.mark.parametrize("parser", TARGETS)
def test_nothing_but_errors_of_this_project(parser: str) -> None:
    runs = RUNS.get(parser, 2000)
    figures = call_apart(partial(fuzz_at_random, parser, runs, seed=7))
    if figures.skipped:
        pytest.skip(figures.skipped)
    assert figures.findings == {}
    assert figures.inputs == runs
    assert figures.taken > runs / 50
    assert (figures.refused > runs / 50) is (parser not in NEVER_REFUSED)


# --- what it would find -------------------------------------------------------------------------


def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parse: object) -> Figures:
    """Give the input `b"x"` to a parser that is at fault."""
    monkeypatch.setattr(fuzz, "FINDINGS", tmp_path / "findings")
    monkeypatch.setattr(fuzz, "ROOT", tmp_path)
    judge = Judge("x", Target(parse, (b"x",)), tmp_path, PxebootError)  # type: ignore[arg-type]

    def run() -> Figures:
        with fuzz.alarms():
            judge(b"x")
        return judge.figures

    return call_apart(run)


def test_a_bug_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(_data: bytes, _scratch: Path) -> object:
        raise IndexError("bug")

    figures = judged(tmp_path, monkeypatch, parse)
    (what,) = figures.findings
    assert what.startswith("IndexError in test_fuzz.py, line ")
    assert (tmp_path / figures.findings[what]).read_bytes() == b"x"
    *_, last = table_lines([figures])
    assert last == f"FINDING x: {what}; kept as {figures.findings[what]}"


def test_an_error_of_several_lines_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Long(PxebootError):
        def __str__(self) -> str:
            return "a\nb"

    def parse(_data: bytes, _scratch: Path) -> object:
        raise Long("x")

    assert list(judged(tmp_path, monkeypatch, parse).findings) == ["not one line: 'a\\nb'"]


def test_what_takes_too_long_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "MAX_SECONDS", 0.1)

    def parse(_data: bytes, _scratch: Path) -> object:
        while True:
            time.monotonic()

    assert list(judged(tmp_path, monkeypatch, parse).findings) == ["more than 0.1 s"]


def test_what_takes_too_much_memory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(_data: bytes, _scratch: Path) -> object:
        return len(b"x" * (300 << 20))

    assert list(judged(tmp_path, monkeypatch, parse).findings) == ["more than 256 MiB"]


def test_what_is_refused_is_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(_data: bytes, _scratch: Path) -> object:
        raise FormatError("damaged", hint="copy it again")

    figures = judged(tmp_path, monkeypatch, parse)
    assert (figures.refused, figures.taken, figures.findings) == (1, 0, {})


def test_a_parser_that_ends_the_process_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bug of a library in C does; the input is kept."""
    monkeypatch.setattr(fuzz, "FINDINGS", tmp_path / "findings")
    monkeypatch.setattr(fuzz, "ROOT", tmp_path)
    program = tmp_path / "dies.py"
    program.write_text(
        "import os, pathlib\n"
        "folder = pathlib.Path(os.environ['FUZZ_FOLDER'], 'deep')\n"
        "folder.mkdir()\n"
        "(folder / 'current').write_bytes(b'evil')\n"
        "os.abort()\n"
    )
    monkeypatch.setattr(fuzz, "PROGRAM", "dies")
    figures = fuzz.fuzz_apart("x", 1, 1, atheris=False)
    ((what, where),) = figures.findings.items()
    assert what == "the process ended with -6"
    assert (tmp_path / where).read_bytes() == b"evil"
