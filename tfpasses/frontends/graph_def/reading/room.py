"""A bound on what a GraphDef may claim without holding it: a few bytes of a file can speak of terabytes."""

from __future__ import annotations

import attrs

__all__ = ["Room"]


@attrs.define
class Room:
    """The memory that one graph may still take beyond what its file holds: for elements that repeat, for outputs that are only counted."""

    left: int = 1 << 29
    """Bytes."""

    def take(self, size: int) -> bool:
        """Whether so many bytes are left; they are taken."""
        self.left -= size
        return self.left >= 0
