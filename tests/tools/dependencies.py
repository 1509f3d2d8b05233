"""The project's dependencies: lock them, audit the lock, and test the oldest that are allowed.

`python -m tests.tools.dependencies lock|audit|lowest`. uv resolves and pip-audit knows advisories;
both are installed into environments of their own below .cache, as only this program needs them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import venv
from pathlib import Path

from tests.support.paths import ROOT

LOCK = ROOT / "requirements.lock"
CACHE = ROOT / ".cache"
_UV = "uv>=0.9,<1"
_AUDIT = "pip-audit>=2.9,<3"


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="dependencies", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("command", choices=("lock", "audit", "lowest"))
    command = parser.parse_args(arguments).command
    if command == "lock":
        lock()
        return 0
    return audit() if command == "audit" else test_lowest()


def lock() -> None:
    """Write the newest versions that pyproject.toml allows, for every Python and platform."""
    uv = _tool("uv", _UV)
    subprocess.run(
        [uv, "pip", "compile", "--quiet", "--universal", "--upgrade", "--generate-hashes",
         "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", "--extra", "dev",
         "--custom-compile-command", "make lock", "--output-file", LOCK, "pyproject.toml"],
        cwd=ROOT, check=True,
    )  # fmt: skip


def audit() -> int:
    """Print known vulnerabilities of the locked versions; 1 if there is one.

    A version that the advisory service does not answer for is counted as not audited.
    """
    tool = _tool("pip-audit", _AUDIT)
    done = subprocess.run(
        [tool, "--disable-pip", "--no-deps", "--requirement", LOCK, "--format", "json",
         "--progress-spinner", "off"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line, vulnerable = report(done.stdout, done.stderr)
    print(line)
    return 1 if vulnerable else 0


def report(output: str, errors: str) -> tuple[str, bool]:
    """Return what to print of pip-audit's JSON `output`, and whether it found a vulnerability."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = errors.strip().splitlines()[-1:] or ["no answer"]
        return (
            f"audit: the advisory service cannot be reached, nothing was audited: {reason[0]}",
            False,
        )
    skipped = [package for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {found['id']}, fixed in "
        + (", ".join(found["fix_versions"]) or "no version")
        for package in packages
        for found in package.get("vulns", ())
    ]
    summary = (
        f"audit: {len(packages) - len(skipped)} of {len(packages)} packages audited, "
        f"{len(lines)} vulnerabilities"
    )
    return "\n".join([*lines, summary]), bool(lines)


def test_lowest() -> int:
    """Run the unit and golden tests with the lowest direct versions; returns pytest's exit code."""
    uv = _tool("uv", _UV)
    lowest = CACHE / "lowest.txt"
    subprocess.run(
        [uv, "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--extra", "serve",
         "--extra", "sign", "--output-file", lowest, "pyproject.toml"],
        cwd=ROOT, check=True,
    )  # fmt: skip
    # What only the tests need stays as locked: an old pytest would test pytest, not this program.
    python = _environment(CACHE / "lowest") / "python"
    pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", _tests_only()], cwd=ROOT, check=True)
    subprocess.run([*pip, "--requirement", lowest], cwd=ROOT, check=True)
    subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--editable", "."], cwd=ROOT, check=True
    )
    print(lowest.read_text())
    return subprocess.run(
        [python, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "tests/unit", "tests/golden"],
        cwd=ROOT, check=False,
    ).returncode  # fmt: skip


def _tests_only() -> Path:
    """Return the lock without hashes, so that older versions may replace what it has."""
    path = CACHE / "tests.txt"
    lines = LOCK.read_text().splitlines()
    path.write_text("\n".join(line.rstrip(" \\") for line in lines if "==" in line) + "\n")
    return path


def _tool(name: str, requirement: str) -> Path:
    """Return the program `name`, installed from `requirement` into an environment of its own."""
    folder = CACHE / "tools" / name
    program = folder / "bin" / name
    if not program.is_file():
        python = _environment(folder) / "python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
    return program


def _environment(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    venv.create(folder, with_pip=True, clear=True)
    return folder / "bin"


if __name__ == "__main__":
    sys.exit(main())
