# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DISTUTILS_USE_PEP517=hatchling
PYTHON_COMPAT=( python3_{12..14} )

inherit distutils-r1 git-r3 optfeature

DESCRIPTION="Trees that network-boot Gentoo's live images, from catalyst or an ISO"
HOMEPAGE="https://wiki.gentoo.org/wiki/Catalyst"

# PLACEHOLDER: the project's repository; put yours here (file:///path/to/a/checkout works).
EGIT_REPO_URI="https://example.org/catalyst-pxeboot.git"
# What comes from git has no KEYWORDS, a tag neither.
[[ ${PV} == 9999 ]] || EGIT_COMMIT="v${PV}"

LICENSE="GPL-2+"
SLOT="0"
IUSE="+catalyst serve sign stream uki"

# As in pyproject.toml; tests/integration/test_ebuild.py compares them.
RDEPEND="
	>=dev-python/jinja2-3.1[${PYTHON_USEDEP}]
	>=dev-python/lz4-4.0[${PYTHON_USEDEP}]
	>=dev-python/pycdlib-1.12[${PYTHON_USEDEP}]
	>=dev-python/rich-13.9[${PYTHON_USEDEP}]
	>=dev-python/snakeoil-0.10.5[${PYTHON_USEDEP}]
	>=dev-python/zstandard-0.21[${PYTHON_USEDEP}]
	catalyst? ( >=dev-util/catalyst-4[${PYTHON_USEDEP}] )
	serve? ( >=dev-python/aiohttp-3.10[${PYTHON_USEDEP}] )
	sign? ( >=dev-python/cryptography-43[${PYTHON_USEDEP}] )
	stream? (
		>=dev-python/pyelftools-0.30[${PYTHON_USEDEP}]
		sys-apps/busybox
		sys-block/nbd
		sys-block/nbdkit[curl]
		sys-fs/squashfs-tools
	)
	uki? ( >=dev-python/pefile-2023.2.7[${PYTHON_USEDEP}] )
"

# Manual pages and completions are in the wheel, in the folders where Gentoo has them.

pkg_postinst() {
	optfeature "iPXE in the trees" sys-firmware/ipxe
	optfeature "PXELINUX in the trees" sys-boot/syslinux
	optfeature "GRUB's network images in the trees" sys-boot/grub
	optfeature "unified kernel images" "sys-apps/systemd-utils[boot]" sys-apps/systemd
	optfeature "signing unified kernel images for Secure Boot" app-crypt/osslsigncode
	optfeature "checking their signatures" app-crypt/sbsigntools
	optfeature "signing trees, and checking an ISO's signature" app-crypt/gnupg
	optfeature "serve with DHCP and TFTP" net-dns/dnsmasq
	optfeature "serve by nginx instead of its own web server" www-servers/nginx
	optfeature "boot-test and qemu" app-emulation/qemu
}
