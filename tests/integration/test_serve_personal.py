"""`serve --ssh-key` with both web servers: what clients get, and when a machine is up."""

from __future__ import annotations

import http.client
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.util.files import list_files
from catalyst_pxeboot.util.process import find_program
from tests.integration.test_serve_http import free_port
from tests.support.paths import ROOT
from tests.support.serve_trees import COMMAND, make_tree, serving

KEYS = ROOT / "tests/data/personal/authorized_keys"
KEY = KEYS.read_text().split()[1]
UP = "/pxeboot-up?status=0&key=ssh-ed25519%20" + KEY.replace("+", "%2B")

pytestmark = pytest.mark.skipif(find_program("nginx") is None, reason="nginx is missing")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("tree"))


def get(port: int, target: str) -> tuple[int, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        link.request("GET", target)
        answer = link.getresponse()
        return answer.status, answer.read()
    finally:
        link.close()


@pytest.mark.parametrize("without", [(), ("nginx",)], ids=["nginx", "embedded"])
def test_what_clients_get(tree: Path, without: tuple[str, ...], tmp_path: Path) -> None:
    before = {path: (tree / path).read_bytes() for path in list_files(tree)}
    port, known = free_port(), tmp_path / "known_hosts"
    words = (
        "--interface", "lo", "--http-port", str(port), "--ssh-key", str(KEYS),
        "--known-hosts", str(known), "--exit-after", "1",
    )  # fmt: skip
    with serving(tree, tmp_path, *words, without=("dnsmasq", *without)) as served:
        assert get(port, UP) == (200, b"ok\n")  # nothing was booted, so it is no report
        status, script = get(port, "/boot.ipxe")
        assert status == 200
        report = f"pxeboot.report=http://127.0.0.1:{port}/pxeboot-up"
        assert f"set cmdline dosshd {report} ".encode() in script
        status, initramfs = get(port, "/boot/gentoo.igz")
        assert initramfs.startswith(before["boot/gentoo.igz"])
        assert KEY.encode() in initramfs and len(initramfs) % 512 == 0
        served.wait_for(lambda event: event.get("file") == "boot/gentoo.igz")
        assert served.kinds("up") == []
        assert get(port, UP) == (200, b"ok\n")
        event = served.wait_for(lambda event: event.get("event") == "up")
        assert event["ip"] == "127.0.0.1" and event["status"] == 0
        assert served.process.wait(timeout=20) == 0  # --exit-after 1
    assert [event["event"] for event in served.read() if "event" in event][-1] == "stopped"
    assert known.read_text() == f"127.0.0.1 ssh-ed25519 {KEY}\n"
    assert served.kinds("broken") == []
    assert {path: (tree / path).read_bytes() for path in list_files(tree)} == before
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_file_that_cannot_be_written_is_reported_first(tree: Path, tmp_path: Path) -> None:
    known = tmp_path / "absent/known_hosts"
    words = ("--interface", "lo", "--http-port", str(free_port()), "--known-hosts", str(known))
    done = subprocess.run(
        [*COMMAND, "serve", str(tree), *words],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"{known} could not be written" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--ssh-key", "KEYS.absent"), "pxeboot/ssh_keys: "),
        (("--hostname", "a b"), "pxeboot/hostname: 'a b'"),
        (("--files", "KEYS"), "pxeboot/files: "),
        (("--only", "1:2"), "'1:2' is not a hardware address"),
        (("--exit-after", "0"), "'0' is not a number from 1"),
    ],
)
def test_options_that_cannot_be(tree: Path, words: tuple[str, ...], message: str) -> None:
    given = [word.replace("KEYS", str(KEYS)) for word in words]
    done = subprocess.run(
        [*COMMAND, "serve", str(tree), "--interface", "lo", *given],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert message in done.stderr and "Traceback" not in done.stderr
