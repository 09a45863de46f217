"""Declaration of a setting: its type, default, variables, limits and texts."""

# Without postponed annotations: `declarations` needs the types themselves.
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Annotated, Any, Literal, get_args, get_origin

from poller.model.duration import format_duration
from poller.model.secrets import Secret
from poller.model.text import value_text

Seconds = Annotated[float, "DURATION"]
"""Seconds, written as `30s`, `5m` or `1h30m`."""
Share = Annotated[float, "SHARE"]
"""Fraction of 1, written as `10%` or `0.1`."""
Size = Annotated[int, "SIZE"]
"""Bytes, written as `16MiB`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Declaration of one setting."""

    name: str
    meaning: str
    type: Any
    """Type of the value, without None."""
    default: Any
    """None if the setting is unset by default, "" if the host provides the default."""
    example: str
    variables: tuple[str, ...]
    """In the order of precedence: the poller's own, the server's (`OBSCURA_*`), OpenTelemetry's."""
    limits: Mapping[str, Any]
    """Constraints of `pydantic.Field`: `ge`, `le`, `gt`, `min_length`, `pattern`."""
    sensitive: bool
    """Whether a part of the value may be a secret, so that it is printed only after masking."""

    @property
    def option(self) -> str:
        """The command-line option: `--max-series`."""
        return "--" + self.name.replace("_", "-")

    @property
    def secret(self) -> bool:
        """Whether the value is a secret, which may come from the file of `<variable>_FILE`."""
        return self.type is Secret

    @property
    def choices(self) -> tuple[str, ...]:
        """All accepted values, if there is a fixed list of them."""
        if self.type is bool:
            return ("true", "false")
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def format(self, value: Any) -> str:
        """Format a value as users write it; empty for None."""
        if value is None:
            return ""
        if self.type is Seconds:
            return format_duration(value)
        if self.type is Share:
            return f"{value * 100:g}%"
        if self.type is Size:
            return _format_size(value)
        return value_text(value)


def setting(
    meaning: str,
    default: Any = None,
    *,
    example: str,
    others: tuple[str, ...] = (),
    bounds: tuple[float, float] | None = None,
    show: bool = True,
    **limits: Any,
) -> Any:
    """Declare a setting; `others` are its variables after POLLER_<name>, without `show` repr() omits it."""
    if bounds:
        limits |= {"ge": bounds[0], "le": bounds[1]}
    source = {"default_factory": default} if callable(default) else {"default": default}
    metadata = {"meaning": meaning, "example": example, "others": others, "limits": limits}
    return field(**source, repr=show, metadata=metadata)


def declarations(settings: type) -> dict[str, Setting]:
    """Return the declarations of a dataclass whose fields use `setting`, by name, in their order."""
    declared = {}
    for item in fields(settings):
        if item.metadata:
            members = [member for member in get_args(item.type) if member is not type(None)]
            optional = len(members) < len(get_args(item.type))
            declared[item.name] = Setting(
                name=item.name,
                meaning=item.metadata["meaning"],
                type=members[0] if optional else item.type,
                default=item.default if item.default_factory is MISSING else "",
                example=item.metadata["example"],
                variables=(f"POLLER_{item.name.upper()}", *item.metadata["others"]),
                limits=item.metadata["limits"],
                sensitive=Secret in members or not item.repr,
            )
    return declared


def _format_size(count: int) -> str:
    """Format bytes in the largest unit that fits: 268435456 -> `256MiB`."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    power = min((max(count, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{count / 1024**power:.1f}".removesuffix(".0") + units[power]
