"""How one boot is judged, with a stand-in for QEMU."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from catalyst_pxeboot.lab import watch
from catalyst_pxeboot.lab.machine import Accel
from catalyst_pxeboot.lab.watch import watch_machine
from catalyst_pxeboot.model.loader import Firmware, Loader
from tests.support.boot import BootResult, Client, boot_tree
from tests.support.lab import write_script


def judge_boot(tree: Path, script: str, timeout: float = 10, log: Path | None = None) -> BootResult:
    write_script(tree.parent / "qemu", script)
    client = Client("a", Loader.PXELINUX, Firmware.BIOS)
    return boot_tree(tree, client, token="reached", timeout=timeout, log=log, accel=Accel.TCG)


def test_boot_passes_on_a_line_that_begins_with_the_token(tree: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = judge_boot(tree, r"printf 'Linux\r\n\033[0mreached quiet\r\n'; exec sleep 60", log=log)
    assert (result.passed, result.reason) == (True, "reached quiet")
    assert result.console_tail == ("Linux", "reached quiet")
    assert result.seconds < 5
    assert log.read_bytes() == b"Linux\r\n\033[0mreached quiet\r\n"


def test_boot_kills_the_machine(tree: Path, tmp_path: Path) -> None:
    judge_boot(tree, f"echo $$ > {tmp_path}/pid; echo reached; exec sleep 60")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_boot_kills_the_machine_when_judging_fails(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(line: str, raw: bytes) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch._Console, "_keep", broken)
    with pytest.raises(KeyboardInterrupt):
        judge_boot(tree, f"echo $$ > {tmp_path}/pid; echo reached; exec sleep 60")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo Command line: reached", "the machine stopped (QEMU's exit code is 0)"),
        ("exit 3", "the machine stopped (QEMU's exit code is 3)"),
        (
            "echo 'Kernel panic - not syncing: VFS'; exec sleep 60",
            "the console shows 'Kernel panic - not syncing'",
        ),
        (
            r"printf 'Loading image.squashfs...failed: No such file or directory\r\nboot: '; "
            "exec sleep 60",
            "the console shows 'Loading image.squashfs...failed:'",
        ),
        (
            # As it came: lpxelinux.0 prints itself, and by the BIOS.
            "echo 'BoBooto tf afialielde:d :p rpersess sa  ak ekye yt ot or ertertyr,y ,o ro rw a'"
            "; exec sleep 60",
            "the console shows 'Boot failed: press a key to retry'",
        ),
        (
            "echo B; echo 'oBooto tf afialielde:d :p rpersess sa  ak ekye yt ot or ertertyr,y ,'"
            "; exec sleep 60",
            "the console shows 'Boot failed: press a key to retry'",
        ),
        (
            "echo 'This did not work: gentoo. The reason is above.'; exec sleep 60",
            "the console shows 'This did not work: gentoo. The reason is above.'",
        ),
    ],
)
def test_boot_fails_at_once(tree: Path, script: str, reason: str) -> None:
    result = judge_boot(tree, script)
    assert (result.passed, result.reason) == (False, reason)
    assert result.seconds < 5


def test_boot_fails_when_time_is_over(tree: Path) -> None:
    result = judge_boot(tree, "echo hello; exec sleep 60", timeout=0.3)
    assert not result.passed
    assert result.reason == "no line of the console matched '^reached' within 0.3 s"
    assert result.console_tail == ("hello",)


def test_boot_refuses_a_file_that_no_server_could_read(tree: Path) -> None:
    (tree / "gentoo.igz").touch(mode=0o600)
    result = judge_boot(tree, "echo reached")
    assert (result.passed, result.reason) == (False, "gentoo.igz is not readable by a server")


def test_boot_sees_a_prompt_that_ends_no_line(tree: Path) -> None:
    result = judge_boot(tree, r"printf 'x\r\ngrub rescue> '; exec sleep 60")
    assert result.reason == "the console shows 'grub rescue>'"
    assert result.seconds < 5


def test_boot_types_at_a_prompt(tree: Path) -> None:
    script = "printf 'any key: 3 '; read a; echo; printf '=> '; read b; echo; echo reached $a$b"
    argv = [str(write_script(tree.parent / "qemu", script))]
    typed = ((r"any key", "one\n"), (r"^=> $", "two\n"))
    verdict = watch_machine(argv, until=re.compile("^reached"), timeout=10, typed=typed)
    assert (verdict.passed, verdict.reason) == (True, "reached onetwo")
