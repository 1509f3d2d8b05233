"""Reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.lab import machine
from catalyst_pxeboot.lab.report import table_lines, write_junit
from catalyst_pxeboot.lab.result import Outcome, PathResult
from tests.support.lab import FETCHED, MUTE, PROXY, ROW_1, ROW_6

RESULTS = (
    PathResult(ROW_1, Outcome.PASSED, 51.44, "reached quiet", FETCHED, ("reached",), "disguised"),
    PathResult(
        ROW_6, Outcome.FAILED, 3.0, "the console shows '<x>'", {"http:ipxe.efi": 0},
        ("a & b", "bell \x07 end"), cause="no file", screenshot=Path("shot.png"),
    ),
    PathResult(PROXY, Outcome.SKIPPED, 0.0, "dnsmasq is missing", {}, ()),
)  # fmt: skip


def test_table() -> None:
    table = """\
#   path                 client    chain                                        DHCP   result   seconds  fetched
1   bios-ipxe            bios      tftp:undionly.kpxe > http:boot.ipxe          own    passed   51.4     1.1 MiB
6   x64-http-ipxe        uefi-x64  http:ipxe.efi > http:boot.ipxe               own    failed   3.0      0 B
13  proxy-bios-pxelinux  bios      tftp:pxelinux.0 > tftp:pxelinux.cfg/default  proxy  skipped  -        -
x64-http-ipxe failed: the console shows '<x>'
x64-http-ipxe likely cause: no file
proxy-bios-pxelinux skipped: dnsmasq is missing
note: disguised (bios-ipxe)
1 passed, 1 failed, 1 skipped
"""  # noqa: E501 - the table as it is
    assert "".join(f"{line}\n" for line in table_lines(RESULTS)) == table


def test_junit(tmp_path: Path) -> None:
    write_junit(RESULTS, tmp_path / "junit.xml")
    assert (tmp_path / "junit.xml").read_text() == (
        """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
 <testsuite name="catalyst-pxeboot boot-test" tests="3" failures="1" errors="0" skipped="1" time="54.4">
  <testcase classname="01.bios" name="bios-ipxe" time="51.4">
   <system-out>http:boot.ipxe 6633
http:image.squashfs 1048576
tftp:undionly.kpxe 74213
note: disguised</system-out>
  </testcase>
  <testcase classname="06.uefi-x64" name="x64-http-ipxe" time="3.0">
   <failure message="the console shows '&lt;x&gt;'">likely cause: no file
a &amp; b
bell ? end</failure>
   <system-out>http:ipxe.efi 0
[[ATTACHMENT|shot.png]]</system-out>
  </testcase>
  <testcase classname="13.bios" name="proxy-bios-pxelinux" time="0.0">
   <skipped message="dnsmasq is missing" />
  </testcase>
 </testsuite>
</testsuites>
"""  # noqa: E501 - the file as it is
    )


def test_results_for_machines() -> None:
    assert RESULTS[1].data() == {
        "name": "x64-http-ipxe",
        "firmware": "uefi-x64",
        "loader": "ipxe",
        "dhcp": "own",
        "chain": ["http:ipxe.efi", "http:boot.ipxe"],
        "outcome": "failed",
        "seconds": 3.0,
        "reason": "the console shows '<x>'",
        "cause": "no file",
        "note": "",
        "screenshot": "shot.png",
        "fetched": {"http:ipxe.efi": 0},
        "console": ["a & b", "bell \x07 end"],
    }


def test_the_command_for_machines(
    row_tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (row_tree / "manifest.json").write_text(MUTE)
    monkeypatch.setattr(machine, "find_program", lambda name: None)
    argv = ["boot-test", str(row_tree), "--firmware", "bios", "--loader", "ipxe", "--json"]
    assert cli.main(argv) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["command"], told["ok"], told["tree"]) == ("boot-test", False, str(row_tree))
    assert [path["name"] for path in told["paths"]] == ["bios-ipxe", "proxy-bios-ipxe"]
    assert {path["outcome"] for path in told["paths"]} == {"skipped"}
    assert told["problems"] == [
        {
            "message": f"{row_tree}: 0 of 2 paths failed, 0 passed",
            "hint": "the table says what each path lacks",
        }
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "0"], "argument --memory: '0' is not a number above 0"),
        (["--timeout", "nan"], "argument --timeout: 'nan' is not a number above 0"),
        (["--until", "("], "argument --until: '(' is not a regular expression: "),
    ],
)
def test_wrong_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["boot-test", "tree", *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--junit", "--screenshot"])
def test_results_without_a_folder(
    row_tree: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["boot-test", str(row_tree), option, f"{row_tree}/none/x"]) == 1
    assert capsys.readouterr().err == (
        f"catalyst-pxeboot: error: {option}: no folder {row_tree}/none; make it, or name another\n"
    )
