"""Say what a query file may require of the server before a query is sent to it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from poller.declared.part import Part
from poller.requirements import RequiredRole, Requirements
from poller.words import shown

_VERSION_RANGE = re.compile(r"(?:>=|>|<=|<|==)\s*\d+(?:\.\d+)?(?:\s*,\s*(?:>=|>|<=|<|==)\s*\d+(?:\.\d+)?)*")


class DeclaredRequirements(Part):
    """What must hold on the server before a query is sent; where it does not, the query is skipped."""

    columns: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Relations and the columns they must have (an empty list: the relation alone).",
        examples=[{"attachments": ["size_bytes"]}],
    )
    role: RequiredRole = Field(
        default="any", description="Whether the server is a standby or a primary.", examples=["standby"]
    )
    server_version: str | None = Field(
        default=None,
        description="Range of the server's version, its parts joined by commas.",
        examples=[">=14", ">=14,<18"],
        json_schema_extra={"type": ["string", "null"], "pattern": rf"^\s*(?:{_VERSION_RANGE.pattern})\s*$"},
    )
    extensions: tuple[str, ...] = Field(
        default=(), description="Extensions that must be installed.", examples=[["pg_stat_statements"]]
    )
    member_of: tuple[str, ...] = Field(
        default=(),
        description="Roles whose privileges the poller's role must have.",
        examples=[["pg_read_all_stats"]],
    )

    @field_validator("server_version")
    @classmethod
    def _version(cls, version: str | None) -> str | None:
        if version is not None and not _VERSION_RANGE.fullmatch(version.strip()):
            raise ValueError(f"{shown(version)} is not a version range; write one like >=14 or >=14,<18")
        return version

    def definition(self) -> Requirements:
        return Requirements(**self.parts())
