"""A live root that machines log in to: busybox, and the build host's sshd.

It does what Gentoo's live images do with the words that concern a login: `dosshd` starts sshd,
`dodhcp` brings the network up; OpenRC's local.d is run at the end.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from catalyst_pxeboot.util.errors import CommandError
from tests.support.live_image import TOKEN

_PROGRAMS = ("/usr/sbin/sshd", "/usr/bin/ssh-keygen", "/usr/bin/curl")
_LIBRARY = re.compile(r"(/\S+)(?: \(0x|$)")

INIT = f"""\
#!/bin/busybox sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin:/run/bin
export PATH
for entry in proc:/proc sysfs:/sys devtmpfs:/dev tmpfs:/run; do
    busybox grep -q " ${{entry#*:}} " /proc/mounts 2>/dev/null ||
        busybox mount -t "${{entry%:*}}" "${{entry%:*}}" "${{entry#*:}}"
done
exec </dev/console >/dev/console 2>&1
busybox mkdir /run/bin
busybox --install -s /run/bin
echo /run/bin/modprobe > /proc/sys/kernel/modprobe
mkdir -p /dev/pts /run/sshd /var/log /var/empty
mount -t devpts devpts /dev/pts
[ ! -e /etc/hostname ] || hostname "$(cat /etc/hostname)"
ip link set lo up
has() {{ case " $(cat /proc/cmdline) " in *" $1 "*) ;; *) return 1 ;; esac; }}

# As udev would. What was brought up for the root stays as it is.
modprobe -qa virtio_pci virtio_blk
if has dodhcp && [ -z "$(ip -o -4 addr show scope global)" ]; then
    modprobe -a virtio_pci virtio_net af_packet
    ip link set eth0 up
    udhcpc -q -n -t 20 -i eth0 -s /etc/udhcpc
fi
if has dosshd; then
    ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
    /usr/sbin/sshd
fi
for script in /etc/local.d/*.start; do
    [ ! -x "$script" ] || "$script"
done
echo "{TOKEN} $(cat /proc/cmdline)"
while [ ! -e /run/stop ]; do sleep 1; done
sync
poweroff -f
"""

_DHCP = """\
#!/bin/sh
[ "$1" != bound ] || ip addr add "$ip/$mask" dev "$interface"
"""

_FILES = {
    "/etc/passwd": (
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\n",
    ),
    "/etc/group": (0o644, "root:x:0:\nnogroup:x:65534:\n"),
    "/etc/shadow": (0o600, "root:*:19000::::::\nsshd:*:19000::::::\n"),
    "/etc/ssh/sshd_config": (
        0o644,
        "UsePAM no\nPasswordAuthentication no\nSetEnv PATH=/usr/bin:/bin:/run/bin\n",
    ),
    "/etc/udhcpc": (0o755, _DHCP),
    # No service of its own brings the network up: `dodhcp` does.
    "/etc/runlevels/default/autoconfig": (0o755, ""),
}


def login_members(*programs: str) -> Iterator[tuple[str, int, bytes]]:
    """Yield the path, mode and content of each file that the root has for logins.

    `programs` are more of the build host's, by their paths.
    """
    for name, (mode, text) in _FILES.items():
        yield name, mode, text.encode()
    found: dict[str, Path] = {}
    for program in (*_PROGRAMS, *programs):
        if not Path(program).exists():
            raise CommandError(f"{program} is missing (openssh-server, curl)")
        found[program] = Path(program)
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            if library := _LIBRARY.search(line):
                found[library[1]] = Path(library[1])
    for name, path in sorted(found.items()):
        yield name, 0o755, path.read_bytes()
