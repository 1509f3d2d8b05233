"""Files that may be anything."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from catalyst_pxeboot.util.files import open_regular, read_regular


def test_reads_a_file_and_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    for name in ("a", "b"):
        assert read_regular(tmp_path / name, limit=3) == b"abc"
        with open_regular(tmp_path / name) as file:
            assert file.read() == b"abc"
    with pytest.raises(OSError, match=r"\[Errno 27\] More than 2 bytes"):
        read_regular(tmp_path / "a", limit=2)


def test_nothing_else_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(OSError, match="Not a regular file") as raised:
            open_regular(path)
        assert raised.value.filename == str(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
    with pytest.raises(OSError, match="No such device or address"):
        open_regular(tmp_path / "socket")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
