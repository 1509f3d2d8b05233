"""Signed trees: which files are signed, for whom, and what verify says of a changed one."""

from __future__ import annotations

import html
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from catalyst_pxeboot.build.pipeline import build
from catalyst_pxeboot.cli import main as cli
from catalyst_pxeboot.loader import LOADERS
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.render.menu import render_grub_early
from catalyst_pxeboot.spec.parse import parse_settings
from catalyst_pxeboot.tree.verify import verify_tree
from catalyst_pxeboot.util.errors import PxebootError, SpecError
from catalyst_pxeboot.util.files import list_files
from tests.golden.test_golden import MEMTEST
from tests.support.paths import ROOT
from tests.support.stage2 import STAMP, release_settings, storedir_stage2, write_stage2
from tests.unit.formats.signing.test_cms import CODE, issue, key_pem, pem
from tests.unit.formats.signing.test_openpgp import Keyring
from tests.unit.plan.test_flat import RELEASE
from tests.unit.tree.test_manifest import rewrite

pytestmark = pytest.mark.skipif(
    not shutil.which("gpg") or not shutil.which("gpgconf"), reason="no gpg and gpgconf"
)


@dataclass(frozen=True)
class Keys:
    """A release engineer's keys, and what users have of them."""

    ring: Keyring
    public: Path
    certificate: Path
    key: Path
    root: Path
    other: Path  # a public key that signs nothing here

    @property
    def spec(self) -> dict[str, str]:
        return {
            "pxeboot__gpg_key": self.ring.fingerprints("release")[0],
            "pxeboot__sign_cert": str(self.certificate),
            "pxeboot__sign_key": str(self.key),
        }


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    folder = tmp_path_factory.mktemp("keys")
    root = issue("root", ca=True)
    code = issue("signer", root, purposes=[CODE])
    # The agent's socket lies in it, whose path must be short.
    with tempfile.TemporaryDirectory(prefix="pg") as home:
        ring = Keyring(Path(home))
        found = Keys(ring, *(folder / name for name in ("pub", "crt", "key", "root", "other")))
        try:
            for name in ("release", "stranger"):
                ring.make(name)
            ring.make("curve", kind="ed25519")
            found.public.write_bytes(ring.gpg("--export", "release@example.org"))
            found.other.write_bytes(ring.gpg("--export", "stranger@example.org"))
            found.certificate.write_bytes(pem(code, root))
            found.key.write_bytes(key_pem(code.key))
            found.root.write_bytes(pem(root))
            yield found
        finally:
            ring.forget()


@pytest.fixture(autouse=True)
def home(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNUPGHOME", str(keys.ring.home))


def build_signed(folder: Path, **settings: Any) -> Path:
    write_stage2(storedir_stage2(folder), extra=MEMTEST)
    spec = parse_settings(release_settings(folder, **settings))
    return build(spec, report=lambda _line: None).output


@pytest.fixture
def signed(tmp_path: Path, no_loaders: None, keys: Keys) -> Path:
    return build_signed(tmp_path, **keys.spec)


def faults(tree: Path, keys: Keys) -> list[str]:
    found = verify_tree(tree, keyring=keys.public, certificates=keys.root).faults
    return [str(fault) for fault in found]


def test_what_each_loader_opens_is_signed(signed: Path, keys: Keys) -> None:
    payload = {"boot/gentoo", "boot/gentoo.igz", "boot/root.cpio-header", "image.squashfs"}
    payload |= {"memtest64.bios", "memtest.efi64"}
    configs = {"boot/grub/grub.cfg", "grub.cfg", "grub/grub.cfg"}
    names = set(list_files(signed))
    assert {name for name in names if name.endswith(".sig")} == {
        f"{name}.sig" for name in payload | configs
    }
    assert {name for name in names if name.endswith(".p7s")} == {
        f"{name}.p7s" for name in payload | {"boot.ipxe", "SHA256SUMS"}
    }
    assert "DIGESTS.asc" in names
    assert faults(signed, keys) == []
    assert verify_tree(signed).faults == ()


def test_gpg_and_openssl_find_the_same(signed: Path, keys: Keys) -> None:
    subprocess.run(["gpg", "--verify", signed / "DIGESTS.asc"], check=True, capture_output=True)
    for name in ("image.squashfs", "boot/grub/grub.cfg"):
        subprocess.run(
            ["gpg", "--verify", f"{signed / name}.sig", signed / name],
            check=True,
            capture_output=True,
        )
    for name in ("image.squashfs", "boot.ipxe"):
        subprocess.run(
            ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any",
             "-in", f"{signed / name}.p7s", "-content", signed / name, "-CAfile", keys.root,
             "-out", "/dev/null"],
            check=True, capture_output=True,
        )  # fmt: skip


def test_a_signed_tree_is_the_same_each_time(tmp_path: Path, no_loaders: None, keys: Keys) -> None:
    trees = [build_signed(tmp_path / name, **keys.spec) for name in ("1", "2")]
    first, second = ({n: (tree / n).read_bytes() for n in list_files(tree)} for tree in trees)
    assert first == second


def test_no_key_and_no_private_path_reaches_the_tree(signed: Path, keys: Keys) -> None:
    secret = keys.key.read_bytes().splitlines()[1]
    for name in list_files(signed):
        content = (signed / name).read_bytes()
        assert str(keys.key.parent).encode() not in content, name
        assert str(keys.ring.home).encode() not in content, name
        assert secret not in content, name


def test_the_page_tells_who_signed_and_how_to_check(signed: Path, keys: Keys) -> None:
    text = html.unescape((signed / "index.html").read_text())
    assert f"OpenPGP key <code>{keys.ring.fingerprints('release')[0]}</code>" in text
    certificate = x509.load_pem_x509_certificates(keys.certificate.read_bytes())[0]
    assert f"<code>{certificate.fingerprint(SHA256()).hex()}</code>" in text
    command = (
        "gpg --decrypt DIGESTS.asc | sed -n '/^# SHA512 HASH/{n;p}' | sha512sum --check --quiet"
    )
    assert f"<pre><code>{command}</code></pre>" in text
    assert f"  {command}\n" in (signed / "README.txt").read_text()
    done = subprocess.run(command, shell=True, cwd=signed, check=True, capture_output=True)
    assert b"Good signature" in done.stderr
    (signed / "boot.ipxe").write_text("changed")
    done = subprocess.run(command, shell=True, cwd=signed, check=False, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"boot.ipxe: FAILED\n")


def test_the_script_checks_if_asked(signed: Path) -> None:
    script = (signed / "boot.ipxe").read_text()
    assert LOADERS[Loader.IPXE].check(script).problems == ()
    block = script[script.index("isset ${verify}") : script.index("\n:boot_memtest")]
    assert block == (
        "isset ${verify} || goto files_verified\n"
        "imgverify kernel ${base}${kernel}.p7s || goto boot_failed\n"
        "imgverify initramfs ${base}${initrd}.p7s || goto boot_failed\n"
        "imgverify live-root ${base}image.squashfs.p7s || goto boot_failed\n"
        "isset ${old_efi} || goto files_verified\n"
        "imgverify root-header ${base}boot/root.cpio-header.p7s || goto boot_failed\n"
        ":files_verified\n"
        "boot || goto boot_failed\n"
    )


def test_the_script_checks_in_any_case(tmp_path: Path, no_loaders: None, keys: Keys) -> None:
    tree = build_signed(tmp_path, **keys.spec, pxeboot__sign_verify="always")
    script = (tree / "boot.ipxe").read_text()
    assert LOADERS[Loader.IPXE].check(script).problems == ()
    assert "${verify}" not in script
    assert script.count("imgverify ") == 4 + 1


def test_grubs_image_asks_for_signatures() -> None:
    assert "check_signatures" not in render_grub_early(None)
    early = render_grub_early(None, signed=True)
    assert early.splitlines()[:2] == ["set check_signatures=enforce", "export check_signatures"]


def test_verify_finds_what_a_signature_covers(signed: Path, keys: Keys) -> None:
    """Somebody changes a file and all digests with it; the signatures tell."""
    squashfs = bytearray((signed / "image.squashfs").read_bytes())
    squashfs[40_000] ^= 1
    (signed / "image.squashfs").unlink()  # a link to the source, which stays as it is
    (signed / "image.squashfs").touch()
    rewrite(signed, "image.squashfs", bytes(squashfs))
    found = [fault for fault in faults(signed, keys) if ".sig: " in fault or ".p7s: " in fault]
    assert found == [
        "image.squashfs.sig: the signature is bad: what it signs was changed; fetch it again, or"
        " have it signed again",
        "SHA256SUMS.p7s: the signature is bad: it is of another file, or this one was changed; have"
        " the file signed again",
        "image.squashfs.p7s: the signature is bad: it is of another file, or this one was changed;"
        " have the file signed again",
    ]


def test_verify_wants_signatures_where_it_is_given_keys(
    tmp_path: Path, no_loaders: None, signed: Path, keys: Keys
) -> None:
    plain = build_signed(tmp_path / "plain")
    assert [str(fault) for fault in verify_tree(plain, keyring=keys.public).faults] == [
        "DIGESTS.asc or SHA256SUMS.asc: not found, so the tree is not signed; build it with"
        " pxeboot/gpg_key, or leave --keyring out"
    ]
    assert [str(fault) for fault in verify_tree(plain, certificates=keys.root).faults] == [
        "SHA256SUMS.p7s: not found, so the tree is not signed; build it with pxeboot/sign_cert, or"
        " leave --certificates out"
    ]
    strangers = verify_tree(signed, keyring=keys.other).faults
    assert len(strangers) == 1 + 9
    assert cli.main(["verify", "-q", "--keyring", str(keys.public), str(signed)]) == 0
    assert cli.main(["verify", "-q", "--keyring", str(keys.other), str(signed)]) == 1


def test_the_flat_set_has_signed_digests(tmp_path: Path, no_loaders: None, keys: Keys) -> None:
    folder = build_signed(tmp_path, **keys.spec, pxeboot__release=RELEASE).parent
    digests = folder / f"pxeboot-{RELEASE}.DIGESTS"
    subprocess.run(["gpg", "--verify", f"{digests}.asc"], check=True, capture_output=True)
    assert digests.read_text() in Path(f"{digests}.asc").read_text()
    assert "imgverify" not in (folder / f"netboot-ipxe-{RELEASE}.ipxe").read_text()


def test_a_key_that_grub_cannot_read_ends_the_build(
    tmp_path: Path, no_loaders: None, keys: Keys
) -> None:
    with pytest.raises(PxebootError) as caught:
        build_signed(tmp_path, pxeboot__gpg_key="curve@example.org")
    assert "and GRUB checks only RSA and DSA signatures" in str(caught.value)
    assert not (storedir_stage2(tmp_path).parent / f"pxeboot-amd64-{STAMP}").exists()
    # Without GRUB it will do.
    loaders = ["ipxe", "pxelinux"]
    build_signed(tmp_path / "2", pxeboot__gpg_key="curve@example.org", pxeboot__loaders=loaders)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pxeboot__sign_cert": "/c"}, "pxeboot/sign_key: is missing beside its other half; name both or neither"),
        ({"pxeboot__sign_key": "/c"}, "pxeboot/sign_cert: is missing beside its other half; name both or neither"),
        ({"pxeboot__sign_cert": "c", "pxeboot__sign_key": "/k"}, "pxeboot/sign_cert: 'c' is not an absolute path; write it from the root, /"),
        ({"pxeboot__sign_verify": "always"}, "pxeboot/sign_verify: has no signatures to check; set pxeboot/sign_cert"),
        ({"pxeboot__sign_verify": "never"}, "pxeboot/sign_verify: 'never' is unknown; use asked, always"),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_key(tmp_path: Path, settings: dict[str, str], reason: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_settings(release_settings(tmp_path, **settings))
    assert str(caught.value.problems[0]) == reason


def test_the_users_own_files_are_signed_and_checked(
    tmp_path: Path, no_loaders: None, keys: Keys
) -> None:
    own = {"pxeboot__ssh_keys": str(ROOT / "tests/data/personal/authorized_keys")}
    tree = build_signed(tmp_path, **keys.spec, **own, pxeboot__sign_verify="always")
    assert faults(tree, keys) == []
    script = (tree / "boot.ipxe").read_text()
    assert "imgverify personal ${base}boot/personal.cpio.p7s || goto boot_failed" in script
    for ending in ("p7s", "sig"):
        (tree / f"boot/personal.cpio.{ending}").unlink()
    assert sum("boot/personal.cpio" in fault for fault in faults(tree, keys)) >= 2
