#!/bin/sh
# Install the system packages that the live image, the loaders and QEMU come from: by apt where
# this is Debian and we are root; elsewhere say what to install. What is missing is skipped by the
# tests, each naming it.
set -eu

debian='qemu-system-x86 qemu-system-arm ovmf ovmf-ia32 qemu-efi-aarch64 qemu-efi-arm u-boot-qemu
ipxe pxelinux syslinux-common grub-common grub-pc-bin grub-efi-amd64-bin grub-efi-ia32-bin
dracut-core dracut-live dracut-network nfs-common curl dmsetup kmod zstd squashfs-tools-ng
busybox-static xorriso mtools kexec-tools shellcheck chromium fonts-dejavu-core
gpg gpg-agent gpgconf cpio lz4 lzop bzip2 xz-utils openssl iproute2 dnsmasq-base nginx-light
kea-dhcp4-server isc-dhcp-server ruby zsh rsync squashfs-tools
nbdkit nbd-client cryptsetup-bin openssh-client openssh-server
systemd-boot-efi osslsigncode softhsm2 libengine-pkcs11-openssl sbsigntool efitools binutils'

missing=
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $debian; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
    [ -n "$missing" ] || exit 0
    if [ "$(id -u)" = 0 ]; then
        echo "Installing:$missing"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        # Their servers are run by tests only, not by this machine.
        policy=/usr/sbin/policy-rc.d
        [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; ours=yes; }
        # shellcheck disable=SC2086 # a list of words
        apt-get install -y -qq --no-install-recommends $missing >/dev/null
        [ -z "${ours-}" ] || rm -f $policy
        exit 0
    fi
    echo "For all tests, as root: apt-get install --no-install-recommends$missing"
    exit 0
fi
for program in qemu-system-x86_64 grub-mkimage dracut gensquashfs busybox; do
    command -v "$program" >/dev/null 2>&1 || missing="$missing $program"
done
[ -z "$missing" ] || echo "Not found:$missing. On Gentoo:" \
    "emerge app-emulation/qemu sys-firmware/edk2-bin sys-boot/grub sys-boot/syslinux" \
    "sys-boot/ipxe sys-kernel/dracut sys-fs/squashfs-tools-ng sys-apps/busybox sys-apps/kexec-tools" \
    "www-client/chromium dev-util/shellcheck-bin"
