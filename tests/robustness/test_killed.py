"""A build that is killed at any step leaves the old tree or the new one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.files import list_files
from tests.support.stage2 import STAMP, release_settings, storedir_stage2

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from tests.support.release_trees import make_manifest
from tests.support.stage2 import release_settings
from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.spec.parse import parse_settings
left = {point}
def trace(event, _args):
    global left
    if event in ("open", "os.link", "os.mkdir", "os.rename", "os.utime", "os.chmod", "os.remove",
                 "os.rmdir", "fcntl.ioctl", "shutil.rmtree", "ctypes.dlsym", "os.truncate"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
spec = parse_settings(release_settings(Path({store!r}), pxeboot__timeout="7"))
sys.addaudithook(trace)
build(spec, report=lambda line: None)
"""


def test_killed_at_any_step_leaves_the_old_tree_or_the_new_one(storedir: Path) -> None:
    """SIGKILL at writing calls spread over a build, from the first to beyond the last."""
    settings = release_settings(storedir, pxeboot__loaders=["ipxe", "pxelinux"])
    source = {path: path.read_bytes() for path in storedir_stage2(storedir).rglob("*.*g*")}
    output = build(parse_settings(settings), report=lambda _line: None).output
    old = {name: (output / name).read_bytes() for name in list_files(output)}
    seen = set()
    point = 1
    while True:
        script = KILLED.format(path=sys.path, point=point, store=str(storedir))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        there = {name: (output / name).read_bytes() for name in list_files(output)}
        is_old = there == old
        assert is_old or b'"timeout": 7,' in there["manifest.json"], point
        seen.add(is_old)
        assert {path: path.read_bytes() for path in source} == source
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, done.stderr.decode()
            break
        if not is_old:
            build(parse_settings(settings), report=lambda _line: None)
        point += 1 if point < 4 else max(1, point // 3)
    assert seen == {True, False}
    left = sorted(path.name for path in output.parent.iterdir())
    assert left == [storedir_stage2(storedir).name, f"pxeboot-amd64-{STAMP}"]
