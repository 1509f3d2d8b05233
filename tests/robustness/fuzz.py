"""Feeds every parser inputs that nobody meant, and prints what each did with them.

`python tests/fuzz.py [--runs N] [PARSER …]`. An input may be taken, or refused by an error of this
project's own; anything else is a finding, and so are more than 256 MiB of memory and more than
5 s of a processor. Findings are kept in .cache/fuzz and the exit code is 1.

atheris steers the inputs by what they reach of the code, where it is installed; elsewhere they
are seeds bent at random. `--replay FILE PARSER` runs a kept finding again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from tests.robustness.fuzztargets import Target

MAX_MEMORY: Final = 256 << 20  # bytes, the interpreter's own 50 MiB among them
MAX_SECONDS: Final = 5.0  # of a processor, so that other work on the machine is no finding
#: Where Python does not come to run again, the kernel ends the process after so many seconds.
PATIENCE: Final = 30.0
MAX_INPUT: Final = 20 << 10
PROGRAM: Final = "tests.robustness.fuzz"
FINDINGS: Final = ROOT / ".cache/fuzz"
_INTERRUPTED: Final = 72  # libFuzzer's exit code after SIGINT or SIGTERM
#: Where a parser's own process puts its scratch folder, for us to look into if it dies.
_PLACE: Final = "FUZZ_FOLDER"


class _TooLong(BaseException):
    """Not an Exception, as a parser could take it for a fault of its input."""


@dataclass(slots=True)
class Figures:
    """What came of the inputs of one parser."""

    parser: str
    engine: str = ""
    inputs: int = 0
    taken: int = 0
    refused: int = 0
    peak: int = 0  # bytes of memory, the most of the whole run
    slowest: float = 0.0  # seconds
    findings: dict[str, str] = field(default_factory=dict)  # by what went wrong, where it is kept
    skipped: str = ""


class Judge:
    """Gives a parser one input after the other and takes note of what it does."""

    def __init__(self, parser: str, target: Target, scratch: Path, errors: type[Exception]) -> None:
        self.figures = Figures(parser)
        self._target = target
        self._scratch = scratch
        self._errors = errors
        # What is left of an input that ends the process.
        self._current = scratch / "current"

    def __call__(self, data: bytes) -> None:
        self._current.write_bytes(data)
        figures = self.figures
        figures.inputs += 1
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
        begun = time.process_time()
        wrong = ""
        try:
            self._target.parse(data, self._scratch)
            figures.taken += 1
        except self._errors as error:
            figures.refused += 1
            if not str(error) or not str(error).isprintable():
                wrong = f"not one line: {str(error)!r}"
        except _TooLong:
            wrong = f"more than {MAX_SECONDS:g} s"
        except Exception as error:
            wrong = _place(error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        seconds = time.process_time() - begun
        figures.slowest = max(figures.slowest, seconds)
        if seconds > MAX_SECONDS:
            wrong = wrong or f"more than {MAX_SECONDS:g} s"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        # It never falls, so only the input that raised it is to blame.
        if peak > MAX_MEMORY >= figures.peak:
            wrong = wrong or f"more than {MAX_MEMORY >> 20} MiB"
        figures.peak = peak
        if wrong and wrong not in figures.findings:
            figures.findings[wrong] = keep(data, figures.parser)


def _place(error: Exception) -> str:
    """Name a bug by its kind and the line of this project that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "catalyst_pxeboot" in frame.filename] or frames[-1:]
    return f"{type(error).__name__} in {Path(own[-1].filename).name}, line {own[-1].lineno}"


def keep(data: bytes, parser: str) -> str:
    """Keep an input for a closer look; return where."""
    FINDINGS.mkdir(parents=True, exist_ok=True)
    path = FINDINGS / f"{parser}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return str(path.relative_to(ROOT))


@contextmanager
def judged(parser: str, *, instrument: bool = False) -> Iterator[Judge]:
    """Load a parser, and have atheris watch its code if so asked; give its judge."""
    if instrument:
        atheris = importlib.import_module("atheris")
        with atheris.instrument_imports(include=["catalyst_pxeboot"]):
            targets = importlib.import_module("tests.robustness.fuzztargets")
    else:
        targets = importlib.import_module("tests.robustness.fuzztargets")
    with alarms(), _scratch_folder() as scratch:
        target = targets.TARGETS[parser]()
        judge = Judge(parser, target, Path(scratch), targets.PxebootError)
        if target.lacks:
            judge.figures.skipped = f"{target.lacks} is not installed"
        yield judge


@contextmanager
def alarms() -> Iterator[None]:
    """Have a parser interrupted that takes too long."""
    before = signal.signal(signal.SIGPROF, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGPROF, before)


def _scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder in memory if that can be had: each input is written to a file."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="pxeboot-fuzz-", dir=os.environ.get(_PLACE, place))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise _TooLong


def fuzz_at_random(parser: str, runs: int, seed: int) -> Figures:
    """Give a parser its seeds, then `runs` inputs made of them in all."""
    choose = random.Random(seed)
    with judged(parser) as judge:
        figures = judge.figures
        figures.engine = "random"
        if figures.skipped:
            return figures
        target = judge._target
        known = list(target.seeds)
        for data in target.seeds[:runs]:
            judge(data)
        while figures.inputs < runs:
            taken = figures.taken
            data = mutate(choose, known, target.tokens)
            judge(data)
            # What is taken although it was bent is worth bending on.
            if figures.taken > taken and len(known) < 200:
                known.append(data)
        return figures


def mutate(choose: random.Random, known: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """Bend one of the inputs `known` in one to four places."""
    data = bytearray(choose.choice(known))
    for _ in range(choose.choice((1, 1, 2, 4))):
        at = choose.randrange(len(data) + 1)
        size = choose.choice((1, 1, 2, 4, 16, 100))
        match choose.randrange(8):
            case 0:
                data[at : at + 1] = bytes([choose.randrange(256)])
            case 1 if at < len(data):
                data[at] ^= 1 << choose.randrange(8)
            case 2:
                del data[at : at + size]
            case 3:
                data[at:at] = data[at : at + size] * choose.choice((1, 2, 50))
            case 4:
                data[at:at] = choose.choice(tokens or known)
            case 5:
                number = choose.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF))
                data[at : at + 4] = number.to_bytes(4, "little")
            case 6:
                other = choose.choice(known)
                data[at:] = other[choose.randrange(len(other) + 1) :]
            case _:
                data[at : at + size] = choose.randbytes(size)
    return bytes(data[:MAX_INPUT])


def fuzz_by_coverage(parser: str, runs: int, seed: int) -> None:
    """Have atheris choose the inputs; it ends the process, so the figures are printed first."""
    atheris = importlib.import_module("atheris")
    with judged(parser, instrument=True) as judge:
        figures = judge.figures
        figures.engine = "atheris"
        if figures.skipped or not runs:
            _print_figures(figures)
            return
        target = judge._target
        seeds, corpus = judge._scratch / "seeds", judge._scratch / "corpus"
        seeds.mkdir()
        corpus.mkdir()
        for number, data in enumerate(target.seeds):
            (seeds / str(number)).write_bytes(data)
        words = judge._scratch / "words"
        tokens = target.tokens or (target.seeds[0][:4],)  # an empty list is none to it
        words.write_text("".join(f'"{_hex(token)}"\n' for token in tokens))

        def test(data: bytes) -> None:
            judge(data)
            if figures.inputs >= runs:
                _print_figures(figures)
                os._exit(0)

        atheris.Setup(
            [sys.argv[0], f"-seed={seed}", f"-max_len={MAX_INPUT}", f"-dict={words}",
             "-rss_limit_mb=0", "-timeout=600", "-verbosity=0", f"-artifact_prefix={corpus}/",
             str(corpus), str(seeds)],
            test,
        )  # fmt: skip
        atheris.Fuzz()


def _hex(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _print_figures(figures: Figures) -> None:
    print(json.dumps(asdict(figures)), flush=True)


def fuzz_apart(parser: str, runs: int, seed: int, *, atheris: bool) -> Figures:
    """Fuzz one parser in a process of its own, which may die of an input."""
    with _scratch_folder() as folder:
        argv = [sys.executable, "-m", PROGRAM, "--runs", str(runs), "--seed", str(seed), "--here",
                "coverage" if atheris else "random", parser]  # fmt: skip
        # Its scratch folders lie in here, so the input that ended it can be found.
        done = subprocess.run(
            argv, capture_output=True, check=False, cwd=ROOT, env={**os.environ, _PLACE: folder}
        )
        lines = done.stdout.decode(errors="replace").splitlines()
        if done.returncode == 0 and lines:
            return Figures(**json.loads(lines[-1]))
        figures = Figures(parser, "atheris" if atheris else "random")
        wrong = f"the process ended with {done.returncode}"
        if done.returncode == _INTERRUPTED:
            wrong = "somebody ended the process"
        elif done.returncode == -signal.SIGVTALRM:
            wrong = f"more than {PATIENCE:.0f} s in C code"
        last = next(Path(folder).rglob("current"), None)
        kept = keep(last.read_bytes() if last else b"", parser)
        (ROOT / f"{kept}.log").write_bytes(done.stderr)
        figures.findings[wrong] = kept
        return figures


def table_lines(rows: Sequence[Figures]) -> Iterator[str]:
    """Yield the figures as a table, and under it every finding."""
    yield (
        f"{'parser':18} {'engine':8} {'inputs':>8} {'taken':>8} {'refused':>8} {'MiB':>5}"
        f" {'slowest':>9} {'findings':>8}"
    )
    for row in rows:
        if row.skipped:
            yield f"{row.parser:18} not fuzzed: {row.skipped}"
            continue
        yield (
            f"{row.parser:18} {row.engine:8} {row.inputs:8} {row.taken:8} {row.refused:8}"
            f" {row.peak >> 20:5} {row.slowest * 1000:6.0f} ms {len(row.findings):8}"
        )
    for row in rows:
        for wrong, where in row.findings.items():
            yield f"FINDING {row.parser}: {wrong}; kept as {where}"


def main(argv: Sequence[str]) -> int:
    """Fuzz the parsers named, or all; the exit code is 1 if there were findings."""
    parser = argparse.ArgumentParser(description="Feed the parsers inputs that nobody meant.")
    parser.add_argument("parsers", nargs="*", metavar="PARSER", help="all if none is named")
    parser.add_argument("--runs", type=int, default=100_000, help="inputs to each parser")
    parser.add_argument("--seed", type=int, default=1, help="of what is left to chance")
    parser.add_argument("--random", action="store_true", help="do without atheris")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="one input, to see its error")
    parser.add_argument("--here", choices=("coverage", "random"), help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.replay:
        return replay(arguments.parsers[0], arguments.replay.read_bytes())
    if arguments.here == "coverage":
        fuzz_by_coverage(arguments.parsers[0], arguments.runs, arguments.seed)
        return 0
    if arguments.here == "random":
        _print_figures(fuzz_at_random(arguments.parsers[0], arguments.runs, arguments.seed))
        return 0
    known = importlib.import_module("tests.robustness.fuzztargets").TARGETS
    if unknown := sorted(set(arguments.parsers) - set(known)):
        parser.error(f"no such parser: {', '.join(unknown)}; there are {', '.join(known)}")
    atheris = not arguments.random and importlib.util.find_spec("atheris") is not None
    begun = time.monotonic()
    rows = []
    for name in arguments.parsers or known:
        rows.append(fuzz_apart(name, arguments.runs, arguments.seed, atheris=atheris))
        print(f"{name}: {rows[-1].inputs} inputs, {len(rows[-1].findings)} findings", flush=True)
    print(*table_lines(rows), sep="\n")
    inputs = sum(row.inputs for row in rows)
    print(f"\n{inputs} inputs in {time.monotonic() - begun:.0f} s, seed {arguments.seed}")
    return 1 if any(row.findings for row in rows) else 0


def replay(parser: str, data: bytes) -> int:
    """Give a parser one input and show what it does."""
    with judged(parser) as judge:
        judge(data)
        print(judge.figures)
        if judge.figures.findings:
            signal.setitimer(signal.ITIMER_PROF, 2 * MAX_SECONDS)
            judge._target.parse(data, judge._scratch)
    return 1 if judge.figures.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
