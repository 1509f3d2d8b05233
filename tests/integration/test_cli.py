"""The standalone door: same rules, same tree; exit codes and messages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.spec import file as specfile
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.util.files import list_files
from tests.integration.test_bad_input import snapshot
from tests.support.paths import ROOT
from tests.support.stage2 import SPEC, STAMP, release_settings, storedir_stage2


@pytest.fixture(autouse=True)
def _no_catalyst_conf(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(specfile, "DEFAULT_CONF", tmp_path / "none")


@pytest.fixture
def spec(tmp_path: Path, storedir: Path) -> Path:
    (tmp_path / "catalyst.conf").write_text(
        f'storedir = "{storedir}"\ndigests = ["blake2b", "sha512"]\n'
    )
    path = tmp_path / "installpxe.spec"
    path.write_text(SPEC)
    return path


def output_of(storedir: Path) -> Path:
    return storedir / "builds/23.0-default" / f"pxeboot-amd64-{STAMP}"


def test_spec_and_folders_and_catalyst_give_the_same_tree(
    tmp_path: Path, storedir: Path, spec: Path
) -> None:
    output = output_of(storedir)
    conf = str(tmp_path / "catalyst.conf")
    assert cli.main(["build", "-f", str(spec), "-c", conf]) == 0
    by_spec = snapshot(output)
    shutil.rmtree(output)

    source = str(storedir_stage2(storedir))
    assert (
        cli.main(
            ["build", "-q", "-c", conf, "--source", source, "--output", str(tmp_path / "out"),
             "--subarch", "amd64"]
        )
        == 0
    )  # fmt: skip
    assert snapshot(tmp_path / "out") == by_spec

    build(parse_settings(release_settings(storedir)), report=lambda _line: None)
    assert snapshot(output) == by_spec


def test_what_a_build_says(storedir: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = str(spec.parent / "catalyst.conf")
    assert cli.main(["build", "-f", str(spec), "-c", conf, "--set", "pxeboot/loaders=ipxe"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == f"Reading {storedir_stage2(storedir)}"
    assert lines[1] == "Staging 3 payload files"
    assert lines[2].startswith(f"Published {output_of(storedir)} in ")
    assert lines[3] == "3 payload files of 80.3 KiB, 304 B of it copied, the rest linked"
    assert lines[4] == "Loaders: none"
    assert err.splitlines() == [
        "catalyst-pxeboot: warning: left out: Memtest86+ 64bit BIOS: its file is not in the image",
        "catalyst-pxeboot: warning: left out: Memtest86+ 64bit UEFI: its file is not in the image",
        "catalyst-pxeboot: warning: not found: ipxe.efi snponly.efi undionly.kpxe"
        " (of Gentoo's sys-boot/ipxe, Debian's ipxe)",
    ]


def test_dry_run_prints_the_plan_and_writes_nothing(
    storedir: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(storedir)
    conf = str(spec.parent / "catalyst.conf")
    assert (
        cli.main(
            ["build", "-f", str(spec), "-c", conf, "--dry-run", "--set", "pxeboot/loaders=ipxe"]
        )
        == 0
    )
    assert snapshot(storedir) == before
    assert (
        capsys.readouterr().out
        == f"""\
source   {storedir_stage2(storedir)}
output   {output_of(storedir)}
title    Gentoo Linux amd64 (2026-11-22)
timeout  10 s
loaders  ipxe
file     boot/gentoo  kernel, 16.0 KiB, auto
file     boot/gentoo.igz  initramfs, 304 B, auto
file     image.squashfs  squashfs, 64.0 KiB, auto
file     boot/root.cpio-header  root-header, 132 B, made
file     manifest.json DIGESTS SHA256SUMS  made last
entry   *Boot LiveCD (kernel: gentoo)
         boot/gentoo root=live:/image.squashfs.img rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp
entry    Boot LiveCD (kernel: gentoo) (accessibility)
         boot/gentoo root=live:/image.squashfs.img rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp dospeakup
limits   kernel  root      loader  memory, BIOS  memory, UEFI  over the wire
limits   gentoo  embedded  ipxe    82 MiB        140 MiB       80.4 KiB
note     no root streamed over HTTP: boot/gentoo.igz: it has no folder of dracut's hooks that is known here; build livecd-stage2 with dracut 050 or later
note     no root over HTTP: boot/gentoo.igz: dracut 059 made it without livenet, which gets the live root from a server; add `-a livenet` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec
left out Memtest86+ 64bit BIOS: its file is not in the image
left out Memtest86+ 64bit UEFI: its file is not in the image
missing  ipxe.efi  of sys-boot/ipxe (Debian: ipxe)
missing  snponly.efi  of sys-boot/ipxe (Debian: ipxe)
missing  undionly.kpxe  of sys-boot/ipxe (Debian: ipxe)
"""
    )


def test_inspect(storedir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = storedir_stage2(storedir)
    assert cli.main(["inspect", str(source)]) == 0
    assert (
        capsys.readouterr().out
        == f"""\
live image   {source}
squashfs     image.squashfs: 64.0 KiB, xz, version 4.0, blocks of 1.0 MiB
network      not known: unsquashfs failed with exit code 1
kernel       boot/gentoo: Linux 6.1.0-test, x86_64, bzImage, 16.0 KiB, with EFI stub
initramfs    boot/gentoo.igz: dracut 059, xz, 304 B, 110 B unpacked
  modules    base dmsquash-live
  root       embedded: yes
  root       stream: no; boot/gentoo.igz: it has no folder of dracut's hooks that is known here; build livecd-stage2 with dracut 050 or later
  root       http: no; boot/gentoo.igz: dracut 059 made it without livenet, which gets the live root from a server; add `-a livenet` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec
  root       nfs: no; boot/gentoo.igz: dracut 059 made it without livenet, which gets the live root from a server; add `-a livenet` to boot/kernel/gentoo/dracut_args of the livecd-stage2 spec
  config     not in the image
  arguments  dokeymap nodhcp
  entry      Boot LiveCD (kernel: gentoo)
  entry      Boot LiveCD (kernel: gentoo) (accessibility)  (+ dospeakup)
timeout      10 s
left out     Memtest86+ 64bit BIOS: its file is not in the image
left out     Memtest86+ 64bit UEFI: its file is not in the image
"""
    )


def test_inspect_as_json(storedir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", "--json", str(storedir_stage2(storedir))]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["command"], document["ok"]) == ("inspect", True)
    data = document["source"]
    assert data["squashfs"]["compression"] == "xz"
    assert data["kernels"][0]["initramfs"]["generator"] == "dracut"
    assert data["kernels"][0]["entries"][1] == {
        "title": "Boot LiveCD (kernel: gentoo) (accessibility)",
        "extra": ["dospeakup"],
    }
    assert data["timeout"] == 10


def test_inspect_a_tree(storedir: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = str(spec.parent / "catalyst.conf")
    keys = ["--set", "pxeboot/loaders=ipxe pxelinux"]
    cli.main(["build", "-q", "-f", str(spec), "-c", conf, *keys])
    capsys.readouterr()
    tree = output_of(storedir)
    assert cli.main(["inspect", str(tree)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        f"""\
netboot tree {tree}
title        Gentoo Linux amd64 (2026-11-22)
made for     amd64, at 2026-11-22T17:00:00Z
squashfs     image.squashfs: 64.0 KiB
files        13
entry       *Boot LiveCD (kernel: gentoo)  root: embedded
entry        Boot LiveCD (kernel: gentoo) (accessibility)  root: embedded

kernel  root      loader    memory, BIOS  memory, UEFI  over the wire
gentoo  embedded  ipxe      82 MiB        140 MiB       80.4 KiB
gentoo  embedded  pxelinux  82 MiB        -             80.4 KiB

missing      ipxe: """
    )
    assert cli.main(["inspect", "--json", str(tree)]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "command": "inspect",
        "ok": True,
        "tree": str(tree),
        "manifest": json.loads((tree / "manifest.json").read_text()),
        "warnings": [],
        "problems": [],
    }


def test_verify(storedir: Path, spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["build", "-q", "-f", str(spec), "-c", str(spec.parent / "catalyst.conf")])
    output = output_of(storedir)
    capsys.readouterr()
    assert cli.main(["verify", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 16 files as its manifest says\n"
    (output / "boot.ipxe").write_text("#!ipxe\n")
    (output / "boot/extra").touch()
    assert cli.main(["verify", str(output)]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err[0] == (
        "catalyst-pxeboot: error: boot/extra: not in the manifest;"
        " remove it, or build the tree again"
    )
    assert "boot.ipxe: 7 bytes, but" in err[1]


def test_faults_are_a_line_each(
    storedir: Path, spec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec.write_text(SPEC + "pxeboot/bootarg: x\npxeboot/tmeout: 1\n")
    assert cli.main(["build", "-f", str(spec)]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "catalyst-pxeboot: error: pxeboot/bootarg: no such spec key"
        " (did you mean 'pxeboot/bootargs'?); correct or remove it",
        "catalyst-pxeboot: error: pxeboot/tmeout: no such spec key"
        " (did you mean 'pxeboot/timeout'?); correct or remove it",
    ]


def test_a_spec_for_another_target(spec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec.write_text(SPEC.replace("target: pxeboot", "target: livecd-stage2"))
    assert cli.main(["build", "-f", str(spec)]) == 1
    assert capsys.readouterr().err == (
        f"catalyst-pxeboot: error: target: {spec} is a spec for livecd-stage2, not for pxeboot;"
        " give the spec whose target is pxeboot\n"
    )


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["buidl"],
        ["build"],
        ["build", "-f", "x", "--source", "y"],
        ["build", "--output", "x"],
        ["build", "--set", "nonsense", "-f", "x"],
        ["inspect"],
    ],
)
def test_wrong_usage_is_exit_code_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(argv)
    assert raised.value.code == 2
    assert "usage: catalyst-pxeboot" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["-OO"]])
def test_as_a_module_and_optimised(flags: list[str], storedir: Path, tmp_path: Path) -> None:
    """catalyst runs under -OO, where docstrings and assertions are gone."""
    done = subprocess.run(
        [sys.executable, *flags, "-m", "catalyst_pxeboot", "build", "--source",
         storedir_stage2(storedir), "--output", tmp_path / "out", "--set", "pxeboot/loaders=ipxe"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "boot.ipxe" in list_files(tmp_path / "out")


def test_a_bug_keeps_its_traceback(storedir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object, **_keys: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("catalyst_pxeboot.source.image.read_source", broken)
    with pytest.raises(ZeroDivisionError):
        cli.main(["inspect", str(storedir_stage2(storedir))])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(storedir: Path, tmp_path: Path, number: int) -> None:
    source = storedir_stage2(storedir)
    with (source / "image.squashfs").open("r+b") as stream:
        stream.truncate(3 << 30)  # a hole, but one that takes seconds to digest
    process = subprocess.Popen(
        [sys.executable, "-m", "catalyst_pxeboot", "build", "--source", source, "--output",
         tmp_path / "made/out", "--set", "pxeboot/loaders=ipxe"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    staging = tmp_path / "made/.out.staging"
    deadline = time.monotonic() + 30
    while not (staging / "image.squashfs").exists():
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert not (tmp_path / "made").exists()


def command_line(*argv: str, shell: str) -> subprocess.CompletedProcess[str]:
    """Run the command as `shell` says, where "$@" stands for it."""
    command = [sys.executable, "-c", "from catalyst_pxeboot.cli.main import run; run()", *argv]
    return subprocess.run(
        ["bash", "-c", shell, "bash", *command],
        capture_output=True, text=True, check=False, timeout=60, cwd=ROOT,
    )  # fmt: skip


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(storedir: Path, closed: str) -> None:
    source = str(storedir_stage2(storedir))
    done = command_line("inspect", source, shell=f'"$@" {closed}')
    assert (done.returncode, done.stderr) == (0, "")
    failed = command_line("inspect", "/nowhere", shell=f'"$@" {closed}; echo $? >&1')
    assert (failed.stdout, failed.stderr.count("\n")) == ("1\n", 0 if "2>" in closed else 1)


@pytest.mark.parametrize("option", ["-v", "--json"])
def test_output_that_cannot_be_written(storedir: Path, option: str) -> None:
    source = str(storedir_stage2(storedir))
    done = command_line("inspect", option, source, shell='"$@" >/dev/full')
    assert (done.returncode, done.stderr) == (
        1,
        "catalyst-pxeboot: error: standard output cannot be written: No space left on device;"
        " free space there, or send it elsewhere\n",
    )


def test_an_error_that_nobody_reads() -> None:
    shell = '{ sleep 1; "$@"; echo $? >&2; } | true; sleep 2'
    done = command_line("inspect", "/nowhere", "--json", shell=shell)
    assert done.stderr.splitlines()[1:] == ["1"]


def test_start_up_imports_nothing_heavy() -> None:
    """--help must answer at once: no template engine, no compression library, no snakeoil."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "catalyst_pxeboot", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not imported & {"jinja2", "zstandard", "lz4", "snakeoil", "hashlib", "tomllib", "ctypes"}
