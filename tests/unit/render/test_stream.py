"""The scripts of the initrd that streams a root."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from catalyst_pxeboot.formats.initramfs import Generator
from catalyst_pxeboot.render import stream
from catalyst_pxeboot.render.stream import render_stream

HOOKS = "usr/lib/dracut/hooks"
LOADER = "lib64/ld-linux-x86-64.so.2"
#: 1091: dracut's library is in the initramfs; 2154: udhcpc and dracut set these; 2034: genkernel's
#: init reads it; others: as meant.
IGNORED = "1091,2154,2034,3043,2086,2046,2016"


def scripts(
    interpreter: str = "", templates: Path | None = None, generator: Generator = Generator.DRACUT
) -> dict[str, str]:
    made = render_stream(
        generator=generator, hooks=HOOKS, interpreter=interpreter, templates=templates
    )
    return {path: content.decode("ascii") for path, content in made}


@pytest.mark.parametrize("interpreter", ["", LOADER])
@pytest.mark.parametrize("generator", Generator)
def test_scripts(interpreter: str, generator: Generator, tmp_path: Path) -> None:
    """Each is a shell's script, and shellcheck finds nothing in it."""
    found = scripts(interpreter, generator=generator)
    hooks = {
        Generator.DRACUT: f"{HOOKS}/initqueue/settled/00-stream.sh",
        Generator.GENKERNEL: "etc/initrd.splash",
    }
    parts = {f"pxeboot/{name}" for name in ("stream", "dhcp", "serve", "initramfs")}
    assert found.keys() == {*parts, hooks[generator]}
    assert all("{{" not in text for text in found.values())
    programs = parts - {"pxeboot/initramfs"}
    assert all(found[path].startswith("#!/") for path in programs)
    assert (LOADER in found["pxeboot/stream"]) == bool(interpreter)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing")
    for path, text in found.items():
        file = tmp_path / path.replace("/", "-")
        file.write_text(text)
        done = subprocess.run(
            ["shellcheck", "--shell=sh", f"--exclude={IGNORED}", file],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_a_template_of_the_user_takes_its_place(tmp_path: Path) -> None:
    (tmp_path / "initramfs").mkdir()
    (tmp_path / "initramfs/stream-dhcp.sh.j2").write_text("#!/bin/sh\n# mine\n")
    found = scripts(templates=tmp_path)
    assert found["pxeboot/dhcp"] == "#!/bin/sh\n# mine\n"
    assert "dm-verity" in found["pxeboot/stream"]


def run_report(folder: Path, nbdkit: str, *, connected: bool) -> str:
    """Run the script with its root in `folder`, and `nbdkit` in place of that program.

    Returns what the kernel's log got.
    """
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is missing")
    (folder / "run").mkdir()
    if connected:
        (folder / "run/connected").touch()
    for name, content in {"nbdkit": nbdkit, "nbd-client": "echo $* >> {folder}/ended"}.items():
        (folder / name).write_text("#!/bin/sh\n" + content.replace("{folder}", str(folder)) + "\n")
        (folder / name).chmod(0o755)
    for name in ("nbd0", "nbd1"):
        (folder / name).mkdir()
        (folder / name / "stat").write_text("7 0 0\n")
    text = scripts()["pxeboot/serve"].replace("/run/", f"{folder}/run/")
    text = text.replace("> /dev/kmsg", f">> {folder}/log").replace("/@/busybox", busybox)
    text = text.replace("/sys/block/", f"{folder}/").replace("/proc/uptime", f"{folder}/uptime")
    text = text.replace("answered=$reads", f"answered=$reads; : > {folder}/heard")
    text = text.replace("@/nbd", f"{folder}/nbd")
    argv = [busybox, "sh", "-c", text, "serve", "http://server/root", "http://server/hashes"]
    done = subprocess.run(argv, text=True, check=True, capture_output=True)
    assert not done.stderr
    log = folder / "log"
    return log.read_text() if log.exists() else ""


def errors(count: int, *, before: str = ":", text: str = "curl: error: pread: timeout") -> str:
    """Return a program that prints as nbdkit does while its server is away, a line each second.

    Seconds are the script's: the next one begins when it has heard of the last. `before` runs
    before each line.
    """
    return f"""
case $* in *nbd1*) exit ;; esac
for second in $(seq {count}); do
    echo $second.5 1.5 > {{folder}}/uptime
    {before}
    echo '{text}' >&2
    tries=0
    until [ -e {{folder}}/heard ] || [ -e {{folder}}/ended ] || [ $tries -ge 300 ]; do
        tries=$((tries + 1))
        sleep 0.01
    done
    rm -f {{folder}}/heard
done"""


WAITS = (
    "<28>streamed root: curl: error: pread: timeout\n"
    "<26>streamed root: the server does not answer; reading waits, {} seconds at most\n"
)


def test_a_server_that_is_away_is_told_once(tmp_path: Path) -> None:
    """nbdkit says so each second, for each reader."""
    assert run_report(tmp_path, errors(50), connected=True) == WAITS.format(300)
    assert (tmp_path / "run/first-error").read_text() == "pread: timeout\n"
    assert not (tmp_path / "ended").exists()


def test_a_server_that_stays_away_ends_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PATIENCE", 3)
    shown = run_report(tmp_path, errors(4), connected=True)
    assert shown == WAITS.format(3) + (
        "<26>streamed root: the server did not answer for 3 seconds; start this machine again when"
        " it does\n"
    )
    assert (tmp_path / "ended").read_text() == "-d /dev/nbd0\n-d /dev/nbd1\n"


@pytest.mark.parametrize("device", ["nbd0", "nbd1"])
def test_a_server_that_answers_now_and_then_is_waited_for(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "PATIENCE", 3)
    answers = f"[ $((second % 3)) != 0 ] || echo $second > {{folder}}/{device}/stat"
    shown = run_report(tmp_path, errors(20, before=answers), connected=True)
    assert shown == WAITS.format(3)
    assert not (tmp_path / "ended").exists()


def test_before_the_root_is_there_only_the_reason_is_told(tmp_path: Path) -> None:
    failing = errors(1, text="HTTP response code said error: 404")
    assert run_report(tmp_path, failing, connected=False) == (
        "<28>streamed root: HTTP response code said error: 404\n"
    )


@pytest.mark.parametrize(
    ("named", "found"),
    [
        ("http://10.0.0.1/boot/gentoo.efi", "http://10.0.0.1/image.squashfs"),
        ("http://10.0.0.1:8080/a/b/boot/gentoo.efi", "http://10.0.0.1:8080/a/b/image.squashfs"),
        ("https://s/boot/boot/grub/x86_64-efi/core.efi", "https://s/boot/image.squashfs"),
        ("http://10.0.0.1/x/ipxe.efi", "http://10.0.0.1/x/image.squashfs"),
        ("undionly.kpxe", ""),
        ("", ""),
    ],
)
def test_the_tree_is_where_the_firmware_fetched_from(
    named: str, found: str, tmp_path: Path
) -> None:
    """find_tree, with a DHCP server that names a file to clients of HTTP Boot."""
    text = scripts()["pxeboot/stream"]
    function = text[text.index("find_tree() {") :].partition("\n}\n")[0] + "\n}\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "online").write_text("eth0 \n")
    script = f"""
here={tmp_path} tools={tmp_path} url=image.squashfs
load_driver() {{ :; }}
mount() {{ :; }}
tell() {{ :; }}
fail() {{ echo "$1"; exit 1; }}
inside() {{
    echo "$*" >> {tmp_path}/asked
    [ -z '{named}' ] || echo '{named}' > {tmp_path}/run/boot-file
}}
{function}
find_tree
echo "$url"
"""
    done = subprocess.run(["sh", "-c", script], text=True, check=False, capture_output=True)
    assert done.stdout == f"{found or 'the address of the live root is not known'}\n", done.stderr
    assert " -i eth0 " in (tmp_path / "asked").read_text()
