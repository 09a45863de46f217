"""The units: valid for systemd, as restricted as documented, and consistent with the program."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from poller.config.settings import SETTINGS
from tests.bed.process import ROOT
from tests.bed.programs import need

FOLDER = ROOT / "deploy" / "systemd"
DAEMON, ONCE = "poller.service", "poller-poll.service"
STATED_EXPOSURE = 1.1
_HARDENING = "# It reads its own files"


@pytest.fixture
def systemd_analyze() -> str:
    return need("systemd-analyze", "systemd")


def unit(name: str) -> list[tuple[str, str]]:
    """Return the settings of a unit file in order; a name may occur several times."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    return re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", [DAEMON, ONCE])
def test_the_exposure_is_as_documented(name: str, systemd_analyze: str) -> None:
    done = subprocess.run(
        [systemd_analyze, "security", "--offline=yes", "--no-pager", FOLDER / name],
        capture_output=True,
        text=True,
    )
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert match is not None, done.stderr
    assert float(match[1]) <= STATED_EXPOSURE
    page = (ROOT / "docs/how-to/systemd.md").read_text(encoding="utf-8")
    stated = re.findall(r"`systemd-analyze security`[^.]*?(\d\.\d)", page)
    assert {float(number) for number in stated} == {STATED_EXPOSURE}


def test_systemd_understands_every_line(tmp_path: Path, systemd_analyze: str) -> None:
    """A program is installed at the path in the units, so that systemd has no reason for a warning."""
    program = tmp_path / "poller"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for file in FOLDER.iterdir():
        text = file.read_text(encoding="utf-8").replace("/opt/obscura-poller/bin/poller", str(program))
        (tmp_path / file.name).write_text(text)
    units = sorted(path for path in tmp_path.iterdir() if path != program)
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "poller" in line] == []


def test_the_service_can_read_the_documented_query_files_and_not_the_secrets(
    tmp_path: Path,
) -> None:
    """The service runs as a dynamic user, which reads only world-readable files."""
    page = (ROOT / "docs/how-to/systemd.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n(python3 -m venv /opt.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [line for line in block.splitlines() if "/etc/poller" in line]
    script = "\n".join(commands).replace("/etc/poller", f"{tmp_path}/etc/poller")
    subprocess.run(["sh", "-euc", f"umask 077\n{script}"], cwd=ROOT, check=True)
    folder = tmp_path / "etc/poller"
    environment = dict(line.split("=", 1) for line in (folder / "poller.env").read_text().splitlines())
    queries = Path(environment["POLLER_QUERIES"])
    assert queries == folder / "queries"
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in (folder, queries))
    assert [file.name for file in sorted(queries.iterdir())] == [
        file.name for file in sorted((ROOT / "queries").glob("*.yaml"))
    ]
    assert all(file.stat().st_mode & 0o004 for file in queries.iterdir())
    assert all((folder / name).stat().st_mode & 0o077 == 0 for name in ("database_url", "poller.env"))


def test_both_services_have_the_same_restrictions() -> None:
    def closed(name: str) -> list[str]:
        text = (FOLDER / name).read_text(encoding="utf-8")
        return text[text.index(_HARDENING) :].partition("\n[Install]")[0].strip().splitlines()

    assert closed(DAEMON) == closed(ONCE)


def test_the_units_set_only_variables_that_the_program_reads() -> None:
    supported = {variable for setting in SETTINGS.values() for variable in setting.variables}
    for name in (DAEMON, ONCE):
        environment = [value.partition("=")[0] for key, value in unit(name) if key == "Environment"]
        set_here = {
            variable.removesuffix("_FILE") for variable in environment if variable.startswith("POLLER_")
        }
        assert "POLLER_DATABASE_URL" in set_here
        assert set_here <= supported
    daemon = dict(unit(DAEMON))
    assert daemon["Type"] == "notify"
    assert daemon["RestartPreventExitStatus"] == "2"
    grace = SETTINGS["grace_period"].default
    assert float(daemon["TimeoutStopSec"].removesuffix("s")) > grace
