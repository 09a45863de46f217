"""The changelog becomes the notes of a release, and the workflows of the repository are correct."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.bed.process import ROOT
from tests.bed.programs import need
from tests.bed.repository import files_of_git

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROGRAMS = Path(sys.executable).parent
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- A new command.

## [0.9.0] - 2026-01-02

- An old command.
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the script, version 1.0.0 and `CHANGELOG`."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "changelog.py", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.0.0"\n', encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG, encoding="utf-8")
    return tmp_path


def changelog(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, project / ".ci" / "changelog.py", *arguments], capture_output=True, text=True
    )


def test_a_release_takes_the_entries_under_unreleased(project: Path) -> None:
    assert changelog(project, "release", "2026-11-28").returncode == 0
    assert (project / "CHANGELOG.md").read_text(encoding="utf-8") == CHANGELOG.replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n## [1.0.0] - 2026-11-28\n"
    )
    assert changelog(project, "notes", "v1.0.0").stdout == "### Added\n\n- A new command.\n"


def test_a_release_without_a_date_has_the_date_of_today(project: Path) -> None:
    assert changelog(project, "release").returncode == 0
    assert re.search(r"## \[1\.0\.0\] - 20\d\d-\d\d-\d\d\n", (project / "CHANGELOG.md").read_text())


@pytest.mark.parametrize(
    ("arguments", "version", "message"),
    [
        (["release", "28.11.2026"], "1.0.0", "'28.11.2026' is not a date; write YYYY-MM-DD"),
        (
            ["release"],
            "0.9.0",
            "CHANGELOG.md has a section for 0.9.0; set the next version in pyproject.toml",
        ),
        (["notes", "v1.0.0"], "1.0.0", "CHANGELOG.md has no entry for 1.0.0; run .ci/changelog.py release"),
        (["notes", "v1.0"], "1.0.0", "the tag is v1.0, but the version in pyproject.toml is 1.0.0"),
        (["notes"], "1.0.0", ".ci/changelog.py notes TAG"),
    ],
)
def test_mistakes_are_refused(project: Path, arguments: list[str], version: str, message: str) -> None:
    (project / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n', encoding="utf-8")
    done = changelog(project, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert (project / "CHANGELOG.md").read_text(encoding="utf-8") == CHANGELOG


def test_a_release_without_entries_is_refused(project: Path) -> None:
    assert changelog(project, "release").returncode == 0
    (project / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n', encoding="utf-8")
    assert changelog(project, "release").stderr == "CHANGELOG.md has no entry under [Unreleased]\n"


def test_the_changelog_has_notes_for_its_version(tmp_path: Path) -> None:
    """Either the next release can be made, or it has been made and nothing was added since then."""
    (tmp_path / ".ci").mkdir()
    for name in (".ci/changelog.py", "pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    if f"## [{version[1]}]" not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        assert changelog(tmp_path, "release").returncode == 0
    assert "### Added" in changelog(tmp_path, "notes", f"v{version[1]}").stdout


@pytest.mark.timeout(400)
def test_the_workflows_pass_actionlint_and_shellcheck() -> None:
    """Go builds actionlint once, from the module in its cache or from its proxy."""
    need("go", None)
    done = subprocess.run(
        ["go", "tool", "actionlint", "-no-color", f"-shellcheck={PROGRAMS / 'shellcheck'}", *WORKFLOWS],
        cwd=ROOT / "tests" / "bed" / "actionlint", capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("script", ["run", "dist"])
def test_the_scripts_of_ci_pass_shellcheck(script: str) -> None:
    done = subprocess.run(
        [PROGRAMS / "shellcheck", "--severity=style", ROOT / ".ci" / script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_workflows_have_no_known_weakness() -> None:
    done = subprocess.run(
        [PROGRAMS / "zizmor", "--offline", "--no-progress", "--color=never", ROOT / ".github"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(
    ("schema", "files"),
    [("github-workflows", WORKFLOWS), ("dependabot", [ROOT / ".github" / "dependabot.yml"])],
)
def test_the_files_for_github_match_their_schemas(schema: str, files: list[Path]) -> None:
    done = subprocess.run(
        [PROGRAMS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *files],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_every_action_is_pinned_to_a_commit_with_its_version() -> None:
    for workflow in WORKFLOWS:
        uses = re.findall(r"uses: (\S+)(.*)", workflow.read_text(encoding="utf-8"))
        assert uses
        for action, comment in uses:
            if not action.startswith("./"):
                assert re.search(r"@[0-9a-f]{40}$", action), action
                assert re.fullmatch(r" # (v\d+\.\d+\.\d+|master)", comment), action


def test_ci_runs_on_the_lowest_python_of_the_package() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    lowest, newest = jobs["test"]["strategy"]["matrix"]["python"]
    assert f'requires-python = ">={lowest}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert int(newest.removeprefix("3.")) > int(lowest.removeprefix("3."))


def test_dependabot_updates_every_folder_with_dependencies() -> None:
    configured = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    patterns = [
        (update["package-ecosystem"], pattern.strip("/"))
        for update in configured
        for pattern in update.get("directories", [update.get("directory")])
    ]
    ecosystems = {"pyproject.toml": "pip", "Dockerfile": "docker", "go.mod": "gomod", "package.json": "npm",
                  "Cargo.toml": "cargo"}  # fmt: skip
    manifests = [Path(name) for name in files_of_git() if Path(name).name in ecosystems]
    assert len(manifests) >= 6
    for manifest in manifests:
        folder = "" if manifest.parent == Path() else str(manifest.parent)
        assert any(
            ecosystem == ecosystems[manifest.name]
            and (folder == pattern or (pattern.endswith("/**") and folder.startswith(pattern[:-2])))
            for ecosystem, pattern in patterns
        ), manifest


def test_no_workflow_grants_a_permission_to_all_of_its_jobs() -> None:
    for workflow in WORKFLOWS:
        content = yaml.safe_load(workflow.read_text(encoding="utf-8"))
        assert content["permissions"] == {}, workflow
        assert all("permissions" in job for job in content["jobs"].values()), workflow
        assert all("timeout-minutes" in job or "uses" in job for job in content["jobs"].values()), workflow


def test_distributions_are_not_mixed_with_other_files(tmp_path: Path) -> None:
    """The workflow publishes every wheel in the folder."""
    (tmp_path / "old.whl").touch()
    done = subprocess.run([ROOT / ".ci" / "dist", tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"{tmp_path} is not empty; remove its files\n")
    assert [path.name for path in tmp_path.iterdir()] == ["old.whl"]


def test_the_scripts_can_be_executed() -> None:
    assert all(os.access(ROOT / ".ci" / name, os.X_OK) for name in ("run", "dist", "changelog.py"))


def test_ci_installs_the_highest_version_of_go_that_a_module_needs() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    (chosen,) = re.findall(r"go-version-file: (\S+)", text)
    versions = {
        str(path.relative_to(ROOT)): tuple(
            map(int, re.findall(r"^go (.+)$", path.read_text(), re.MULTILINE)[0].split("."))
        )
        for path in (ROOT / "tests").rglob("go.mod")
    }
    assert versions[chosen] == max(versions.values())


def test_the_documents_of_a_release_are_in_one_folder() -> None:
    """An artifact keeps the folders below the common one of its paths, and later steps use `documents/*`."""
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))[
        "jobs"
    ]
    uploads = [step for step in jobs["build"]["steps"] if "upload-artifact" in step.get("uses", "")]
    assert len(uploads) == 2
    for upload in uploads:
        assert len({Path(path).parent for path in upload["with"]["path"].split()}) == 1
