"""How a path is judged, and what is skipped."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalyst_pxeboot.lab import boottest, machine
from catalyst_pxeboot.lab.boottest import boot_test, judge, judge_complaint, run_path, run_paths
from catalyst_pxeboot.lab.paths import BootPath
from catalyst_pxeboot.lab.report import junit_text
from catalyst_pxeboot.lab.result import Outcome
from catalyst_pxeboot.lab.watch import GAVE_UP, Verdict, watch_machine
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.util.errors import PxebootError
from tests.support.boot_paths import find_paths
from tests.support.lab import FETCHED, LPXELINUX, PXELINUX, ROW_1, write_script
from tests.support.release_trees import make_manifest

REACHED = Verdict(True, 12.34, "reached quiet", ("reached quiet",))


def test_a_path_passes_by_console_and_servers() -> None:
    assert judge(ROW_1, REACHED, FETCHED) == (Outcome.PASSED, "reached quiet")
    assert judge(ROW_1, REACHED, None) == (Outcome.PASSED, "reached quiet")


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("tftp:undionly.kpxe", "booted by another way: tftp:undionly.kpxe was never fetched"),
        ("http:image.squashfs", "booted by another way: no squashfs was fetched by HTTP"),
    ],
)
def test_a_boot_by_another_way_fails(missing: str, reason: str) -> None:
    assert judge(ROW_1, REACHED, {**FETCHED, missing: 0}) == (Outcome.FAILED, reason)


def test_u_boot_fetches_one_initrd_for_all() -> None:
    (path,) = find_paths(["arm64-uboot"])
    fetched = {"tftp:pxelinux.cfg/default-arm": 100, "tftp:boot/gentoo.initrd": 2000}
    assert judge(path, REACHED, fetched) == (Outcome.PASSED, "reached quiet")
    fetched = {"tftp:pxelinux.cfg/default-arm": 100, "tftp:image.squashfs": 2000}
    assert judge(path, REACHED, fetched) == (
        Outcome.FAILED,
        "booted by another way: no initrd was fetched by TFTP",
    )


def test_a_path_fails_with_the_console() -> None:
    stopped = Verdict(False, 3.0, "the machine stopped", ("x",))
    assert judge(ROW_1, stopped, FETCHED) == (Outcome.FAILED, "the machine stopped")


def test_a_broken_tree_must_complain() -> None:
    complaint = re.compile("^This did not work")
    for verdict, expected in (
        (replace(REACHED, reason="This did not work: gentoo"), Outcome.PASSED),
        (REACHED, Outcome.FAILED),
        (Verdict(False, 3.0, "This did not work", ()), Outcome.FAILED),
    ):
        assert judge_complaint(verdict, complaint)[0] is expected
    assert judge_complaint(REACHED, complaint)[1] == "booted in spite of the fault: reached quiet"


def test_a_tree_without_the_loader_is_skipped(tmp_path: Path) -> None:
    result = run_path(tmp_path, ROW_1)
    assert (result.outcome, result.reason) == (
        Outcome.SKIPPED,
        "the tree has no undionly.kpxe and no boot.ipxe",
    )


def test_a_closed_path_is_skipped(row_tree: Path) -> None:
    result = run_path(row_tree, replace(ROW_1, closed="nobody gets through"))
    assert (result.outcome, result.reason) == (Outcome.SKIPPED, "nobody gets through")


def test_a_missing_program_is_skipped(row_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "find_program", lambda name: None)
    result = run_path(row_tree, ROW_1)
    assert result.outcome is Outcome.SKIPPED
    assert result.reason.startswith("qemu-system-x86_64 is missing; install qemu-system-x86 ")


def test_without_root_the_user_network_stands_in(
    row_tree: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("echo reached quiet; exec sleep 60")
    until = re.compile("^reached")
    result = run_path(row_tree, ROW_1, until=until, obstacle="network namespaces need root")
    assert (result.outcome, result.note) == (
        Outcome.PASSED,
        "only by QEMU's user network: network namespaces need root",
    )
    result = run_path(row_tree, LPXELINUX, until=until, obstacle="network namespaces need root")
    assert (result.outcome, result.reason) == (
        Outcome.SKIPPED,
        "network namespaces need root, and QEMU's user network cannot stand in",
    )


@pytest.mark.parametrize(
    ("menu", "given_up", "boots", "outcome"),
    [
        (100, 1, 2, Outcome.PASSED),
        (100, 9, 3, Outcome.FAILED),
        (0, 9, 1, Outcome.FAILED),  # it found no menu: not the loader's flaw
    ],
)
def test_a_loader_that_gives_up_is_started_again(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch,
    menu: int, given_up: int, boots: int, outcome: Outcome,
) -> None:  # fmt: skip
    begun: list[BootPath] = []
    fetched = {str(step): menu for step in LPXELINUX.chain} | {"http:image.squashfs": 9}

    def walk(task: Any) -> Any:
        begun.append(task.path)
        gave_up = Verdict(False, 3.0, f"the console shows {GAVE_UP!r}", (GAVE_UP,))
        return boottest._Walk(gave_up if len(begun) <= given_up else REACHED, fetched)

    monkeypatch.setattr(boottest, "_walk_network", walk)
    monkeypatch.setattr(boottest, "_check_programs", lambda *_path, own_network: None)
    for step in LPXELINUX.chain:
        (row_tree / step.file).parent.mkdir(exist_ok=True)
        (row_tree / step.file).write_text("x")
    result = run_path(row_tree, LPXELINUX, obstacle="")
    assert (result.outcome, len(begun)) == (outcome, boots)
    assert ("gave up in the middle of a file, " in result.note) == (boots > 1)


def test_several_boots_at_once(
    row_tree: Path, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits until all have begun; results stay in the table's order."""
    stand_in(
        'mkdir "$0.d" 2> /dev/null; : > "$0.d/$$"\n'
        'until [ "$(ls "$0.d" | wc -l)" = 3 ]; do sleep 0.02; done\n'
        "echo reached quiet; exec sleep 60"
    )
    monkeypatch.setattr(boottest, "why_no_network", lambda: "no root")
    reported: list[str] = []
    results = run_paths(
        row_tree, [ROW_1, PXELINUX, ROW_1], until=re.compile("^reached"), jobs=3, timeout=20,
        report=lambda result: reported.append(result.path.name),
    )  # fmt: skip
    assert [result.path for result in results] == [ROW_1, PXELINUX, ROW_1]
    assert {result.outcome for result in results} == {Outcome.PASSED}
    assert sorted(reported) == ["bios-ipxe", "bios-ipxe", "bios-pxelinux"]


def test_an_interrupt_ends_all_boots(
    row_tree: Path, stand_in: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("case $* in *undionly*|*boot.ipxe*) echo reached;; esac; exec sleep 60")
    monkeypatch.setattr(boottest, "why_no_network", lambda: "no root")

    def interrupt(_result: object) -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_paths(
            row_tree, [ROW_1, PXELINUX, PXELINUX], until=re.compile("^reached"), jobs=2,
            report=interrupt,
        )  # fmt: skip
    assert time.monotonic() - begun < 10


def test_boot_test_wants_a_tree(tmp_path: Path) -> None:
    with pytest.raises(PxebootError) as caught:
        boot_test(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/manifest.json: cannot be read: No such file or directory;"
        " give the folder of a netboot tree"
    )


def test_boot_test_runs_what_fits(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(make_manifest()))
    seen: list[str] = []
    results = boot_test(
        tmp_path, loaders=(Loader.PXELINUX,), junit=tmp_path / "junit.xml",
        report=lambda result: seen.append(result.path.name),
    )  # fmt: skip
    assert seen == ["bios-pxelinux", "bios-lpxelinux", "proxy-bios-pxelinux"]
    assert {result.outcome for result in results} == {Outcome.SKIPPED}
    assert (tmp_path / "junit.xml").read_text() == junit_text(results)
    with pytest.raises(PxebootError) as caught:
        boot_test(tmp_path, loaders=(Loader.PXELINUX,), firmware=("uefi",))
    assert str(caught.value) == (
        f"{tmp_path}: no client for amd64 is of this --firmware and --loader; there are "
        "ipxe on bios, pxelinux on bios, grub on bios, ipxe on uefi-x64, grub on uefi-x64, "
        "grub on uefi-x64-secure, grub on uefi-ia32, uki on uefi-x64"
    )


def test_the_default_prompt() -> None:
    assert boottest.UNTIL.search("livecd login: ")
    assert boottest.UNTIL.search("livecd login: root (automatic login)")
    assert boottest.UNTIL.search("Welcome to the Gentoo Linux Minimal Installation CD!")
    assert boottest.UNTIL.search("Welcome to the Gentoo Linux LiveCD!")
    assert boottest.UNTIL.search("livecd ~ # ")
    assert boottest.UNTIL.search("root@livecd.gentoo ~ #")


@pytest.mark.parametrize(
    "line",
    [
        "init: login:x",
        "Welcome to Gentoo Linux!",  # systemd, also in an initramfs
        "Welcome to dracut-059 (Initramfs)!",
        "dracut:/# ",
        "rescueshell /newroot # ",
        "Command line: BOOT_IMAGE=x Welcome to the Gentoo Linux LiveCD!",
        "  livecd ~ # ",
        "livecd ~ # ls",
    ],
)
def test_what_is_no_prompt_of_a_live_system(line: str) -> None:
    assert not boottest.UNTIL.search(line)


def test_a_coloured_prompt_ends_the_boot(tree: Path) -> None:
    """As Gentoo's shell draws it, with the window's title before it."""
    script = (
        r"printf '\033]0;root@livecd:~\007\033[?2004h\033[01;31mlivecd\033[01;34m ~ #"
        r"\033[00m '; exec sleep 60"
    )
    argv = [str(write_script(tree.parent / "qemu", script))]
    verdict = watch_machine(argv, until=boottest.UNTIL, timeout=10)
    assert (verdict.passed, verdict.reason) == (True, "livecd ~ # ")
