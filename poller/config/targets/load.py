"""Loader that reads targets files and folders of them into validated targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from poller.config.error_messages import sentences
from poller.config.settings import Settings
from poller.config.targets.schema import (
    NAME,
    OF_SETTINGS,
    DeclaredDefaults,
    DeclaredTarget,
    contradictions,
    password_contradiction,
)
from poller.config.targets.targets_file import TargetsFile
from poller.config.yaml_file import in_order
from poller.model.diagnostics import Diagnostic
from poller.model.errors import ConfigError
from poller.model.path import PathKey
from poller.model.target import Target

MAX_TARGETS = 10_000


@dataclass(frozen=True, slots=True)
class LocatedTarget:
    """A target and its location in its file."""

    target: Target
    file: TargetsFile
    path: tuple[PathKey, ...]

    @property
    def where(self) -> str:
        """The file and the line, for messages."""
        return self.file.where(self.path)


def load_targets(source: Path, settings: Settings) -> tuple[Target, ...]:
    """Load every target of `source`: a file, or the *.yaml and *.yml files of a folder, without subfolders.

    Keys that neither a target nor the defaults of its file declare come from `settings`. Paths in a file are
    relative to its folder. Files that the targets name are not read.

    Raises ConfigError with every problem in every file, in the order of files and lines, each at
    `file:line: path.to.key`. No message contains a secret.
    """
    return tuple(located.target for located in load_located(source, settings))


def load_located(source: Path, settings: Settings) -> list[LocatedTarget]:
    """Load the targets as `load_targets` does, with their locations."""
    files = TargetsFile.open_all([source])
    targets, problems = validate_targets(files, settings)
    if problems:
        raise ConfigError(in_order(problems, files))
    return targets


def validate_targets(
    files: Sequence[TargetsFile], settings: Settings
) -> tuple[list[LocatedTarget], list[Diagnostic]]:
    """Return the targets of `files` that are valid alone, and all problems in and between the targets."""
    of_settings = {name: getattr(settings, name) for name in OF_SETTINGS}
    problems: list[Diagnostic] = []
    targets: list[LocatedTarget] = []
    for file in files:
        problems += file.file_problems()
        defaults, default_problems = _defaults(file)
        problems += default_problems
        for at, data in file.items():
            try:
                declared = DeclaredTarget.model_validate(of_settings | _filled(data, defaults))
            except ValidationError as error:
                messages = sentences(error, DeclaredTarget, data)
            else:
                messages = []
                targets.append(LocatedTarget(_resolved(declared.definition(), file.path.parent), file, at))
            messages += contradictions(data)
            problems += [file.problem((*at, *path), message) for path, message in messages]
    problems += _find_duplicates(files)
    return targets, problems


def _defaults(file: TargetsFile) -> tuple[dict[str, Any], list[Diagnostic]]:
    """Return the file's defaults, without the invalid ones, and their problems."""
    data = file.defaults()
    messages: list[tuple[tuple[PathKey, ...], str]] = [*password_contradiction(data)]
    try:
        DeclaredDefaults.model_validate(data)
    except ValidationError as error:
        messages += sentences(error, DeclaredDefaults, data)
    invalid = {path[0] for path, _ in messages}
    valid = {key: value for key, value in data.items() if key not in invalid}
    return valid, [file.problem(("defaults", *path), message) for path, message in messages]


def _filled(data: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the target's keys; missing ones come from the defaults."""
    own_password = data.get("password_file") is not None or data.get("password_command") is not None
    inherited = {
        key: value
        for key, value in defaults.items()
        if not (own_password and key in ("password_file", "password_command"))
    }
    filled = {**inherited, **data}
    for key in ("resource", "attributes"):
        if isinstance(data.get(key), dict) and isinstance(defaults.get(key), dict):
            filled[key] = {**defaults[key], **data[key]}
    return filled


def _resolved(target: Target, folder: Path) -> Target:
    return replace(
        target,
        url_file=target.url_file and folder / target.url_file,
        password_file=target.password_file and folder / target.password_file,
    )


def _find_duplicates(files: Sequence[TargetsFile]) -> Iterator[Diagnostic]:
    """Return names that are used twice, in valid targets or not, and the first target beyond the maximum."""
    names: dict[str, str] = {}
    number = 0
    for file in files:
        for at, data in file.items():
            number += 1
            if number == MAX_TARGETS + 1:
                yield file.problem(at, f"is target {number:,}; write at most {MAX_TARGETS:,}")
            name = str(data.get("name"))
            if NAME.fullmatch(name) and data.get("name") is not None:
                here = file.where((*at, "name"))
                first = names.setdefault(name, here)
                if first is not here:
                    yield file.problem((*at, "name"), f"is also the name at {first}; rename one")
