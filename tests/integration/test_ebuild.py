"""The overlay: its ebuilds agree with pyproject.toml and with what catalyst and Gentoo expect."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest

from catalyst_pxeboot import __version__
from tests.support.paths import ROOT

OVERLAY = ROOT / "overlay"
PACKAGE = OVERLAY / "dev-util/catalyst-pxeboot"
EBUILDS = sorted(OVERLAY.glob("*/*/*.ebuild"))
LIVE = PACKAGE / "catalyst-pxeboot-9999.ebuild"

#: By name on PyPI: Gentoo's packages, where they are not dev-python/<name>.
GENTOO_NAMES = {"snakeoil": "dev-python/snakeoil"}


def variables(ebuild: Path) -> dict[str, str]:
    """Source an ebuild as Portage does, its eclasses left out, and return its variables."""
    script = """
    set -eu
    PN=$2 PV=$3 P=$2-$3 PYTHON_USEDEP='USEDEP'
    inherit() { INHERITED=$*; }
    source "$1"
    for name in EAPI DESCRIPTION HOMEPAGE LICENSE SLOT IUSE KEYWORDS RDEPEND EGIT_REPO_URI \
        EGIT_COMMIT DISTUTILS_USE_PEP517 INHERITED; do
        printf '%s=%s\\0' "$name" "${!name-}"
    done
    printf 'PYTHON_COMPAT=%s\\0' "${PYTHON_COMPAT[*]}"
    """
    package, _, version = ebuild.stem.rpartition("-")
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(ebuild), package, version],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(line.split("=", 1) for line in done.stdout.split("\0")[:-1])


def dependencies(ebuild: Path) -> dict[str, str]:
    """Return the least version of each package that an ebuild always needs."""
    always = re.sub(r"\w+\? \([^)]*\)+", "", variables(ebuild)["RDEPEND"])
    found = re.findall(r">=([a-z-]+/[a-z0-9-]+)-([0-9.]+)\[USEDEP\]", always)
    assert len(found) == len(always.split()), always
    return dict(found)


def lower_bounds(requirements: list[str]) -> list[tuple[str, str]]:
    """Return name and least version of each requirement of pyproject.toml."""
    return re.findall(r"^([a-z0-9-]+)>=([0-9.]+),<[0-9.]+$", "\n".join(requirements), re.MULTILINE)


def test_the_overlay_is_one() -> None:
    assert (OVERLAY / "profiles/repo_name").read_text() == "catalyst-pxeboot\n"
    layout = (OVERLAY / "metadata/layout.conf").read_text()
    assert "masters = gentoo\n" in layout
    assert "thin-manifests = true\n" in layout


@pytest.mark.parametrize("ebuild", EBUILDS, ids=lambda path: path.stem)
def test_ebuilds_are_sound(ebuild: Path) -> None:
    subprocess.run(["bash", "-n", str(ebuild)], check=True)
    text = ebuild.read_text()
    assert text.startswith("# Copyright 2026 Gentoo Authors\n# Distributed under the terms of the ")
    assert "\n    " not in text  # tabs, as Gentoo has it
    assert not re.search(r"[ \t]$", text, re.MULTILINE)
    found = variables(ebuild)
    assert (found["EAPI"], found["SLOT"]) == ("8", "0")
    assert found["PYTHON_COMPAT"] == "python3_12 python3_13 python3_14"
    assert found["INHERITED"].split()[0] == "distutils-r1"
    assert 10 <= len(found["DESCRIPTION"]) <= 80  # as pkgcheck has it
    assert not found["DESCRIPTION"].endswith(".")
    root = ElementTree.parse(ebuild.parent / "metadata.xml").getroot()
    flags = {flag.attrib["name"] for flag in root.iter("flag")}
    assert flags == {flag.lstrip("+") for flag in found["IUSE"].split()}


def test_dependencies_are_those_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # Gentoo has no upper bounds: there a release that breaks something is masked.
    wanted = {
        GENTOO_NAMES.get(name, f"dev-python/{name}"): version
        for name, version in lower_bounds(project["project"]["dependencies"])
    }
    assert dependencies(LIVE) == wanted
    for extra in ("serve", "sign"):
        group = re.search(rf"{extra}\? \(([^)]*)\)", variables(LIVE)["RDEPEND"])
        assert group
        found = re.findall(r">=dev-python/([a-z0-9-]+)-([0-9.]+)\[USEDEP\]", group[1])
        assert found == lower_bounds(project["project"]["optional-dependencies"][extra])
    assert variables(LIVE)["DISTUTILS_USE_PEP517"] in project["build-system"]["build-backend"]
    assert project["project"]["license"] == "GPL-2.0-or-later"
    assert variables(LIVE)["LICENSE"] == "GPL-2+"


def test_what_gentoo_lacks_is_in_the_overlay() -> None:
    """Each is a package of the overlay, or one that ::gentoo is known to have."""
    ours = {str(path.parent.relative_to(OVERLAY)) for path in EBUILDS}
    known = {
        f"dev-python/{name}"
        for name in ("jinja2", "lz4", "rich", "snakeoil", "zstandard")
    }  # fmt: skip
    assert dependencies(LIVE).keys() <= ours | known


def test_the_versioned_ebuild_is_the_live_one_at_its_tag() -> None:
    versioned = PACKAGE / f"catalyst-pxeboot-{__version__}.ebuild"
    assert {path.name for path in PACKAGE.glob("*.ebuild")} == {LIVE.name, versioned.name}
    assert versioned.read_text() == LIVE.read_text()
    assert variables(LIVE)["EGIT_COMMIT"] == ""
    assert variables(versioned)["EGIT_COMMIT"] == f"v{__version__}"
    assert variables(LIVE)["KEYWORDS"] == ""
    assert "catalyst? ( >=dev-util/catalyst-4[USEDEP] )" in variables(LIVE)["RDEPEND"]


def test_a_manifest_names_every_source() -> None:
    """Nothing but a PyPI package has one: what comes from git has no archive to name."""
    for folder in {path.parent for path in EBUILDS}:
        inherited = variables(next(folder.glob("*.ebuild")))["INHERITED"].split()
        assert ("pypi" in inherited) == (folder / "Manifest").exists()
        if "pypi" in inherited:
            lines = (folder / "Manifest").read_text().splitlines()
            names = {f"{path.stem}.tar.gz" for path in folder.glob("*.ebuild")}
            assert {line.split()[1] for line in lines} == names
            form = r"DIST \S+ \d+ BLAKE2B [0-9a-f]{128} SHA512 [0-9a-f]{128}"
            assert all(re.fullmatch(form, line) for line in lines)


PKGCHECK = os.environ.get("PKGCHECK", "")
GENTOO_REPO = os.environ.get("GENTOO_REPO", "")


@pytest.mark.skipif(
    not (PKGCHECK and GENTOO_REPO), reason="PKGCHECK and GENTOO_REPO name no pkgcheck and ::gentoo"
)
@pytest.mark.timeout(600)
def test_pkgcheck_finds_nothing(tmp_path: Path) -> None:
    """PKGCHECK is the program, GENTOO_REPO a checkout of ::gentoo, or of what is needed of it."""
    overlay = shutil.copytree(OVERLAY, tmp_path / "overlay")
    config = tmp_path / "config"
    (config / "repos.conf").mkdir(parents=True)
    (config / "make.conf").write_text('ACCEPT_KEYWORDS="~amd64"\n')
    (config / "repos.conf/gentoo.conf").write_text(
        f"[DEFAULT]\nmain-repo = gentoo\n[gentoo]\nlocation = {GENTOO_REPO}\n"
        f"[catalyst-pxeboot]\nlocation = {overlay}\n"
    )
    (config / "make.profile").symlink_to(f"{GENTOO_REPO}/profiles/default/linux/amd64/23.0")
    form = "{level} {category}/{package}-{version} {name}: {desc}"
    done = subprocess.run(
        [PKGCHECK, "--config", str(config), "scan", "-r", "catalyst-pxeboot", "-s", "cat,pkg,ver",
         "-R", "FormatReporter", "--format", form],
        cwd=overlay, check=False, capture_output=True, text=True,
    )  # fmt: skip
    # Of a Python newer than this project is tested with, it only informs.
    found = [line for line in done.stdout.splitlines() if not line.startswith("info ")]
    assert (found, done.stderr) == ([], "")
