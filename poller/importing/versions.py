"""Say the version of a server as `requires:` does."""

from __future__ import annotations

import re

_TERM = re.compile(r"(>=|<=|>|<|==|=|)\s*v?(\d+)(?:\.(\d+))?(?:\.(\d+))?")
_OLDEST = 10
"""Before that, a version's first two numbers were its major; none of those is polled."""


def between(least: int | None, below: int | None) -> str | None:
    """The range from `least` to before `below`, both as `server_version_num` (140005 is 14.5)."""
    parts = [f">={_spoken(least)}"] if least and least // 10000 >= _OLDEST else []
    parts += [f"<{_spoken(max(below, _OLDEST * 10000))}"] if below else []
    return ",".join(parts) or None


def from_semver(text: str) -> str | None:
    """A range of semantic versions, as in `>=9.6.0 <15.0.0`; None where `requires:` cannot say it."""
    parts: list[str] = []
    for word in re.sub(r"([<>=])\s+", r"\1", text).split():
        match = _TERM.fullmatch(word)
        if match is None:
            return None
        sign, major, minor = match[1] or "==", int(match[2]), int(match[3] or 0)
        sign = "==" if sign == "=" else sign
        if major < _OLDEST:
            parts += [] if sign.startswith(">") else [f"<{_OLDEST}"]
        elif minor == 0 and sign in (">=", "<"):
            parts.append(f"{sign}{major}")
        else:
            parts.append(f"{sign}{major}.{minor}")
    return ",".join(parts)


def _spoken(number: int) -> str:
    major, minor = divmod(number, 10000)
    return f"{major}.{minor}" if minor else str(major)
