"""The text on a client's screen: drawn here with the font, and really on one in QEMU."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.lab import screen as screen_room
from catalyst_pxeboot.lab import watch
from catalyst_pxeboot.lab.boottest import run_path
from catalyst_pxeboot.lab.paths import find_paths
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.lab.screen import Screen
from catalyst_pxeboot.lab.screentext import _LINUX, find_font, read_screen
from catalyst_pxeboot.lab.watch import watch_machine
from catalyst_pxeboot.spec.parse import parse_folders
from catalyst_pxeboot.util.errors import CommandError, FormatError
from tests.boot.test_loaders import TIMEOUT
from tests.support import live_image as liveimage
from tests.support.paths import CACHE
from tests.support.stage2 import STAMP

FONT = find_font()
needs_font = pytest.mark.skipif(not FONT, reason="QEMU's VGA BIOS is missing: seabios")

PROMPT = "livecd ~ # "
ASCII = "".join(map(chr, range(33, 127)))


def draw(
    lines: list[str], width: int, height: int, *, ink: bytes = b"\xaa\xaa\xaa", linux: bool = False
) -> bytes:
    """Draw text as a PPM picture: in cells of 9 pixels for a width of 720, otherwise of 8."""
    wide = 9 if width == 720 else 8
    rows = [bytearray(width * 3) for _ in range(height)]
    for line, text in enumerate(lines):
        for column, letter in enumerate(text):
            shape = FONT[ord(letter) * 16 : ord(letter) * 16 + 16]
            if linux and letter in _LINUX:
                shape = bytes.fromhex(_LINUX[letter])
            for y, bits in enumerate(shape):
                for x in range(8):
                    if bits & 0x80 >> x:
                        left = (column * wide + x) * 3
                        rows[line * 16 + y][left : left + 3] = ink
    return b"P6\n%d %d\n255\n" % (width, height) + b"".join(rows)


@needs_font
@pytest.mark.parametrize(
    ("width", "height", "linux"), [(720, 400, False), (1280, 800, True), (1024, 768, True)]
)
def test_all_letters(width: int, height: int, linux: bool) -> None:
    lines = ["", ASCII[:60], "", "  " + ASCII[60:], PROMPT]
    seen = read_screen(draw(lines, width, height, linux=linux), FONT)
    assert list(seen[:6]) == ["", ASCII[:60], "", "  " + ASCII[60:], PROMPT.rstrip(), ""]
    assert len(seen) == height // 16


@needs_font
def test_colours_do_not_matter() -> None:
    assert read_screen(draw([PROMPT], 640, 480, ink=b"\xff\x55\x55"), FONT)[0] == "livecd ~ #"


@needs_font
def test_a_picture_without_text() -> None:
    noise = bytes(range(256)) * (640 * 480 * 3 // 256)
    assert not any("livecd" in line for line in read_screen(b"P6 640 480 255\n" + noise, FONT))


@pytest.mark.parametrize(
    "picture",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"P6 2 2 255\n" + bytes(11),
        b"P6 2 2 65535\n" + bytes(24),
        b"P6 -2 -2 255\n" + bytes(12),
        b"P6 x 2 255\n" + bytes(12),
    ],
)
def test_no_picture(picture: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        read_screen(picture, bytes(4096))
    assert str(caught.value) == "a picture of the screen is no whole PPM picture"


@needs_font
def test_a_cursor_is_no_letter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picture = draw(["", PROMPT + "_"], 720, 400)
    monkeypatch.setattr(screen_room, "take_screen", lambda _control: picture)
    shown = Screen()
    assert shown.read() == ()  # no client yet
    shown.control(tmp_path)
    assert shown.read() == ("livecd ~ #",)


def test_a_screen_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_control: Path) -> bytes:
        raise CommandError("QEMU ended")

    monkeypatch.setattr(screen_room, "take_screen", refuse)
    shown = Screen()
    shown.control(tmp_path)
    assert shown.read() == ()
    shown.save(running=True)
    assert shown.fault == ""  # nobody asked for a picture


class Shown(Screen):
    """A screen with given text."""

    def __init__(self, *lines: str) -> None:
        super().__init__()
        self.lines = lines

    def read(self) -> tuple[str, ...]:
        return self.lines


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_PROMPT", 0.05)
    monkeypatch.setattr(watch, "_LOOK", 0.2)


SILENT = ("/bin/sh", "-c", "echo ok; exec sleep 60")


def test_the_screen_decides_where_the_console_is_silent(quick: None) -> None:
    until = re.compile("^livecd ~ # ?$")
    verdict = watch_machine(SILENT, until=until, timeout=10, screen=Shown("Hello", "livecd ~ #"))
    assert (verdict.passed, verdict.reason, verdict.by_screen) == (True, "livecd ~ #", True)
    verdict = watch_machine(
        SILENT, until=until, timeout=10, screen=Shown("Kernel panic - not syncing: x")
    )
    assert (verdict.passed, verdict.reason) == (
        False,
        "the console shows 'Kernel panic - not syncing'",
    )


def test_the_screen_is_told_when_time_is_over(quick: None) -> None:
    verdict = watch_machine(
        SILENT, until=re.compile("never"), timeout=0.5, screen=Shown("a menu", "Power off")
    )
    assert (verdict.passed, verdict.timed_out, verdict.by_screen) == (False, True, False)
    assert verdict.console_tail == ("ok",)
    assert verdict.screen == ("a menu", "Power off")


def test_a_talking_console_is_believed(quick: None) -> None:
    argv = (
        "/bin/sh",
        "-c",
        "for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done; echo done; sleep 9",
    )
    verdict = watch_machine(
        argv, until=re.compile("done|screen"), timeout=10, screen=Shown("screen")
    )
    assert (verdict.reason, verdict.by_screen) == ("done", False)


@needs_font
@pytest.mark.boot
@pytest.mark.more
@pytest.mark.timeout(600)
@pytest.mark.parametrize("row", ["bios-pxelinux", "x64-grub"])
def test_a_prompt_on_the_screen_only(
    row: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live system as Gentoo's: root is logged in on tty1, and nobody on the serial line."""
    up = (
        "{ echo 'Welcome to the Gentoo Linux Minimal Installation CD!'; "
        r"printf '\n\033[01;31mlivecd\033[01;34m ~ #\033[00m '; } >/dev/tty1"
        "\nexec busybox sleep 3600\n"
    )
    init, found = re.subn(r'(?m)^finish "@TOKEN@ .*\n', lambda _: up, liveimage._INIT)
    assert found == 1
    monkeypatch.setattr(liveimage, "_INIT", init)
    try:
        stage2 = liveimage.build_live_image(
            tmp_path / "stage2", cache=CACHE, generator="genkernel-like"
        )
    except CommandError as error:
        pytest.skip(str(error))
    settings = {"subarch": "amd64", "version_stamp": STAMP, "pxeboot/timeout": "1"}
    tree = build(
        parse_folders(stage2, tmp_path / "tree", settings), report=lambda _line: None
    ).output
    (path,) = find_paths([row])
    result = run_path(tree, path, timeout=TIMEOUT, screenshot=tmp_path / "shot.png")
    if result.outcome is Outcome.SKIPPED:
        pytest.skip(result.reason)
    assert result.outcome is Outcome.PASSED, (result.reason, *result.console_tail)
    assert result.reason.startswith(("Welcome to the Gentoo Linux Minimal", "livecd ~ #"))
    assert "seen on the screen: the serial console did not show it" in result.note
    assert result.screenshot == tmp_path / "shot.png"
    assert (tmp_path / "shot.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["shot.png", "stage2", "tree"]
