"""Say what must hold on the server before a query is sent to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

RequiredRole = Literal["standby", "primary", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What must hold on the server before a query is sent; where it does not, the query is skipped."""

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Relations and the columns they must have; none: the relation alone."""
    role: RequiredRole = "any"
    server_version: str | None = None
    """`>=14` or `>=14,<18`."""
    extensions: tuple[str, ...] = ()
    member_of: tuple[str, ...] = ()
    """Roles whose privileges ours must have."""
