"""Schema of the key `requires` of a query."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from poller.config.fields import Part
from poller.model.query import RequiredRole, Requirements
from poller.model.text import quote

_VERSION_RANGE = re.compile(r"(?:>=|>|<=|<|==)\s*\d+(?:\.\d+)?(?:\s*,\s*(?:>=|>|<=|<|==)\s*\d+(?:\.\d+)?)*")


class DeclaredRequirements(Part):
    """Conditions that the server must meet; otherwise the query is skipped."""

    columns: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Required relations and their columns (an empty list: only the relation).",
        examples=[{"attachments": ["size_bytes"]}],
    )
    role: RequiredRole = Field(
        default="any", description="Whether the server must be a standby or a primary.", examples=["standby"]
    )
    server_version: str | None = Field(
        default=None,
        description="Range of the server's version; commas join its parts.",
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
            raise ValueError(f"{quote(version)} is not a version range; write one like >=14 or >=14,<18")
        return version

    def definition(self) -> Requirements:
        return Requirements(**self.parts())
