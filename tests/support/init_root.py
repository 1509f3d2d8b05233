"""Live roots of Debian with an init system that Gentoo has too: systemd, or OpenRC's shutdown.

debootstrap makes them as root, from Debian's packages.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from catalyst_pxeboot.util.errors import CommandError
from tests.support import live_image

#: The packages for process 1, in a second step: openrc replaces what the first one brings.
PACKAGES = {"systemd": ("systemd-sysv", "udev"), "openrc": ("sysvinit-core", "openrc", "udev")}
#: What a machine needs that is logged in to, and that reports.
LOGIN_PACKAGES = ("openssh-server", "iproute2", "curl")

_MIRROR = "http://deb.debian.org/debian"

# What runs in the live root: all of /usr/bin is read, then the machine is stopped.
_SCRIPT = f"""\
echo "{live_image.TOKEN} $(cat /proc/cmdline)" > /dev/console
cat /usr/bin/* | sha256sum > /dev/null
read -r seconds _ < /proc/uptime
echo "live root: stopping at $seconds" > /dev/console
"""

_WAIT = f"""\
echo "{live_image.TOKEN} $(cat /proc/cmdline)" > /dev/console
while [ ! -e /run/stop ]; do sleep 1; done
"""

_UNIT = """\
[Unit]
After=multi-user.target
[Service]
Type=idle
ExecStart=/bin/sh /live-test
[Install]
WantedBy=multi-user.target
"""

# Gentoo's inittab has `openrc shutdown` for level 0, whose service killprocs is this.
_INITTAB = """\
id:3:initdefault:
l3:3:wait:/bin/sh /live-test
l0:0:wait:/bin/sh /live-stop
"""
_STOP = """\
/lib/rc/bin/kill_all 15
sleep 1
/lib/rc/bin/kill_all 9
exec halt -dhip
"""


def build_init_image(
    stage2: Path,
    *,
    cache: Path,
    init: str,
    modules: Path,
    login: bool = False,
    livecd_tools: Path | None = None,
) -> None:
    """Put a live root with the init system `init` into the live image at `stage2`.

    `modules` are the kernel's. With `login` it runs sshd, until `/run/stop` is there; otherwise it
    reads much of itself and stops. With a checkout of livecd-tools, sshd is started by its service
    autoconfig alone. Raises `CommandError` where debootstrap is missing.
    """
    if shutil.which("debootstrap") is None or shutil.which("mksquashfs") is None:
        raise CommandError("debootstrap or mksquashfs is missing")
    more = LOGIN_PACKAGES if login else ()
    base = cache / f"live-root-{init}{'-login' if login else ''}"
    if not base.is_dir():
        live_image._once(base, partial(_bootstrap, (*PACKAGES[init], *more)))
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        live_image._run("cp", "-a", str(base), str(root))
        shutil.copytree(modules, root / "usr/lib/modules" / modules.name, symlinks=True)
        _configure(root, init, _WAIT if login else _SCRIPT)
        if login:
            _configure_login(root, init)
        if livecd_tools:
            _configure_autoconfig(root, livecd_tools)
        target = stage2 / "image.squashfs"
        target.unlink(missing_ok=True)
        live_image._run("mksquashfs", str(root), str(target), "-quiet", "-no-progress")


def _bootstrap(packages: Sequence[str], root: Path) -> None:
    root.mkdir()
    live_image._run("debootstrap", "--variant=minbase", "bookworm", str(root), _MIRROR)
    live_image._run(
        "chroot", str(root), "env", "DEBIAN_FRONTEND=noninteractive",
        "apt-get", "-qq", "-y", "--no-install-recommends", "install", *packages,
    )  # fmt: skip
    for kept in ("cache/apt/archives", "lib/apt/lists"):
        for file in (root / "var" / kept).glob("*"):
            if file.is_file():
                file.unlink()


def _configure(root: Path, init: str, script: str) -> None:
    (root / "etc/fstab").write_text("")
    stop = "systemctl poweroff\n" if init == "systemd" else "exec init 0\n"
    (root / "live-test").write_text(script + stop)
    if init == "systemd":
        units = root / "etc/systemd/system"
        (units / "live-test.service").write_text(_UNIT)
        wanted = units / "multi-user.target.wants/live-test.service"
        wanted.parent.mkdir(exist_ok=True)
        wanted.symlink_to("../live-test.service")
    else:
        (root / "etc/inittab").write_text(_INITTAB)
        (root / "live-stop").write_text(_STOP)


# OpenRC's own run levels, as Gentoo's inittab has them.
_LOGIN_INITTAB = """\
id:3:initdefault:
si::sysinit:/sbin/openrc sysinit
rc::bootwait:/sbin/openrc boot
l3:3:wait:/sbin/openrc default
l4:3:once:/bin/sh /live-test
l0:0:wait:/bin/sh /live-stop
"""


# Debian's OpenRC has not Gentoo's service `local`, which does what the last lines do.
_RC_LOCAL = """\
#!/bin/sh
ssh-keygen -A
/etc/init.d/ssh restart
for script in /etc/local.d/*.start; do
    [ ! -x "$script" ] || "$script"
done
"""


def _configure_login(root: Path, init: str) -> None:
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()  # each machine makes its own
    (root / "etc/hostname").write_text("debian\n")
    if init == "systemd":
        units = root / "etc/systemd/system"
        (units / "ssh.service.d").mkdir()
        (units / "ssh.service.d/keys.conf").write_text(
            "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\n"
            "ExecStartPre=/usr/sbin/sshd -t\n"
        )
        return
    (root / "etc/inittab").write_text(_LOGIN_INITTAB)
    (root / "etc/rc.local").write_text(_RC_LOCAL)
    (root / "etc/rc.local").chmod(0o755)


# As Gentoo's, in short.
_SSHD = """\
#!/sbin/openrc-run
command=/usr/sbin/sshd
pidfile=/run/sshd.pid
start_pre() {
    mkdir -p /run/sshd
    ssh-keygen -A
}
"""


def _configure_autoconfig(root: Path, livecd_tools: Path) -> None:
    """Start sshd only if autoconfig does, as on Gentoo's live images."""
    services = root / "etc/init.d"
    (services / "ssh").unlink()
    (root / "etc/conf.d").mkdir(exist_ok=True)
    (services / "sshd").write_text(_SSHD)
    # Debian's name for it is kmod.
    (services / "modules").write_text("#!/sbin/openrc-run\nstart() {\n    :\n}\n")
    shutil.copy(livecd_tools / "init.d/autoconfig", services / "autoconfig")
    shutil.copy(livecd_tools / "conf.d/autoconfig", root / "etc/conf.d/autoconfig")
    for name in ("sshd", "modules", "autoconfig"):
        (services / name).chmod(0o755)
    for link in (root / "etc/runlevels").glob("*/ssh"):
        link.unlink()
    (root / "etc/runlevels/default/autoconfig").symlink_to("/etc/init.d/autoconfig")
    started = _RC_LOCAL.replace("ssh-keygen -A\n/etc/init.d/ssh restart\n", "")
    (root / "etc/rc.local").write_text(started)
