"""In continuous integration nothing that can be installed is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize(
    ("reason", "strict", "code"),
    [
        ("ruby is not installed", True, 1),
        ("ruby is not installed", False, 0),
        ("CATALYST_SRC names no checkout", True, 0),
    ],
)
def test_a_skip_fails_where_skips_are_strict(
    tmp_path: Path, reason: str, strict: bool, code: int
) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(
        f"import pytest\ndef test_it():\n    pytest.skip({reason!r})\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PXEBOOT_STRICT_SKIPS"}
    if strict:
        environment["PXEBOOT_STRICT_SKIPS"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={tmp_path}",
         str(tmp_path)],
        env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == code, done.stdout
