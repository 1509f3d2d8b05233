"""catalyst's loose settings become one frozen `Spec`.

The only module that knows the names and forms of catalyst's keys. Every fault is collected and
all are raised together, so that a spec is corrected once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from catalyst_pxeboot.formats.iso import is_iso
from catalyst_pxeboot.formats.signing.pkcs11 import SCHEME, TokenKey, read_token_key
from catalyst_pxeboot.model.arch import Arch, all_arches, find_arch
from catalyst_pxeboot.model.loader import Loader
from catalyst_pxeboot.model.settings import (
    MAX_TITLE,
    HostSettings,
    LinkMode,
    NfsRoot,
    PersonalSettings,
    Release,
    RootMode,
    SecureBoot,
    Serial,
    Server,
    Signing,
)
from catalyst_pxeboot.spec.keys import ISO_KEY, loader_keys, required_keys, unknown_key_problems
from catalyst_pxeboot.spec.names import make_title, read_name
from catalyst_pxeboot.spec.personal import take_hosts, take_personal
from catalyst_pxeboot.spec.reader import KeyReader
from catalyst_pxeboot.spec.values import (
    parse_base_url,
    parse_digests,
    parse_nfs_root,
    parse_release,
    parse_serial,
    parse_server,
)
from catalyst_pxeboot.util.errors import PxebootError, SpecError

MAX_TIMEOUT = 24 * 60 * 60
#: What catalyst packs a build as; the folder of the same name lies beside it.
_PACKED = re.compile(r"\.(tar(\.\w+)?|squashfs)$")


@dataclass(frozen=True, slots=True)
class Spec:
    """What the user asked for, checked; paths are absolute."""

    arch: Arch
    subarch: str
    rel_type: str
    version_stamp: str
    source: Path
    output: Path
    kernels: tuple[str, ...]  # empty: as the ISO's menu has them
    bootargs: tuple[str, ...] | None  # None: the ISO's own
    extra_bootargs: tuple[str, ...]
    consoles: Mapping[str, tuple[str, ...]]  # by kernel, beside the ISO's own
    title: str
    timeout: int | None  # seconds, -1 for ever; None: the ISO's
    loaders: tuple[Loader, ...]
    loader_path: tuple[Path, ...]
    serial: Serial | None
    link: LinkMode
    templates: Path | None
    digests: tuple[str, ...]  # sorted; empty: no DIGESTS file is written
    digest_format: str  # "linux" or "bsd"
    server: Server | None  # None: placeholder addresses in the DHCP configurations
    roots: tuple[RootMode, ...]  # empty: all that can be had
    base_url: str | None  # the tree on its web server, without a slash at the end
    ca_file: Path | None  # certificates that a streamed root's web server is checked against
    nfs: NfsRoot | None  # None: not known, so not offered unless asked for
    verify_root: bool | None  # None: where it can be done
    release: Release | None  # flat files for mirrors, beside the tree
    signing: Signing
    uki_entries: tuple[str, ...]  # by name, beside one for each kernel
    first: Loader | None  # what DHCP names first to UEFI clients; None: as the architecture has it
    secureboot: SecureBoot | None
    personal: PersonalSettings
    hosts: tuple[HostSettings, ...]  # what single machines get beside that
    keyring: Path | None = None  # OpenPGP public keys that an ISO must be signed by
    notes: tuple[str, ...] = ()  # what was concluded where nothing was said


def parse_settings(settings: Mapping[str, object]) -> Spec:
    """Check catalyst's settings (its configuration and the spec's keys together).

    Keys that are not this target's are not looked at here; `check_keys` does that, on the
    spec's own keys alone. Raises `SpecError` with every fault found.
    """
    reader = KeyReader(settings)
    for key in sorted(required_keys(settings) - {"target"}):
        reader.require(key)
    subarch = reader.word("subarch")
    rel_type = reader.path_part("rel_type")
    stamp = reader.path_part("version_stamp")
    storedir = Path(reader.word("storedir") or "/var/tmp/catalyst")
    builds = storedir / "builds"
    source = builds / reader.source(rel_type, subarch, stamp)
    folder = source.with_name(_PACKED.sub("", source.name))
    if folder.is_dir() or not source.exists():
        source = folder
    output = builds / rel_type / f"pxeboot-{subarch}-{stamp}"
    return _parse(reader, subarch, rel_type, stamp, source, output, notes=tuple(reader.notes))


def parse_folders(
    source: Path,
    output: Path,
    settings: Mapping[str, object],
    *,
    machine_of: Callable[[Path], str] | None = None,
) -> Spec:
    """Make a `Spec` for a livecd-stage2 folder or an ISO anywhere, and a target folder.

    What the settings leave out of subarch, rel_type and version_stamp is taken from the source's
    name and place; if the name does not have the subarch, from the machine that its kernel is for,
    which `machine_of` returns. Raises `SpecError` with every fault found.
    """
    source, output = source.absolute(), output.absolute()
    guess, notes = _guess(source, str(settings.get("subarch") or ""), machine_of)
    reader = KeyReader({**guess, **settings})
    reader.require("subarch")
    if ISO_KEY in reader:
        reader.fault(ISO_KEY, f"the source is {source}", "name one of them")
    if output.resolve().is_relative_to(source.resolve()):
        reader.fault("output", f"{output} lies in the source", "give a folder elsewhere")
    return _parse(
        reader,
        reader.word("subarch"),
        reader.path_part("rel_type"),
        reader.path_part("version_stamp"),
        source,
        output,
        kind=guess.get("kind", ""),
        notes=notes,
    )


def _guess(
    source: Path, subarch: str, machine_of: Callable[[Path], str] | None
) -> tuple[Mapping[str, str], tuple[str, ...]]:
    """Return what is known of the source, and a line for each fact that its name does not have."""
    guess = read_name(source, subarch, iso=is_iso(source))
    if "subarch" in guess or subarch or machine_of is None:
        return guess, ()
    machine = machine_of(source)
    for arch in all_arches():
        if machine in arch.kernels:
            note = f"subarch {arch.name}: by its kernel, as the name {source.name} does not have it"
            return {**guess, "subarch": arch.name}, (note,)
    return guess, ()


def _parse(
    reader: KeyReader,
    subarch: str,
    rel_type: str,
    stamp: str,
    source: Path,
    output: Path,
    *,
    kind: str = "",
    notes: tuple[str, ...] = (),
) -> Spec:
    arch = reader.take("subarch", lambda: find_arch(subarch)) if subarch else None
    kernels = tuple(reader.name("boot/kernel", name) for name in reader.words("boot/kernel"))
    digests = reader.take("digests", lambda: parse_digests(reader.settings.get("digests")))
    loaders = reader.enums("pxeboot/loaders", Loader)
    _check_loaders(reader, loaders, arch)
    link = reader.enums("pxeboot/link", LinkMode) or (LinkMode.AUTO,)
    if len(link) > 1:
        reader.fault("pxeboot/link", "takes one word", "choose one")
    title = " ".join(reader.words("pxeboot/title"))
    live_type, volume = (" ".join(reader.words(key)) for key in ("livecd/type", "livecd/volid"))
    if len(title) > MAX_TITLE:
        reader.fault(
            "pxeboot/title", f"has {len(title)} characters, {MAX_TITLE} at most", "shorten it"
        )
    serial_word = reader.word("pxeboot/serial")
    serial = reader.take("pxeboot/serial", lambda: parse_serial(serial_word))
    timeout = reader.number("pxeboot/timeout", lowest=-1, highest=MAX_TIMEOUT)
    bootargs = tuple(reader.words("livecd/bootargs")) if "livecd/bootargs" in reader else None
    templates = reader.folder("pxeboot/templates", "put all templates into one")
    loader_path = reader.folders("pxeboot/loader_path")
    server_words = reader.words("pxeboot/server")
    server = reader.take("pxeboot/server", lambda: parse_server(server_words))
    roots = _roots(reader)
    base_url_word = reader.word("pxeboot/base_url")
    base_url = reader.take("pxeboot/base_url", lambda: parse_base_url(base_url_word, server))
    ca_file = reader.file("pxeboot/ca_file")
    nfs_word = reader.word("pxeboot/nfs_root")
    nfs = reader.take("pxeboot/nfs_root", lambda: parse_nfs_root(nfs_word, server, roots))
    verify_root = reader.boolean("pxeboot/verify_root")
    release_word = reader.word("pxeboot/release")
    release = reader.take("pxeboot/release", lambda: parse_release(release_word))
    signing = _signing(reader)
    uki_entries = tuple(reader.words("pxeboot/uki_entries"))
    first = reader.word("pxeboot/first")
    if first not in ("", Loader.UKI):
        reader.fault("pxeboot/first", f"{first!r} is unknown", f"use {Loader.UKI}")
    secureboot = _secureboot(reader)
    personal = take_personal(reader)
    hosts = take_hosts(reader)
    keyring = reader.file("pxeboot/keyring")
    digest_format = reader.word("digest_format") or "linux"
    if digest_format not in ("linux", "bsd"):
        reader.fault("digest_format", f"{digest_format!r} is neither linux nor bsd", "use linux")
    extra_bootargs = tuple(reader.words("pxeboot/bootargs"))
    consoles = _consoles(reader, kernels)
    if reader.problems or arch is None or digests is None:
        raise SpecError(reader.problems)
    return Spec(
        arch=arch,
        subarch=subarch,
        rel_type=rel_type,
        version_stamp=stamp,
        source=source,
        output=output,
        kernels=kernels,
        bootargs=bootargs,
        extra_bootargs=extra_bootargs,
        consoles=consoles,
        title=title or make_title(subarch, stamp, kind=kind, live_type=live_type, volume=volume),
        timeout=timeout,
        loaders=loaders or arch.loaders,
        loader_path=loader_path,
        serial=serial,
        link=link[0],
        templates=templates,
        digests=digests,
        digest_format=digest_format,
        server=server,
        roots=roots,
        base_url=base_url,
        ca_file=ca_file,
        nfs=nfs,
        verify_root=verify_root,
        release=release,
        signing=signing,
        uki_entries=uki_entries,
        first=Loader.UKI if first else None,
        secureboot=secureboot,
        personal=personal,
        hosts=hosts,
        keyring=keyring,
        notes=notes,
    )


def check_keys(keys: Collection[str], *, required: Collection[str] | None = None) -> None:
    """Raise `SpecError` if a spec has keys that this target does not know, or lacks one.

    `required` is what it must have; by default all that a spec file must.
    """
    problems = unknown_key_problems(keys)
    problems += [
        PxebootError(f"{key}: this spec key is missing", hint="add it, see the README")
        for key in sorted(set(required_keys(keys) if required is None else required) - set(keys))
    ]
    if problems:
        raise SpecError(problems)


def _check_loaders(reader: KeyReader, loaders: Sequence[Loader], arch: Arch | None) -> None:
    able = (*arch.loaders, *arch.more_loaders) if arch else tuple(Loader)
    for loader in loaders:
        if arch and loader not in able:
            reader.fault(
                "pxeboot/loaders",
                f"{loader} starts no {arch.name} machines",
                "use " + ", ".join(able),
            )
    for key, name in loader_keys().items():
        if key in reader and name not in loaders:
            reader.fault(key, f"is for {name} only", f"add {name} to pxeboot/loaders")


def _roots(reader: KeyReader) -> tuple[RootMode, ...]:
    """Return the ways to the root that the spec names; none of them means: all that there are."""
    key, automatic = "pxeboot/root", "auto"
    words = reader.words(key)
    if automatic in words:
        if len(words) > 1:
            reader.fault(key, "auto must be the only word", "name the ways, or write auto")
        return ()
    return reader.enums(key, RootMode, more=(automatic,))


def _signing(reader: KeyReader) -> Signing:
    certificate, key = reader.file("pxeboot/sign_cert"), reader.file("pxeboot/sign_key")
    passphrase_file = reader.file("pxeboot/sign_passphrase_file")
    if bool(certificate) != bool(key):
        lacking = "pxeboot/sign_key" if certificate else "pxeboot/sign_cert"
        reader.fault(lacking, "is missing beside its other half", "name both or neither")
    verify = reader.word("pxeboot/sign_verify")
    if verify not in ("", "asked", "always"):
        reader.fault("pxeboot/sign_verify", f"{verify!r} is unknown", "use asked, always")
    elif verify and not certificate:
        reader.fault("pxeboot/sign_verify", "has no signatures to check", "set pxeboot/sign_cert")
    return Signing(
        gpg_key=" ".join(reader.words("pxeboot/gpg_key")) or None,
        certificate=certificate,
        key=key,
        passphrase_file=passphrase_file,
        always=verify == "always",
    )


def _secureboot_key(reader: KeyReader) -> Path | TokenKey | None:
    name = "pxeboot/secureboot_key"
    text = reader.word(name)
    if not text.startswith(SCHEME):
        return reader.file(name)
    try:
        return read_token_key(text)
    except ValueError as error:
        reader.fault(
            name,
            f"the URI {error}",
            "write pkcs11:token=NAME;object=NAME?module-path=FILE; the PIN is the first line of"
            " pxeboot/secureboot_passphrase_file",
        )
    return None


def _secureboot(reader: KeyReader) -> SecureBoot | None:
    certificate, key = reader.file("pxeboot/secureboot_cert"), _secureboot_key(reader)
    if bool(certificate) != bool(key):
        lacking = "pxeboot/secureboot_key" if certificate else "pxeboot/secureboot_cert"
        reader.fault(lacking, "is missing beside its other half", "name both or neither")
    passphrase_file = reader.file("pxeboot/secureboot_passphrase_file")
    return SecureBoot(certificate, key, passphrase_file) if certificate and key else None


def _consoles(reader: KeyReader, kernels: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    consoles = {}
    for kernel in kernels:
        key = f"boot/kernel/{kernel}/console"
        if found := tuple(reader.words(key)):
            consoles[kernel] = found
    return consoles
