"""Reader of the files with the exact versions that the image and CI install."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.bed.process import ROOT

REQUIREMENTS = ROOT / "deploy" / "image" / "requirements.txt"
KUBERNETES_REQUIREMENTS = ROOT / "deploy" / "image" / "requirements-kubernetes.txt"
BUILD_REQUIREMENTS = ROOT / "deploy" / "image" / "build-requirements.txt"
CONSTRAINTS = ROOT / ".ci" / "constraints.txt"
LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "extra": ""}


def pins(file: Path) -> dict[str, Version]:
    """Return the version of every distribution that `file` pins for Linux, by canonical name."""
    versions: dict[str, Version] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#", "-")):
            requirement = Requirement(line.removesuffix("\\").strip())
            (pinned,) = requirement.specifier
            assert pinned.operator == "==", line
            if requirement.marker is None or requirement.marker.evaluate(LINUX):
                versions[canonicalize_name(requirement.name)] = Version(pinned.version)
    return versions


def wanted(*extras: str) -> Iterator[Requirement]:
    """Yield the requirements of pyproject.toml with `extras`, including extras that these name."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    for requirement in (Requirement(text) for texts in lists for text in texts):
        if requirement.name == project["name"]:
            yield from wanted(*requirement.extras)
        else:
            yield requirement


def unmet(requirements: Iterable[Requirement], pinned: dict[str, Version]) -> list[str]:
    """Return the requirements that apply on Linux and that no pin meets."""
    return sorted(
        {
            re.sub(r"\s*;.*", "", str(requirement))
            for requirement in requirements
            if (requirement.marker is None or requirement.marker.evaluate(LINUX))
            and (
                (version := pinned.get(canonicalize_name(requirement.name))) is None
                or not requirement.specifier.contains(version, prereleases=True)
            )
        }
    )
