"""Files that may be anything."""

from __future__ import annotations

import ast
import os
import socket
from pathlib import Path

import pytest

from catalyst_pxeboot.util.files import open_regular, read_regular
from tests.support.paths import ROOT


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


#: Modules that open files without `util/files.py`, and why that is right.
OPENERS = {
    "cli/main.py": "/dev/null",
    "build/uki.py": "files of the staging folder",
    "formats/elf.py": "the build host's own programs",
    "stream/tools.py": "the build host's ld.so.conf",
    "lab/network.py": "a device of the kernel",
    "lab/serve.py": "logs and settings in a scratch folder",
    "lab/servers.py": "logs in a scratch folder",
    "lab/watch.py": "a log that it writes",
    "render/pages.py": "a configuration that this build has just written",
    "serve/events.py": "the kernel's table of addresses",
    "services/logs.py": "logs in a scratch folder",
    "serve/facts.py": "the kernel's table of routes",
    "serve/pinned.py": "files through open_regular; what it makes in a scratch folder",
    "personal/files.py": "in a folder held open, with O_NOFOLLOW and O_NONBLOCK",
    "serve/reports.py": "appends to a file of the user's",
    "serve/run.py": "a scratch folder's",
    "serve/ports.py": "the kernel's tables of sockets",
    "services/children.py": "logs in a scratch folder",
    "services/web.py": "its own log and settings",
    "spec/file.py": "the user's own spec, which may be a pipe",
    "tree/stage.py": "files of the staging folder, and the source with O_NONBLOCK",
    "util/files.py": "the functions themselves",
    "util/resources.py": "files of this package",
    "util/tempdir.py": "folders",
    "formats/signing/keyset.py": "files that it writes",
    "formats/signing/openpgp.py": "status lines in a scratch folder",
    "formats/signing/secureboot.py": "a program in a scratch folder",
}
_OPENING = {"open", "read_bytes", "read_text"}


def test_nothing_else_opens_files() -> None:
    """What somebody else wrote may be a pipe or have no end: `open_regular` and `read_regular`."""
    found = set()
    for path in (ROOT / "catalyst_pxeboot").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            # A live image's own `open` goes through open_regular.
            image = isinstance(called, ast.Attribute) and ast.unparse(called.value).endswith(
                "image"
            )
            if name in _OPENING and not image:
                found.add(str(path.relative_to(ROOT / "catalyst_pxeboot")))
    assert found == OPENERS.keys()
