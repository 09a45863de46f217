"""The schema of a targets file: its defaults, and a target."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.config import JsonDict
from pydantic.json_schema import WithJsonSchema

from poller.config.attributes import AS_ATTRIBUTE, AttributeName, FixedValue, same_labels
from poller.config.fields import (
    AS_DURATION,
    NOT_A_BOOLEAN,
    Duration,
    MisfitError,
    Part,
    raise_all,
    whole,
)
from poller.config.settings import SETTINGS
from poller.model.duration import format_duration, parse_duration
from poller.model.path import PathKey
from poller.model.secrets import URL, Secret, foreign_parameters, mask_conninfo
from poller.model.target import Databases, RequireStandby, Target
from poller.model.text import near, value_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""Name of a target, and a tag."""
_A_NAME = "write letters, digits, _, - and ., starting with a letter or digit, at most 63"
_RESERVED = ("service.name", "service.instance.id", "service.version", "db.system.name", "db.namespace")
"""Resource attributes that the poller sets."""
OF_SETTINGS = (
    "connect_timeout", "lock_timeout", "require_standby", "max_replay_lag", "max_active_backends", "strict",
)  # fmt: skip
"""Keys whose default is the setting of the same name."""


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"is not a name; {_A_NAME}")
    return name


def _checked_path(text: str) -> str:
    if "://" in text:
        raise ValueError("is not the path of a file; write the secret to a file, and the file's path here")
    return text


def _truth(value: object) -> object:
    """Return a boolean of YAML as the setting's text."""
    return value_text(value) if isinstance(value, bool) else value


DeclaredName = Annotated[
    str, AfterValidator(_checked_name), Field(json_schema_extra={"pattern": whole(NAME)})
]
FilePath = Annotated[str, AfterValidator(_checked_path), Field(min_length=1, max_length=4096)]
Pattern = Annotated[str, Field(min_length=1, max_length=255)]
Command = Annotated[str, Field(min_length=1)]
Standby = Annotated[
    RequireStandby,
    BeforeValidator(_truth),
    WithJsonSchema({"enum": ["warn", True, False, "true", "false"]}),
]
_LAG = SETTINGS["max_replay_lag"].limits
# The bounds come first, because pydantic exports no bounds of a field `Duration | None`.
MaxReplayLag = Annotated[float, Ge(_LAG["ge"]), Le(_LAG["le"]), BeforeValidator(parse_duration), AS_DURATION]
FixedAttributes = Mapping[AttributeName, FixedValue]


def _like_setting(name: str, example: object) -> Any:
    """Return the field whose meaning, bounds and default are those of a setting."""
    setting = SETTINGS[name]
    default = setting.format(setting.default)
    return Field(
        default=setting.default,
        description=f"{setting.meaning} Default: {setting.variables[0]}{f' ({default})' if default else ''}.",
        examples=[example],
        **({} if name == "max_replay_lag" else setting.limits),
    )


class DeclaredIdentity(Part):
    """Keys that each target has for itself."""

    name: DeclaredName = Field(
        description="Name of the target, unique in all files: the service.instance.id of its series.",
        examples=["eu-1"],
    )
    url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Database, as a libpq URI or keyword string without a secret.",
        examples=["postgresql://poller@replica:5432/app"],
    )
    url_file: FilePath | None = Field(
        default=None,
        description="File that contains the connection string, read at every connect; relative to the "
        "targets file.",
        examples=["/run/secrets/eu-1/url"],
    )
    tags: tuple[DeclaredName, ...] = Field(
        default=(),
        description="Tags with which queries select targets.",
        examples=[["messaging", "eu"]],
    )

    @field_validator("url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        if url is not None and (problem := _url_problem(url.strip())):
            raise ValueError(problem)
        return url


_TWO_PASSWORDS: JsonDict = {
    "required": ["password_file", "password_command"],
    "properties": {"password_file": {"type": "string"}, "password_command": {"type": "string"}},
}


class DeclaredDefaults(Part):
    """Keys of every target of a file; a target's own keys override them, attribute by attribute."""

    model_config = ConfigDict(json_schema_extra={"not": _TWO_PASSWORDS})

    connections: Annotated[int, NOT_A_BOOLEAN] = Field(
        default=1,
        description="Maximum number of connections of this poller to the target's server at the same time.",
        examples=[2],
        ge=1,
        le=64,
    )
    password_file: FilePath | None = Field(
        default=None,
        description="File that contains the password, read at every connect; relative to the targets file.",
        examples=["/run/secrets/eu-1/password"],
    )
    password_command: Command | None = Field(
        default=None,
        description="Command that prints the password, run before every connect, without a shell.",
        examples=["cat /run/secrets/eu-1/password"],
    )
    resource: FixedAttributes = Field(
        default_factory=dict,
        description="Resource attributes, in addition to those of the poller.",
        examples=[{"team": "chat"}],
        json_schema_extra={
            "propertyNames": {"pattern": AS_ATTRIBUTE, "not": {"enum": list(_RESERVED)}},
        },
    )
    attributes: FixedAttributes = Field(
        default_factory=dict,
        description="Attributes of every data point of the target.",
        examples=[{"region": "eu"}],
        json_schema_extra={"propertyNames": {"pattern": AS_ATTRIBUTE}},
    )
    connect_timeout: Duration = _like_setting("connect_timeout", "5s")
    lock_timeout: Duration = _like_setting("lock_timeout", "1s")
    require_standby: Standby = _like_setting("require_standby", True)
    max_replay_lag: MaxReplayLag | None = _like_setting("max_replay_lag", "60s")
    max_active_backends: Annotated[int | None, NOT_A_BOOLEAN] = _like_setting("max_active_backends", 50)
    strict: bool = _like_setting("strict", True)

    @field_validator("resource", "attributes")
    @classmethod
    def _attributes(cls, attributes: FixedAttributes, info: ValidationInfo) -> FixedAttributes:
        reserved = _RESERVED if info.field_name == "resource" else ()
        raise_all(
            [
                *(
                    ValueError(f"{name} is set by the poller; write another name")
                    for name in attributes
                    if name in reserved
                ),
                *same_labels([*reserved, *attributes]),
            ]
        )
        return attributes


class DeclaredDatabases(Part):
    """Databases of a server that become targets."""

    include: tuple[Pattern, ...] = Field(
        default=("*",),
        description="Patterns of names (`*`, `?` and `[...]`).",
        examples=[["t_*"]],
        min_length=1,
    )
    exclude: tuple[Pattern, ...] = Field(
        default=(),
        description="Patterns of names; they override `include`.",
        examples=[["t_test_*"]],
    )
    limit: Annotated[int, NOT_A_BOOLEAN] = Field(
        default=500,
        description="Maximum number of databases: the first by name.",
        examples=[500],
        ge=1,
        le=10_000,
    )
    refresh: Duration = Field(
        default=600.0,
        description="Time between two looks at the server's list of databases, 10s to 24h.",
        examples=["10m"],
        ge=10,
        le=86400,
    )
    forget: Duration = Field(
        default=3600.0,
        description="Time after which the data of a database that is missing from the list is deleted, "
        "at least `refresh`.",
        examples=["1h"],
        le=30 * 86400,
        ge=10,
        validate_default=True,
    )

    @field_validator("forget")
    @classmethod
    def _forget(cls, forget: float, info: ValidationInfo) -> float:
        refresh = info.data.get("refresh")
        if refresh is not None and forget < refresh:
            raise MisfitError(
                f"forget {format_duration(forget)} is shorter than refresh {format_duration(refresh)}; "
                f"write forget: {format_duration(refresh)} or longer",
                "forget",
                "refresh",
            )
        return forget

    def definition(self) -> Databases:
        return Databases(**self.parts())


class DeclaredTarget(DeclaredDefaults, DeclaredIdentity):  # whose fields come first
    """One database that is polled, or one server whose databases are."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [key], "properties": {key: {"type": "string"}}} for key in ("url", "url_file")
            ],
            "not": _TWO_PASSWORDS,
        }
    )

    databases: DeclaredDatabases | None = Field(
        default=None,
        description="If set, each database of the server becomes a target `name/database`.",
        examples=[{"include": ["t_*"]}],
    )

    def definition(self) -> Target:
        parts = self.parts()
        for key in ("url", "password_command"):
            parts[key] = None if parts[key] is None else Secret(parts[key])
        for key in ("url_file", "password_file"):
            parts[key] = None if parts[key] is None else Path(parts[key])
        return Target(**parts)


_HOST_AND_PORT = re.compile(r"(?:[^:\[\]]*|\[[^\]]*\])(?::[0-9]*)?")


def _url_problem(url: str) -> str | None:
    """Return why a connection string cannot be in the file, without repeating any part of it."""
    if not URL.match(url) and "=" not in url:
        return "is not a connection string; write postgresql://user@host:5432/database"
    if URL.match(url) and not url.startswith(("postgresql://", "postgres://")):
        return "is the address of another system; begin it with postgresql://"
    if names := foreign_parameters(url):
        return f"has parameters that libpq does not know: {', '.join(names)}; remove them"
    hosts = re.split(r"[/?#]", url.partition("://")[2])[0].rpartition("@")[2].split(",")
    if URL.match(url) and not all(map(_HOST_AND_PORT.fullmatch, hosts)):
        return "has a port that is not a number; write postgresql://user@host:5432/database"
    if mask_conninfo(url) != url:
        return (
            "contains a password, options, or a part that libpq does not know and that may be a password; "
            "write the connection string to a file and its path to url_file, or use password_file"
        )
    return None


def contradictions(data: Mapping[str, Any]) -> Iterator[tuple[tuple[PathKey, ...], str]]:
    """Return the problems between the keys of a target as written, each with the path of a key."""
    has = {key for key, value in data.items() if value is not None}
    misspelt = any(near(key, ["url", "url_file"]) for key in data if key not in DeclaredTarget.model_fields)
    if {"url", "url_file"} <= has:
        yield ("url_file",), "cannot be combined with url; remove one of them"
    elif not {"url", "url_file"} & has and not misspelt:
        yield (), "has no connection string; write `url: postgresql://user@host:5432/database`, or url_file"
    if "databases" in data and data["databases"] is None:
        example = '{include: ["t_*"]}'
        yield ("databases",), f"is empty; write {{}} for every database of the server, or {example}"
    yield from password_contradiction(data)


def password_contradiction(data: Mapping[str, Any]) -> Iterator[tuple[tuple[PathKey, ...], str]]:
    """Return the problem of two sources of the password."""
    if all(data.get(key) is not None for key in ("password_file", "password_command")):
        yield ("password_command",), "cannot be combined with password_file; remove one of them"
