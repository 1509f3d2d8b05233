"""Serving in tests: small trees, the command as a process, and what it tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.process import find_program
from tests.integration.test_output import SCHEMA
from tests.support.stage2 import STAMP, write_stage2

COMMAND = (sys.executable, "-m", "catalyst_pxeboot")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def make_tree(folder: Path, **parts: Any) -> Path:
    """Build a netboot tree of a made-up live image in `folder`."""
    stage2 = write_stage2(folder / f"livecd-stage2-amd64-{STAMP}", **parts)
    spec = parse_folders(stage2, folder / "tree", {"digests": ["blake2b"]})
    return build(spec, report=lambda _line: None).output


@dataclass
class Served:
    """A running `serve --json`, and the events that it has told so far."""

    process: subprocess.Popen[bytes]
    output: Path
    errors: Path
    events: list[dict[str, Any]] = field(default_factory=list)

    def wait_for(
        self, fits: Callable[[dict[str, Any]], bool], *, seconds: float = 20
    ) -> dict[str, Any]:
        """Wait until it tells an event that fits, and return that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.read()
            for event in self.events:
                if fits(event):
                    return event
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no such event: {self.events} {self.errors.read_text()}")

    def read(self) -> list[dict[str, Any]]:
        """Read all events so far."""
        lines = self.output.read_text("utf-8").split("\n")[:-1]
        for line in lines[len(self.events) :]:
            event = json.loads(line)
            VALIDATOR.validate(event)
            self.events.append(event)
        return self.events

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """Return the events of a kind."""
        return [event for event in self.read() if event.get("event") == kind]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextmanager
def serving(
    tree: Path,
    folder: Path,
    *options: str,
    inside: Callable[[Sequence[str | Path]], Sequence[str]] = lambda argv: list(map(str, argv)),
    without: Sequence[str] = (),
    seconds: float = 30,
) -> Iterator[Served]:
    """Run `serve --json TREE` while the context lasts; enter when it serves.

    `inside` writes the command line that runs it elsewhere. `without` names programs that it
    must not find. Its scratch folders are in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    output, errors, scratch = folder / "events", folder / "errors", folder / "tmp"
    scratch.mkdir(exist_ok=True)
    # The servers' account must get through to both. pytest's folders are closed.
    for place in (scratch, *scratch.parents, *tree.parents):
        if not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o111)
    environment = dict(os.environ) | {"TMPDIR": str(scratch)}
    if without:
        environment["PXEBOOT_TEST_WITHOUT"] = ":".join(without)
    code = "from tests.support import serve_trees; serve_trees.run_without()"
    start = [sys.executable, "-c", code] if without else list(COMMAND)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    argv = inside([*start, "serve", str(tree), "--json", *options])
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment
        )
    served = Served(process, output, errors)
    try:
        served.wait_for(lambda event: event.get("event") == "serving", seconds=seconds)
        yield served
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_without() -> None:
    """Run the command on a machine that lacks the programs named by PXEBOOT_TEST_WITHOUT."""
    from catalyst_pxeboot.cli import main as cli
    from catalyst_pxeboot.serve import facts

    hidden = os.environ["PXEBOOT_TEST_WITHOUT"].split(":")

    def find(name: str) -> Path | None:
        return None if name in hidden else find_program(name)

    vars(facts)["find_program"] = find
    sys.argv[0] = cli.PROGRAM
    cli.run()
