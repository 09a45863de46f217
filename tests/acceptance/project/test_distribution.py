"""The wheel, the sdist and the list of packages are complete, and the wheel works without a checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.utils import canonicalize_name
from readme_renderer.markdown import render

from tests.bed.messaging import MessagingServer
from tests.bed.pins import REQUIREMENTS, pins
from tests.bed.process import ROOT
from tests.bed.repository import files_of_git

REPOSITORY = "https://repository.example/owner/poller"


class Distribution(NamedTuple):
    """The files that `.ci/dist` writes."""

    wheel: Path
    sdist: Path
    sbom: Path


def build(target: Path, **env: str) -> Distribution:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / ".ci" / "dist", target],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, **env},
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    (wheel,), (sdist,), (sbom,) = (target.glob(f"*.{suffix}") for suffix in ("whl", "tar.gz", "cdx.json"))
    assert len(list(target.iterdir())) == 3
    return Distribution(wheel, sdist, sbom)


@pytest.mark.timeout(900)
def test_the_wheel_and_the_sdist_are_complete_and_work(server: MessagingServer, tmp_path: Path) -> None:
    """A single test, because a build takes long. `.ci/dist` compares the wheel with that of the sdist."""
    built = build(tmp_path / "dist", REPOSITORY_URL=REPOSITORY)
    the_sdist_has_exactly_the_files_of_git(built.sdist)
    the_wheel_has_the_package_and_nothing_else(built.wheel)
    every_link_of_the_readme_is_absolute(metadata(built.wheel))
    the_sbom_is_valid_and_lists_the_packages_of_the_image(built.sbom)
    polls_in_an_empty_environment(built.wheel, server, tmp_path)


def the_sdist_has_exactly_the_files_of_git(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    assert files == {*files_of_git(), "PKG-INFO"}


def the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        information = {name.partition(".dist-info/")[2] for name in archive.namelist()} - {""}
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "poller").rglob("*") if path.is_file()}
    queries = {f"poller/{path.relative_to(ROOT)}" for path in (ROOT / "queries").rglob("*") if path.is_file()}
    schemas = {"poller/queries.schema.json", "poller/targets.schema.json"}
    assert {"poller/py.typed", "poller/queries/users.yaml", *schemas} <= files
    assert files == {name for name in package if "__pycache__" not in name} | queries
    assert information == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def every_link_of_the_readme_is_absolute(metadata: Message) -> None:
    """PyPI renders the README with the same library."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = render(str(metadata.get_payload()))
    assert page is not None
    links = re.findall(r'<(a|img)\b[^>]*? (?:href|src)="([^"]+)"', page)
    assert len(links) > 40
    assert [link for _, link in links if not link.startswith(("https://", "#user-content-"))] == []
    blob, raw = (f"{REPOSITORY}/{kind}/v{metadata['Version']}/" for kind in ("blob", "raw"))
    for kind, link in links:
        if link.startswith(REPOSITORY):
            folder = blob if kind == "a" else raw
            assert link.startswith(folder), link
            assert (ROOT / link.removeprefix(folder).partition("#")[0]).exists(), link
    assert f"Repository, {REPOSITORY}" in metadata.get_all("Project-URL", [])


def the_sbom_is_valid_and_lists_the_packages_of_the_image(sbom: Path) -> None:
    """tests/acceptance/project/test_image.py compares the same pins with a real image."""
    text = sbom.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    listed = {canonicalize_name(item["name"]): item["version"] for item in bill["components"]}
    assert listed == {name: str(version) for name, version in pins(REQUIREMENTS).items()}
    # The metadata of protobuf has no classifier, and its text is not an SPDX identifier.
    assert [item["name"] for item in bill["components"] if not item.get("licenses")] == ["protobuf"]
    assert bill["metadata"]["component"]["name"] == "obscura-poller"


def polls_in_an_empty_environment(wheel: Path, server: MessagingServer, folder: Path) -> None:
    """The versions are those that pip chooses, or those of `.ci/constraints.txt` in CI."""
    home = folder / "home"
    home.mkdir()
    run([sys.executable, "-m", "venv", "--without-pip", "environment"], folder, {})
    pip = [sys.executable, "-m", "pip", "--python", "environment/bin/python"]
    variables = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    run([*pip, "install", "--quiet", "--no-compile", str(wheel)], folder, variables)
    environment = {"HOME": str(home), "POLLER_DATABASE_URL": server.standby_dsn}

    version = run(["environment/bin/poller", "--version"], folder, environment)
    assert version == f"poller {metadata(wheel)['Version']}\n"
    assert "no problems" in run(["environment/bin/poller", "check"], folder, environment)
    polled = json.loads(run(["environment/bin/poller", "poll", "--format", "json"], folder, environment))
    assert "users_total" in json.dumps(polled)


def run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    """Return the output of a command that sees no variable of the tests and no file of the checkout."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout
