"""Temporary folders that a killed process leaves."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from catalyst_pxeboot.util.tempdir import scratch_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files, which is the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_is_there_for_as_long_as_the_context(place: Path) -> None:
    with pytest.raises(RuntimeError), scratch_folder() as one:
        (one / "deep").mkdir()
        (one / "deep/file").write_text("x")
        with scratch_folder() as other:
            assert one != other
            assert sorted(place.iterdir()) == sorted((one, other))
        assert (one / "deep/file").exists()  # nobody took it for an orphan
        raise RuntimeError
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_removed(place: Path) -> None:
    child = os.fork()
    if child == 0:
        with scratch_folder() as folder:
            (folder / "secret").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = place.iterdir()
    (place / "another").mkdir()
    with scratch_folder() as folder:
        assert not left.exists()
        assert sorted(place.iterdir()) == sorted((place / "another", folder))


def test_a_link_of_that_name_is_left_alone(place: Path) -> None:
    (place / "precious").mkdir()
    (place / "precious/file").touch()
    (place / "catalyst-pxeboot-x").symlink_to("precious")
    with scratch_folder():
        pass
    assert (place / "precious/file").exists()
