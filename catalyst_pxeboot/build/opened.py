"""A live image that a build has open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalyst_pxeboot.formats.squashfs import Squashfs
from catalyst_pxeboot.source.live import LiveImage

if TYPE_CHECKING:
    from catalyst_pxeboot.source.image import Source


@dataclass(frozen=True, slots=True)
class Opened:
    """A live image of which its root is known, and all of it if it was read already."""

    image: LiveImage
    squashfs: Squashfs
    source: Source | None = None
