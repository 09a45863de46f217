"""Help and error messages of the command line: examples that work, and a suggestion for each mistake."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer.main
from typer.exceptions import TyperException
from typer.testing import CliRunner

from poller.cli.app import COMMANDS, app
from poller.cli.help import EXAMPLES, epilog
from poller.config.load_settings import load
from poller.config.settings import SETTINGS
from poller.model.errors import ConfigError
from tests.bed.process import ROOT


def context(name: str, *arguments: str) -> Any:
    """Return the context of a command after it has parsed its arguments."""
    group: Any = typer.main.get_command(app)
    parent = group.make_context("poller", [name, *arguments])
    return group.commands[name].make_context(name, list(arguments), parent=parent)


def parameters(name: str) -> list[Any]:
    """Return the parameters of a command without parsing arguments."""
    group: Any = typer.main.get_command(app)
    parent = group.make_context("poller", [name])
    command_context = group.commands[name].make_context(name, [], parent=parent, resilient_parsing=True)
    return list(command_context.command.params)


def error_message(name: str, *arguments: str) -> str:
    with pytest.raises(TyperException) as caught:
        context(name, *arguments)
    return caught.value.format_message()


@pytest.mark.slow
def test_every_command_has_examples_and_each_is_a_command_line_that_works() -> None:
    assert EXAMPLES.keys() == {"", *COMMANDS}
    for name, examples in EXAMPLES.items():
        for line, meaning in examples:
            assert meaning
            program, command, *arguments = shlex.split(line.partition(" > ")[0])
            assert program == "poller"
            if command in COMMANDS:
                assert name in ("", command)
                if arguments != ["--help"]:
                    assert context(command, *arguments).command.name == command
            else:
                assert command == "--install-completion"


def test_examples_and_the_list_of_commands_fit_a_terminal_of_80_columns() -> None:
    for name in EXAMPLES:
        examples = epilog(name) or ""
        assert [line for line in examples.splitlines() if len(line) > 78] == [], (
            "the help indents by two more"
        )
    done = subprocess.run([sys.executable, "-m", "poller", "--help"], capture_output=True, text=True)
    listed = done.stdout.partition("Commands:")[2].partition("Examples:")[0]
    assert all(f"  {meaning}" in listed for meaning in COMMANDS.values()), "a line is truncated"


def test_examples_follow_the_help() -> None:
    assert (
        context("poll")
        .command.get_help(context("poll"))
        .endswith(
            "  Examples:\n"
            "    poller poll                                 # a table of every value\n"
            "    poller poll --queries my-queries -v         # list omitted rows as well\n"
            "    poller poll --query 'users*' --format json  # some queries, as JSON\n"
            "    poller poll --targets targets.yaml          # many databases\n"
            "    poller poll --push                          # print and push"
        )
    )
    assert epilog("nothing") is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "settings --format jsn",
            "Invalid value for '--format': 'jsn' is not one of table, json; did you mean 'json'?",
        ),
        (
            "catalog --generation nope",
            (
                "Invalid value for '--generation': 'nope' is not one of document, v0.9.4; "
                "write one like document"
            ),
        ),
        (
            "dashboard inventry",
            (
                "Invalid value for 'which': 'inventry' is not one of inventory, poller; "
                "did you mean 'inventory'?"
            ),
        ),
        (
            "conform --requests=x",
            "Invalid value for '--requests': 'x' is not a whole number; write one like 10",
        ),
        ("conform --requests 0", "Invalid value for '--requests': '0' is too small; write at least 1"),
        (
            "conform --grpc-port 70000",
            "Invalid value for '--grpc-port': '70000' is too large; write at most 65535",
        ),
        (
            "check --database --large-table x",
            "Invalid value for '--large-table': 'x' is not a whole number; write one like 10",
        ),
        ("demo --seconds soon", "Invalid value for '--seconds': 'soon' is not a number; write one like 10"),
        ("poll --interval", "--interval needs a value; write for example --interval 5m"),
        ("poll --query", "--query needs a value"),
        ("poll --quer x", "No such option: --quer (Possible options: --queries, --query)"),
        ("check --nothing-like-it", "No such option: --nothing-like-it"),
        ("poll users", "Got unexpected extra argument(s) (users); write query files as --queries FILES"),
        ("health users", "Got unexpected extra argument(s) (users)"),
    ],
)
def test_a_mistake_on_the_command_line_is_reported_with_a_suggestion(arguments: str, message: str) -> None:
    assert error_message(*arguments.split()) == message


@pytest.mark.slow
def test_no_message_of_the_command_line_is_in_the_words_of_a_library() -> None:
    for name in COMMANDS:
        for parameter in parameters(name):
            # Settings are parsed as text, and have their own error messages.
            if not parameter.opts[0].startswith("--") or parameter.name in {"help", *SETTINGS}:
                continue
            message = _message_for(name, f"{parameter.opts[0]}=\U0001f9ed")
            assert not re.search(r"Value error|Input should|None\b", message)


def _message_for(name: str, argument: str) -> str:
    try:
        context(name, argument)
    except TyperException as error:
        return error.format_message()
    return ""


def test_a_secret_in_an_unexpected_argument_is_not_printed() -> None:
    for setting in SETTINGS.values():
        if setting.secret or setting.name.endswith("_endpoint"):
            assert "s3cret" not in error_message("settings", setting.option, "host=x", "password=s3cret")
    assert "s3cret" not in error_message("test", "--database", "host=x", "password=s3cret", "--nothing")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"POLLER_LOG_LEVEL": "inof"},
            "POLLER_LOG_LEVEL: 'inof' is not one of debug, info, warning, error; did you mean 'info'?",
        ),
        (
            {"POLLER_SQL_COMMENTS": "names"},
            "POLLER_SQL_COMMENTS: 'names' is not one of off, name, traceparent; did you mean 'name'?",
        ),
    ],
)
def test_a_misspelt_setting_is_reported_with_a_suggestion(environ: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    assert str(caught.value) == message


def test_commands_without_a_log_report_misspelt_variables() -> None:
    """They also report a path that does not exist, with a similar path that exists."""
    done = subprocess.run(
        [sys.executable, "-m", "poller", "check", "querys"],
        capture_output=True,
        text=True,
        env={"POLLER_MAX_SERIE": "1", "PATH": ""},
        cwd=ROOT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "POLLER_MAX_SERIE: no such setting; did you mean POLLER_MAX_SERIES?",
        "querys: does not exist; did you mean 'queries'?",
    ]


MOST_LINES = 40


def printed(*arguments: str) -> str:
    """Return the output of a command line on a terminal of 80 columns, of which click uses 78."""
    return CliRunner(env={"COLUMNS": "78"}).invoke(app, arguments).output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_fits_a_screen_and_lists_no_option_of_a_setting(name: str) -> None:
    output = printed(name, "--help")

    assert len(output.splitlines()) <= MOST_LINES
    assert "[variable POLLER_" not in output


def test_help_settings_lists_every_setting_of_a_command() -> None:
    output = printed("run", "--help-settings")

    assert all(f"  {setting.option} " in output for setting in SETTINGS.values())
    assert "--help-settings" not in printed("health", "--help")
