"""Initramfs images as genkernel lays them out, small enough for a boot test.

Two kinds: one with an init script of our own that knows genkernel's words, and one with
genkernel's own scripts, read while the test runs from a checkout that GENKERNEL_SRC names.
"""

from __future__ import annotations

import gzip
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

#: What the image says of itself where no checkout tells a version.
VERSION = "4.3.17"

#: The modules a live root needs, by genkernel's groups; their dependencies are added.
MODULES = {
    "fs": ("loop", "squashfs", "overlay", "nfs", "nfsv3"),
    "net": ("virtio_net",),
    "virtio": ("virtio_pci",),
}

_FOLDERS = """
.initrd bin dev etc etc/modules lib lib/console lib/dracut lib/modules mnt newroot proc root run
sbin sys tmp usr usr/bin usr/lib usr/sbin usr/share usr/share/udhcpc var var/empty var/log var/run
var/run/lock
"""

_APPLETS = "[ ash sh mkdir mknod mount uname echo chmod cut cat touch"

# genkernel's own init mounts an embedded root when `loop=` names a file of the initramfs, or the
# same file of an NFS server for `real_root=/dev/nfs`. This one does that and nothing else, and ends
# at once where a boot test would wait for its timeout.
_INIT = """\
#!/bin/sh
PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mkdir -p /proc /sys /dev /run /mnt/livecd /mnt/overlay /newroot
/bin/busybox --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1

emergency=poweroff
fail() {
    echo "initramfs: $*"
    sync
    "$emergency" -f
    exec sleep 3600
}

loop= looptype= cdroot= overlayfs= real_init=/sbin/init got_loop_wo_mount=0
real_root= nfsroot= ip= iface=eth0 gateway=
for word in $(cat /proc/cmdline); do
    case $word in
        loop=*) loop=${word#*=} ;;
        looptype=*) looptype=${word#*=} ;;
        real_init=*) real_init=${word#*=} ;;
        real_root=*) real_root=${word#*=} ;;
        nfsroot=*) nfsroot=${word#*=} ;;
        ip=*) ip=${word#*=} ;;
        gk.net.iface=*) iface=${word#*=} ;;
        gk.net.gw=*) gateway=${word#*=} ;;
        cdroot) cdroot=1 ;;
        overlayfs) overlayfs=1 ;;
        gk.emergency=reboot|gk.emergency=poweroff|gk.emergency=halt) emergency=${word#*=} ;;
    esac
done

[ -n "$cdroot" ] || fail "no cdroot on the kernel command line"
[ -n "$loop" ] || fail "no loop= on the kernel command line"
[ "$looptype" = squashfs ] || fail "looptype=$looptype is not squashfs"
[ -f "$loop" ] && got_loop_wo_mount=1

load() {
    for module in "$@"; do
        modprobe "$module" || fail "module $module cannot be loaded"
    done
}

# Every card is looked at: `gk.net.iface` may be a name or an address.
find_interface() {
    case $iface in
        *[:-]*) wanted=$(echo "$iface" | tr A-Z- a-z:) ;;
        *) echo "$iface"; return ;;
    esac
    for folder in /sys/class/net/*; do
        [ "$(cat "$folder/address")" = "$wanted" ] && echo "${folder##*/}"
    done
}

start_network() {
    load virtio_pci virtio_net
    found=$(find_interface)
    [ -d "/sys/class/net/$found" ] || fail "no network interface is $iface"
    case $ip in
        ''|dhcp)
            udhcpc -i "$found" -n -q -t 3 -T 10 -s /usr/share/udhcpc/default.script ||
                fail "no DHCP server answers on $found" ;;
        *[:,]*) fail "ip=$ip is the kernel's business, and it has no network yet" ;;
        *)
            ip link set "$found" up
            ip addr add "$ip" dev "$found" || fail "ip=$ip is no address"
            [ -z "$gateway" ] || ip route add default via "$gateway" dev "$found" ;;
    esac
}

load loop squashfs overlay
if [ "$real_root" = /dev/nfs ] && [ "$got_loop_wo_mount" = 0 ]; then
    start_network
    [ -n "$nfsroot" ] || fail "no nfsroot= on the kernel command line"
    load nfs nfsv3
    options=ro,nolock
    case $nfsroot in *,*) options=$options,${nfsroot#*,} ;; esac
    mkdir -p /mnt/cdrom
    mount -t nfs -o "$options" "${nfsroot%%,*}" /mnt/cdrom ||
        fail "${nfsroot%%,*} cannot be mounted by NFS with $options"
    loop=/mnt/cdrom$loop
    [ -f "$loop" ] || fail "$loop is not on the NFS server, which has:" $(ls /mnt/cdrom)
elif [ "$got_loop_wo_mount" = 0 ]; then
    fail "$loop is not in the initramfs"
fi
mount -t squashfs -o loop,ro "$loop" /mnt/livecd || fail "$loop cannot be mounted as squashfs"
root=/mnt/livecd
if [ -n "$overlayfs" ]; then
    mount -t tmpfs tmpfs /mnt/overlay || fail "no tmpfs for the overlay"
    over=/mnt/overlay
    mkdir $over/upper $over/work
    mount -t overlay -o "lowerdir=/mnt/livecd,upperdir=$over/upper,workdir=$over/work" \\
        overlay /newroot || fail "no overlay over the live root"
    root=/newroot
    mkdir -p /newroot/mnt/livecd
    mount --move /mnt/livecd /newroot/mnt/livecd
fi
[ -x "$root$real_init" ] || fail "$real_init is not in the live root"
mount --move /dev "$root/dev"
umount /proc /sys
exec switch_root "$root" "$real_init"
"""

# What genkernel's script for udhcpc does, in short.
_UDHCPC = """\
#!/bin/sh
case $1 in
    deconfig) ifconfig "$interface" 0.0.0.0 up ;;
    bound)
        ifconfig "$interface" "$ip" netmask "${subnet:-255.255.255.0}"
        for gateway in $router; do
            route add default gw "$gateway" dev "$interface" && break
        done ;;
esac
exit 0
"""

# genkernel ships eudev, whose part in finding a root is small: it makes /dev/loop-control (devtmpfs
# has that node only once the module is there), loads the drivers of the cards that it finds, and
# answers "settle".
_UDEVD = """\
#!/bin/sh
for module in loop squashfs overlay virtio_pci virtio_net; do
    modprobe "$module"
done
exit 0
"""
_UDEVADM = """\
#!/bin/sh
exit 0
"""

# Debian's static busybox lacks this applet, genkernel's has it and its init relies on it.
_MOUNTPOINT = """\
#!/bin/sh
[ "$1" = -n ] && shift
exec grep -q " $1 " /proc/mounts
"""


class CpioWriter:
    """A newc archive, member by member, all owned by root and dated 0.

    Format: Linux Documentation/driver-api/early-userspace/buffer-format.rst.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def folder(self, name: str, permissions: int = 0o755) -> None:
        """Add a folder."""
        self._add(name, stat.S_IFDIR | permissions, b"", links=2)

    def file(self, name: str, content: bytes, permissions: int = 0o644) -> None:
        """Add a regular file."""
        self._add(name, stat.S_IFREG | permissions, content)

    def symlink(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self._add(name, stat.S_IFLNK | 0o777, target.encode())

    def node(self, name: str, permissions: int, major: int, minor: int) -> None:
        """Add a character device."""
        self._add(name, stat.S_IFCHR | permissions, b"", device=(major, minor))

    def tree(self, top: Path, prefix: str) -> None:
        """Add everything below the folder `top` as `prefix`, folders included."""
        for path in sorted(top.rglob("*")):
            name = f"{prefix}/{path.relative_to(top)}"
            if path.is_dir():
                self.folder(name)
            else:
                self.file(name, path.read_bytes())

    def finish(self) -> bytes:
        """Return the archive as it stands, with its trailer."""
        rest = CpioWriter()
        rest._data = bytearray(self._data)
        rest._add("TRAILER!!!", 0, b"")
        return bytes(rest._data)

    def _add(
        self, name: str, mode: int, content: bytes, links: int = 1, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._inode += 1
        raw = name.encode() + b"\0"
        inode = self._inode if mode else 0
        fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(raw), 0)
        self._data += b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        self._data += bytes(-len(self._data) % 4) + content
        self._data += bytes(-len(self._data) % 4)


def write_like(target: Path, *, busybox: Path, modules: Path, release: str) -> None:
    """Write an initramfs that looks like genkernel's and starts with our own init script.

    `modules` is the folder lib/modules/`release` of the kernel, `busybox` a static one. The
    file's size is no multiple of 4.
    """
    archive = _base(busybox, VERSION)
    _add_modules(archive, modules, release)
    archive.file("etc/initrd.scripts", b"# genkernel keeps its functions here\n")
    archive.file("etc/initrd.defaults", b"# genkernel keeps its defaults here\n")
    archive.file("init", _INIT.encode(), 0o755)
    archive.file("usr/share/udhcpc/default.script", _UDHCPC.encode(), 0o755)
    _compress(archive, target)


def write_real(
    target: Path, *, genkernel: Path, busybox: Path, modules: Path, release: str
) -> None:
    """Write an initramfs with the init scripts of the checkout `genkernel`.

    Beside the scripts it holds what genkernel would compile: busybox (a static one), the
    kernel's modules from `modules`, and stand-ins for eudev's two programs. The file's size is
    no multiple of 4.
    """
    found = re.search(r"^GK_V='([^']+)'", (genkernel / "genkernel").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{genkernel} is no checkout of genkernel: no GK_V in genkernel")
    defaults = genkernel / "defaults"
    archive = _base(busybox, found[1])
    groups = _add_modules(archive, modules, release)
    archive.file("init", (defaults / "linuxrc").read_bytes(), 0o755)
    archive.file("etc/initrd.scripts", (defaults / "initrd.scripts").read_bytes(), 0o755)
    hwopts = f'HWOPTS="$HWOPTS {" ".join(groups)} "\n'.encode()
    archive.file("etc/initrd.defaults", (defaults / "initrd.defaults").read_bytes() + hwopts, 0o755)
    archive.file("usr/sbin/gksosreport", (defaults / "gksosreport.sh").read_bytes(), 0o755)
    archive.file(
        "usr/share/udhcpc/default.script", (defaults / "udhcpc.scripts").read_bytes(), 0o755
    )
    # Where Debian's busybox looks for it, and genkernel's own does not.
    archive.symlink("etc/udhcpc", "../usr/share/udhcpc")
    archive.file("sbin/udevd", _UDEVD.encode(), 0o755)
    archive.file("bin/udevadm", _UDEVADM.encode(), 0o755)
    archive.file("bin/mountpoint", _MOUNTPOINT.encode(), 0o755)
    _compress(archive, target)


def _base(busybox: Path, version: str) -> CpioWriter:
    """Begin an archive with what genkernel's append_base_layout and append_busybox put in."""
    archive = CpioWriter()
    for folder in _FOLDERS.split():
        archive.folder(folder, 0o1777 if folder == "tmp" else 0o755)
    for link in ("lib32", "lib64", "usr/lib32", "usr/lib64"):
        archive.symlink(link, "lib")
    for name, permissions, major, minor in (
        ("console", 0o660, 5, 1),
        ("null", 0o666, 1, 3),
        ("ttyS0", 0o600, 4, 64),
    ):
        archive.node(f"dev/{name}", permissions, major, minor)
    for name, text in (
        ("build_date", "2026-11-22 17:00:00 UTC\n"),
        ("build_id", f"Genkernel {version}\n"),
        ("fstab", "/dev/ram0 / ext2 defaults 0 0\nproc /proc proc defaults 0 0\n"),
        ("group", "root:x:0:root\n"),
        ("initrd-release", _initrd_release(version)),
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ):
        archive.file(f"etc/{name}", text.encode())
    archive.symlink("etc/mtab", "/proc/self/mounts")
    archive.file(
        "lib/dracut/dracut-gk-version.info", f"Genkernel {version} (2026-11-22)\n".encode()
    )
    archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in _APPLETS.split():
        archive.symlink(f"bin/{applet}", "busybox")
    archive.symlink("linuxrc", "init")
    archive.symlink("sbin/init", "../init")
    return archive


def _initrd_release(version: str) -> str:
    return (
        f'NAME="genkernel"\nVERSION="genkernel-{version}"\nID=genkernel\nVERSION_ID={version}\n'
        f'PRETTY_NAME="Gentoo/Linux genkernel-{version} (Initramfs)"\n'
    )


def _add_modules(archive: CpioWriter, modules: Path, release: str) -> tuple[str, ...]:
    """Add `MODULES` with their dependencies; return the names of genkernel's module groups."""
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch, "lib", "modules", release)
        named = [name for group in MODULES.values() for name in group]
        for name in _with_dependencies(modules, named):
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(modules / name, top / name)
        for index in modules.glob("modules.[bo]*"):  # builtin, builtin.modinfo and order
            shutil.copyfile(index, top / index.name)
        subprocess.run(["depmod", "-b", scratch, release], check=True)
        archive.tree(Path(scratch, "lib", "modules"), "lib/modules")
    for group, names in MODULES.items():
        archive.file(f"etc/modules/{group}", "".join(f"{name}\n" for name in names).encode())
    return tuple(MODULES)


def _with_dependencies(modules: Path, names: Iterable[str]) -> Sequence[str]:
    """Name the files of the modules `names` and of all they need, by the kernel's modules.dep.

    What a kernel has built in has no file.
    """
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = [path, *rest.split()]
    by_name = {_module_name(path): path for path in needs}
    builtin = {_module_name(line) for line in (modules / "modules.builtin").read_text().split()}
    wanted = [name for name in names if name not in builtin]
    return sorted({path for name in wanted for path in needs[by_name[name]]})


def _module_name(path: str) -> str:
    return Path(path).name.partition(".")[0].replace("-", "_")


def _compress(archive: CpioWriter, target: Path) -> None:
    """Write `archive` with gzip, and see to it that the size is no multiple of 4.

    Such a file is only followed by a second archive where the loader pads it, so a boot test
    with it proves the padding.
    """
    comment = 0
    while len(packed := gzip.compress(archive.finish(), 6, mtime=0)) % 4 == 0:
        comment += 1
        archive.file(f"etc/comment-{comment}", b"changes the size of the compressed image\n")
    target.write_bytes(packed)
