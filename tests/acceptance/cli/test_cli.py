"""The command line as a process: imported modules, output and exit codes."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from poller.cli.app import COMMANDS
from poller.config.settings import SETTINGS
from tests.bed.process import ROOT
from tests.bed.terminal import Terminal


def poller(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "poller", *arguments],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_lists_every_command_and_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from poller.cli.app import main\n"
        "sys.argv = ['poller', '--help']\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'psycopg', 'opentelemetry', 'grpc', 'pydantic', 'apscheduler', 'yaml', 'rich'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("loaded: []\n")
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_the_help_of_a_command_lists_an_option_and_a_variable_for_each_setting() -> None:
    done = poller("settings", "--help-settings", COLUMNS="400", TERMINAL_WIDTH="400")
    assert done.returncode == 0
    printed = " ".join(done.stdout.split())
    for setting in SETTINGS.values():
        assert f"{setting.option} " in printed
        assert f"variable {setting.variables[0]}" in printed
    assert "The option is visible in `ps`" in printed


def test_an_unknown_command_or_option_is_a_usage_error() -> None:
    for arguments in (["setings"], ["settings", "--bogus"], ["settings", "--format", "xml"], []):
        done = poller(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_the_version_is_printed() -> None:
    done = poller("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("poller ")


def test_an_invalid_configuration_prints_each_problem_on_a_line_and_exits_with_2() -> None:
    done = poller("settings", "--timeout", "never", POLLER_INTERVAL="soon")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "POLLER_INTERVAL: 'soon' is not a duration; write one like 30s, 5m or 1h30m",
        "--timeout: 'never' is not a duration; write one like 30s, 5m or 1h30m",
    ]


def test_check_accepts_packaged_folder_names_and_paths() -> None:
    whole = poller("check", POLLER_QUERIES="shipped:extended")
    assert (whole.returncode, whole.stderr) == (0, "")
    assert poller("check", "shipped", "extended").stdout == whole.stdout
    wrong = poller("check", "shipped", "nowhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("nowhere: does not exist")


def test_check_lists_the_next_three_runs_of_each_schedule(tmp_path: Path) -> None:
    file = tmp_path / "queries.yaml"
    metric = {"name": "n", "unit": "1", "description": "N.", "value_column": "n"}
    queries = [
        {"name": f"q{number}", "sql": "SELECT 1 AS n", "metrics": [{**metric, "name": f"n{number}"}]}
        for number in range(25)
    ]
    nightly = {"schedule": "15 3 * * *", "timezone": "Asia/Tokyo"}
    file.write_text(json.dumps({"queries": [queries[0], *({**query, **nightly} for query in queries[1:])]}))
    lines = poller("check", str(file)).stdout.splitlines()
    assert len(lines) == 22
    assert re.fullmatch(r"q1: next runs (?:\d{4}-\d\d-\d\d 03:15 JST(?:, |$)){3}", lines[0])
    assert lines[-2:] == ["and 4 more queries with a schedule", "1 file, 25 queries, 25 metrics: no problems"]
    assert poller("check", str(file), "--format", "json").stdout.startswith("{")


def test_settings_in_a_pipe_are_a_plain_table() -> None:
    done = poller(
        "settings",
        "--interval",
        "7s",
        POLLER_LOG_LEVEL="debug",
        POLLER_DATABASE_URL="postgresql://u:s3cret@h/d",
    )
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(rows) == {"setting", *SETTINGS}
    assert rows["interval"].split()[1:4] == ["7s", "option", "--interval"]
    assert rows["log_level"].split()[1:4] == ["debug", "variable", "POLLER_LOG_LEVEL"]
    assert rows["database_url"].split()[1] == "postgresql://u:***@h/d"
    assert "s3cret" not in done.stdout + done.stderr


def test_settings_can_be_printed_as_json() -> None:
    done = poller("settings", "--format", "json", POLLER_OTLP_ENDPOINT="http://u:s3cret@c:4318")
    settings = {setting["setting"]: setting for setting in json.loads(done.stdout)}
    assert settings["otlp_endpoint"]["value"] == "http://***@c:4318"
    assert settings["otlp_endpoint"]["source"] == "variable POLLER_OTLP_ENDPOINT"
    assert settings["interval"]["variables"] == ["POLLER_INTERVAL"]
    assert settings["database_url"]["value"] is None


def test_a_misspelt_variable_is_logged() -> None:
    done = poller("settings", POLLER_INTERVALL="1s")
    assert done.returncode == 0
    assert "POLLER_INTERVALL: no such setting; did you mean POLLER_INTERVAL?" in done.stderr


@pytest.mark.parametrize("arguments", [["settings"], ["check"], ["--help"], ["settings", "--format", "json"]])
def test_an_error_on_stdout_is_a_single_line_and_exit_code_1(arguments: list[str]) -> None:
    command = shlex.join([sys.executable, "-m", "poller", *arguments])
    for redirection, why in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
        done = subprocess.run(["sh", "-c", f"{command} {redirection}"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, f"the output cannot be written: {why}\n")


def test_a_reader_that_closes_the_pipe_causes_no_message() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "poller", "settings"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_closed_stderr_stops_nothing() -> None:
    command = shlex.join([sys.executable, "-m", "poller", "settings"])
    done = subprocess.run(
        ["sh", "-c", f"{command} 2>&- <&-"],
        env={**os.environ, "POLLER_INTERVALL": "logged"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "lock_timeout" in done.stdout


def test_a_closed_stdin_is_not_a_terminal() -> None:
    command = shlex.join([sys.executable, "-m", "poller", "try"])
    done = subprocess.run(["sh", "-c", f"{command} <&-"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "SQL: contains no statement; write one SELECT, WITH, VALUES or TABLE\n"


def test_output_for_programs_is_utf_8_in_every_locale(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text("queries: []")
    done = subprocess.run(
        [sys.executable, "-m", "poller", "check", "é.yaml", "--format", "github"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == 2
    assert "file=é.yaml" in done.stdout.decode()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_colour_unless_it_is_disabled(
    on_terminal: Callable[..., Terminal], no_color: str
) -> None:
    terminal = on_terminal("settings", width=200, NO_COLOR=no_color)
    assert terminal.wait() == 0
    assert "lock_timeout" in terminal.text
    assert ("\x1b[36m" in terminal.text) is (no_color == "")
