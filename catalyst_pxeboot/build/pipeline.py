"""Build pipeline: spec → source → plan → render → stage → manifest → publish.

catalyst's target and the command line both run it. Data flows in this direction only. What takes
longest, the digests of the live root, begins first and goes on beside all the rest, even while
Python loads the modules for that: so `build/tree.py` is imported late.
"""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from catalyst_pxeboot.build.work import Work
from catalyst_pxeboot.formats.iso import is_iso
from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.formats.verity import HashTreeBuilder
from catalyst_pxeboot.model.settings import LinkMode, may_stream
from catalyst_pxeboot.source.check import check_iso
from catalyst_pxeboot.source.live import LiveImage, read_live_root, root_file
from catalyst_pxeboot.source.open import open_image
from catalyst_pxeboot.spec.parse import Spec, parse_folders
from catalyst_pxeboot.tree.link import cannot_link_iso
from catalyst_pxeboot.tree.publish import Publication
from catalyst_pxeboot.tree.stage import staging_beside
from catalyst_pxeboot.util.checksum import Progress
from catalyst_pxeboot.util.errors import SourceError
from catalyst_pxeboot.util.sums import algorithms

if TYPE_CHECKING:
    from catalyst_pxeboot.build.tree import Built
    from catalyst_pxeboot.plan.tree import Plan

Report = Callable[[str], None]


def parse_image(path: Path, output: Path, settings: Mapping[str, object]) -> Spec:
    """Make a `Spec` as `parse_folders`; the subarch may be that of the image's kernel."""

    def machine_of(image: Path) -> str:
        from catalyst_pxeboot.source.image import read_machine

        return read_machine(image)

    return parse_folders(path, output, settings, machine_of=machine_of)


def make_plan(
    spec: Spec, *, report: Report | None = None, progress: Progress | None = None
) -> Plan:
    """Read the source, look for loaders and plan the tree, without writing anything."""
    from catalyst_pxeboot.build.tree import plan_opened

    with _open_source(spec, report or (lambda _line: None), progress) as (image, squashfs):
        return plan_opened(spec, image, squashfs)


@contextmanager
def _open_source(
    spec: Spec, report: Report, progress: Progress | None
) -> Iterator[tuple[LiveImage, Squashfs]]:
    """Open the live image, an ISO after it was checked, and read the head of its live root."""
    checked = None
    for note in spec.notes:
        report(note)
    if is_iso(spec.source):
        if spec.link is LinkMode.HARDLINK:
            raise cannot_link_iso(spec.source)
        checked = check_iso(spec.source, keyring=spec.keyring, report=report, progress=progress)
    elif spec.keyring:
        raise SourceError(
            f"pxeboot/keyring: {spec.source} is not an ISO, and nothing else is signed",
            hint="leave it out",
        )
    report(f"Reading {spec.source}")
    with open_image(spec.source, checked=checked) as image:
        yield image, read_live_root(image)


def build(
    spec: Spec,
    *,
    report: Report,
    progress: Progress | None = None,
) -> Built:
    """Build and publish the netboot tree of `spec`, reporting each step in a line.

    `progress` is called some ten times a second with what is read and how many bytes of how many.
    """
    begun = clock.monotonic()
    digests = algorithms(spec.digests)
    publication = Publication(spec.output)
    with ExitStack() as stack:
        image, squashfs = stack.enter_context(_open_source(spec, report, progress))
        staging = stack.enter_context(publication)
        beside = stack.enter_context(ThreadPoolExecutor())
        hash_tree = HashTreeBuilder()
        staged_root = stack.enter_context(
            staging_beside(
                root_file(image, squashfs),
                staging,
                link=spec.link,
                algorithms=digests,
                progress=progress,
                also=[hash_tree] if may_stream(spec.roots) else [],
            )
        )
        from catalyst_pxeboot.build.tree import Built, stage_tree

        work = Work(stack, staging, beside, staged_root, hash_tree)
        plan, files, flat = stage_tree(spec, image, squashfs, work, report)
        publication.commit()
        if flat:
            flat.commit()
    return Built.of(plan, files, seconds=clock.monotonic() - begun)
