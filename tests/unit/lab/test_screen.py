"""Pictures of the screen."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import boottest
from catalyst_pxeboot.lab.machine import BIOS, Accel, Front, TapLink, qemu_argv
from catalyst_pxeboot.lab.qmp import save_screen
from catalyst_pxeboot.util.errors import CommandError, PublishError
from tests.support.lab import ROW_1


def test_names_of_pictures() -> None:
    file = Path("out/shot.png")
    assert boottest.picture_name(None, ROW_1, alone=True) is None
    assert boottest.picture_name(file, ROW_1, alone=True) == file
    assert boottest.picture_name(file, ROW_1, alone=False) == Path("out/shot-bios-ipxe.png")


def test_argv_with_a_control_socket() -> None:
    front = Front(display="gtk", serial="vc", control=Path("/run/a,b/control"))
    words = qemu_argv(BIOS, TapLink("t"), qemu=Path("/q"), accel=Accel.TCG, front=front)
    assert " ".join(words[words.index("-display") : words.index("-no-reboot")]) == (
        "-display gtk -vga std -monitor none -serial vc "
        "-qmp unix:/run/a,,b/control,server=on,wait=off"
    )


@contextmanager
def qmp_server(control: Path, *answers: str, writes: bool = True) -> Iterator[list[str]]:
    """Stand in for QEMU's control socket: one answer a command; a picture is "PNG"."""
    seen: list[str] = []

    def serve() -> None:
        link, _ = listener.accept()
        with link, link.makefile("rw") as stream:
            stream.write('{"QMP": {}}\n')
            stream.flush()
            for answer in answers:
                command = json.JSONDecoder().raw_decode(link.recv(4096).decode())[0]
                seen.append(command["execute"])
                if writes and "filename" in command["arguments"]:
                    Path(command["arguments"]["filename"]).write_bytes(b"PNG")
                stream.write(f"{answer}\n")
                stream.flush()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(control))
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        yield seen
        thread.join()


DONE = '{"return": {}}'


def test_a_picture_of_the_screen(tmp_path: Path) -> None:
    file = tmp_path / "shot.png"
    file.write_bytes(b"old")
    answers = (DONE, '{"event": "RESUME"}\n' + DONE)
    with qmp_server(tmp_path / "control", *answers) as seen:
        save_screen(tmp_path / "control", file)
    assert seen == ["qmp_capabilities", "screendump"]
    assert file.read_bytes() == b"PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control", "shot.png"]


def test_a_picture_that_qemu_refuses(tmp_path: Path) -> None:
    file = tmp_path / "shot.png"
    answer = '{"error": {"desc": "Parameter \'format\' is unexpected"}}'
    with (
        qmp_server(tmp_path / "control", DONE, answer, writes=False),
        pytest.raises(CommandError) as caught,
    ):
        save_screen(tmp_path / "control", file)
    assert str(caught.value) == (
        "QEMU refused screendump: Parameter 'format' is unexpected; "
        "a picture of the screen needs QEMU 7.1 or newer, built with PNG"
    )
    assert not file.exists()


def test_a_picture_without_qemu(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        save_screen(tmp_path / "control", tmp_path / "shot.png")
    assert str(caught.value) == (
        "QEMU did not answer on its control socket: [Errno 2] No such file or directory"
    )


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        qmp_server(tmp_path / "control", DONE, DONE),
        pytest.raises(PublishError) as caught,
    ):
        save_screen(tmp_path / "control", tmp_path / "none/shot.png")
    assert caught.value.message.startswith(f"{tmp_path}/none/shot.png could not be written: No ")
