"""Make the initrds that stream a root."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.formats.cpio import MEMBER_FILE, MEMBER_FOLDER, MEMBER_PROGRAM
from catalyst_pxeboot.formats.verity import HashTree
from catalyst_pxeboot.model.files import (
    CERTIFICATES,
    DRIVERS,
    ROOT_HASH,
    STREAM_FOLDER,
    AddonFile,
    MadeFile,
    Role,
    TreeFile,
    hash_tree_path,
)
from catalyst_pxeboot.model.settings import may_stream
from catalyst_pxeboot.plan.tree import Plan
from catalyst_pxeboot.render.stream import render_stream
from catalyst_pxeboot.source.image import Source
from catalyst_pxeboot.source.live import root_file
from catalyst_pxeboot.spec.parse import Spec
from catalyst_pxeboot.stream.tools import NOT_SOUGHT, NoTools, Tools, find_missing, find_tools
from catalyst_pxeboot.tree.stage import stage_archive, stage_made_files
from catalyst_pxeboot.util.errors import PxebootError
from catalyst_pxeboot.util.files import read_regular
from catalyst_pxeboot.util.tempdir import scratch_folder

if TYPE_CHECKING:
    from catalyst_pxeboot.stream.pack import Packed

_MAX_CERTIFICATES = 1 << 20


def find_no_tools(spec: Spec) -> NoTools | None:
    """Return why no root can be streamed, if that is known before the live image is read."""
    if not may_stream(spec.roots):
        return NOT_SOUGHT
    missing = [find_missing(machine, spec.loader_path) for machine in spec.arch.kernels]
    return missing[0] if all(missing) else None


def find_stream_tools(source: Source, search: Sequence[Path]) -> Tools | NoTools:
    """Look for the programs that stream a root, unless no kernel of the image could use them."""
    kernels = [kernel for kernel in source.kernels if kernel.modules]
    if not kernels:
        return NOT_SOUGHT
    generators = {kernel.initramfs.generator for kernel in kernels}
    return find_tools(kernels[0].kernel.machine, search, generators=generators)


def read_certificates(file: Path) -> bytes:
    """Read certificates of authorities, in PEM. Raises `PxebootError` if there is none."""
    import ssl

    try:
        content = read_regular(file, limit=_MAX_CERTIFICATES)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode())
    except (OSError, ValueError) as error:
        raise PxebootError(
            f"pxeboot/ca_file: {file} cannot be read as certificates: {error}",
            hint="name a file of certificates in PEM, as /etc/ssl/certs/ca-certificates.crt",
        ) from error
    return content


def stage_hash_tree(
    plan: Plan,
    staging: Path,
    hashed: Future[HashTree],
    *,
    algorithms: Sequence[str],
    time: int,
) -> list[TreeFile]:
    """Write the hash tree of a streamed root, `hashed`, beside it."""
    path = plan.source.squashfs.path.name
    content, origin = hashed.result().content, f"sha256 of {path}"
    file = MadeFile(hash_tree_path(path), content, Role.HASH_TREE, origin)
    return stage_made_files([file], staging, algorithms=algorithms, time=time)


def stage_streams(
    plan: Plan,
    staging: Path,
    hashed: Future[HashTree],
    *,
    algorithms: Sequence[str],
    time: int,
) -> list[TreeFile]:
    """Make and write the plan's initrds that stream a root, whose hash tree will be `hashed`."""
    from catalyst_pxeboot.stream.pack import pack_stream

    tools = plan.tools
    if isinstance(tools, NoTools):
        raise TypeError("planned without the programs")
    image = root_file(plan.source.image, plan.source.squashfs)
    offset = image.extent.offset if image.extent else 0
    staged = []
    with scratch_folder() as scratch:
        packed: dict[str, Packed] = {}
        for stream in plan.streams:
            if stream.modules not in packed:
                folder = scratch / str(len(packed))
                folder.mkdir()
                packed[stream.modules] = pack_stream(
                    tools,
                    image=image.origin,
                    offset=offset,
                    modules=stream.modules,
                    compression=stream.compression,
                    scratch=folder,
                    time=time,
                )
            members = _members(stream, packed[stream.modules], hashed, tools, plan)
            made = MadeFile(stream.path, b"", Role.STREAM, f"{stream.modules}, nbdkit")
            staged.append(stage_archive(made, members, staging, algorithms=algorithms, time=time))
    return staged


def _members(
    stream: AddonFile, packed: Packed, hashed: Future[HashTree], tools: Tools, plan: Plan
) -> Iterator[tuple[str, int, bytes | Path]]:
    yield STREAM_FOLDER, MEMBER_FOLDER, b""
    yield f"{STREAM_FOLDER}/tools.squashfs", MEMBER_FILE, packed.tools
    yield DRIVERS, MEMBER_FILE, packed.drivers
    if plan.spec.ca_file:
        yield CERTIFICATES, MEMBER_FILE, read_certificates(plan.spec.ca_file)
    scripts = render_stream(
        generator=stream.generator,
        hooks=stream.hooks,
        interpreter=tools.interpreter,
        templates=plan.spec.templates,
    )
    for path, content in scripts:
        yield path, MEMBER_PROGRAM, content
    # The last: all else is written while it is made.
    yield ROOT_HASH, MEMBER_FILE, hashed.result().line
