"""The wheel, the shipped specs, and a README that tells the truth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.spec import file as specfile
from catalyst_pxeboot.spec.keys import tables
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.files import list_files
from tests.support import builders
from tests.support.paths import ROOT
from tests.support.stage2 import INITRAMFS, STAMP, write_stage2
from tests.tools.dependencies import report

SPECS = sorted((ROOT / "specs").glob("*/*.spec"))
KERNELS = {
    "amd64": (builders.bzimage(), "amd64-dracut.cfg"),
    "x86": (builders.bzimage(bits=32), "x86-dracut.cfg"),
    "arm64": (builders.arm64_image(), "arm64-dracut.cfg"),
    "arm": (builders.arm_zimage(efi_stub=True), None),
}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: str(path.relative_to(ROOT / "specs")))
def test_shipped_specs_build(
    path: Path, tmp_path: Path, no_loaders: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a release builder does it: the marks are replaced, then the spec is built."""
    text = path.read_text().replace("@TIMESTAMP@", STAMP).replace("@TREEISH@", "stable")
    assert "@" not in text
    spec = specfile.parse_spec(text, where=path.name)
    kernel, menu = KERNELS[path.parent.name]
    initramfs = (INITRAMFS / "dracut-059.xz").read_bytes()
    store = tmp_path / "store"
    write_stage2(
        store / "builds" / str(spec["source_subpath"]),
        kernel=kernel, grub_cfg=menu, initramfs=initramfs,
    )  # fmt: skip
    (tmp_path / "x.spec").write_text(text)
    (tmp_path / "catalyst.conf").write_text(f'storedir = "{store}"\n')
    conf = str(tmp_path / "catalyst.conf")
    assert cli.main(["build", "-f", str(tmp_path / "x.spec"), "-c", conf]) == 0
    name = f"pxeboot-{spec['subarch']}-{spec['version_stamp']}"
    assert verify_tree(store / "builds/23.0-default" / name).faults == ()


def test_every_architecture_has_a_spec() -> None:
    assert {path.parent.name for path in SPECS} == KERNELS.keys()


def test_wheel_holds_everything(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "-w", tmp_path, ROOT],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("catalyst_pxeboot-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(n for n in names if n.endswith("/METADATA"))).decode()
        archive.extractall(tmp_path / "site")
    assert "catalyst/targets/pxeboot.py" in names
    assert not {"catalyst/__init__.py", "catalyst/targets/__init__.py"} & names
    for folder in ("templates", "specs"):
        for name in list_files(ROOT / folder):
            assert f"catalyst_pxeboot/{folder}/{name}" in names
    for name in list_files(ROOT / "catalyst_pxeboot"):
        if "__pycache__" not in name:
            assert f"catalyst_pxeboot/{name}" in names
    # Manual pages and completions, where a system's prefix has them; the ebuild goes by that.
    (data,) = {name.split("/")[0] for name in names if name.split("/")[0].endswith(".data")}
    assert {name for name in names if name.startswith(f"{data}/")} == {
        f"{data}/data/share/{name}"
        for name in (
            "man/man1/catalyst-pxeboot.1",
            "man/man5/pxeboot-spec.5",
            "bash-completion/completions/catalyst-pxeboot",
            "zsh/site-functions/_catalyst-pxeboot",
        )
    }
    assert not re.search(r"^Requires-Dist: catalyst\b", metadata, re.MULTILINE)
    # Installed, it finds its own templates and tables, not the checkout's.
    tree = write_stage2(tmp_path / "livecd-stage2-amd64-1")
    done = subprocess.run(
        [sys.executable, "-m", "catalyst_pxeboot", "build", "--source", tree,
         "--output", tmp_path / "out", "--set", "pxeboot/loaders=ipxe"],
        cwd=tmp_path / "site", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/boot.ipxe").read_text().startswith("#!ipxe\n")
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "catalyst_pxeboot", "export", tmp_path / "out", "--format",
         "netboot.xyz", "--base-url", "http://192.168.1.1"],
        cwd=tmp_path / "site", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("#!ipxe\n")


def test_every_key_is_documented() -> None:
    readme = (ROOT / "doc/spec-keys.md").read_text()
    for group in ("shared", "pxeboot"):
        for key, entry in tables()[group].items():
            row = f"| `{key}` | {entry['value']} | {entry['default']} | {entry['doc']} |"
            assert row in readme, row
    for key, doc in tables()["required"].items():
        assert f"| `{key}` | {doc} |" in readme, key
    told = set(re.findall(r"^\| `((?:pxeboot|livecd|boot)/[^`]+)`", readme, re.MULTILINE))
    assert told == {*tables()["pxeboot"], *tables()["shared"]}


def test_readme_names_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    readme = (ROOT / "README.md").read_text()
    for target in set(re.findall(r"(?:^    |`)make ([a-z-]+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    parser = cli.make_parser().format_help()
    for command in set(re.findall(r"^    catalyst-pxeboot ([a-z-]+)", readme, re.MULTILINE)):
        assert re.search(rf"^\s+{command}\b", parser, re.MULTILINE), command


def test_nothing_is_left_to_do() -> None:
    for path in [*(ROOT / "catalyst_pxeboot").rglob("*.py"), *(ROOT / "templates").rglob("*.j2")]:
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text()), path


def test_each_dependency_has_bounds_and_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["serve"], *extras["sign"], *extras["dev"]]
    locked = dict(
        re.findall(r"^([a-z0-9-]+)==([^ ]+)", (ROOT / "requirements.lock").read_text(), re.M)
    )
    for line in wanted:
        wanted_package = Requirement(line)
        if wanted_package.name == project["name"]:
            continue
        operators = {bound.operator for bound in wanted_package.specifier}
        assert operators in ({">=", "<"}, {"=="}), line
        assert locked[wanted_package.name] in wanted_package.specifier, line


def test_what_the_audit_prints() -> None:
    packages = [
        {"name": "a", "version": "1", "vulns": [{"id": "X-1", "fix_versions": ["2", "3"]}]},
        {"name": "b", "version": "1", "vulns": []},
        {"name": "c", "skip_reason": "no answer"},
    ]
    assert report(json.dumps({"dependencies": packages}), "") == (
        "a 1: X-1, fixed in 2, 3\naudit: 2 of 3 packages audited, 1 vulnerabilities",
        True,
    )
    assert report("", "WARNING: x\nno route to host\n") == (
        "audit: the advisory service cannot be reached, nothing was audited: no route to host",
        False,
    )
