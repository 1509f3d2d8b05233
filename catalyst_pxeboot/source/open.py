"""Open a live image, whichever kind it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catalyst_pxeboot.formats.iso import is_iso
from catalyst_pxeboot.source.folder import FolderImage
from catalyst_pxeboot.source.iso import open_iso_image
from catalyst_pxeboot.source.live import LiveImage
from catalyst_pxeboot.util.files import FileStamp


@contextmanager
def open_image(path: Path, *, checked: FileStamp | None = None) -> Iterator[LiveImage]:
    """Open the live image at `path`, a livecd-stage2 folder or an ISO, for the context's length.

    What it says of its files stays true after that; they can be opened only within the context.
    """
    if not is_iso(path):
        yield FolderImage(path)
        return
    with open_iso_image(path, checked=checked) as image:
        yield image
