"""Only regular files of a limited size are read, and a file is replaced completely or not at all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from poller.model.files import NotRegularError, read_json, read_regular, replace_file
from tests.bed.process import ROOT

POLLER = [sys.executable, "-m", "poller"]


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)
        listener.bind(path.name)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_directory(path: Path) -> None:
    path.mkdir()


def an_endless_file(path: Path) -> None:
    path.write_bytes(b"")
    os.truncate(path, 2**40)


HARMS = [a_pipe, a_socket, a_device, a_directory, an_endless_file]


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_is_not_regular_or_too_large_is_an_immediate_error(
    tmp_path: Path, harm: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    harm(tmp_path / "f")
    with pytest.raises(
        OSError, match=r"a (pipe|socket|device), not a regular file|directory|larger than 1 MiB"
    ):
        read_regular(tmp_path / "f", 2**20)


def test_a_pipe_that_replaces_a_file_after_the_check_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "f").write_text("x")
    look = Path.stat

    def stat_and_replace(path: Path) -> os.stat_result:
        status = look(path)
        path.unlink()
        os.mkfifo(path)
        return status

    monkeypatch.setattr(Path, "stat", stat_and_replace)
    with pytest.raises(NotRegularError):
        read_regular(tmp_path / "f", 10)


def test_a_link_to_a_file_is_read_and_the_largest_allowed_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("f")
    assert read_regular(tmp_path / "link", 10) == b"0123456789"
    with pytest.raises(OSError, match="larger than"):
        read_regular(tmp_path / "link", 9)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "{", "\udcff"])
def test_invalid_json_of_any_shape_is_only_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"nested too deeply|Expecting|utf-8"):
        read_json(tmp_path / "f", 2**24)


def test_a_replaced_file_is_private_and_its_temporary_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "trap").write_text("precious")
    (tmp_path / ".f.new").symlink_to("trap")
    old = os.umask(0)
    try:
        replace_file(tmp_path / "f", b"new")
    finally:
        os.umask(old)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "trap").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "trap"]


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace_file(tmp_path / "f", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_durable_file_is_synced_before_its_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    sync, rename = os.fsync, Path.replace

    def record_sync(descriptor: int) -> None:
        calls.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        sync(descriptor)

    def record_rename(path: Path, target: Path) -> Path:
        calls.append(("rename", str(target)))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    replace_file(tmp_path / "f", b"new", durable=True)
    assert calls == [
        ("sync", str(tmp_path / ".f.new")),
        ("rename", str(tmp_path / "f")),
        ("sync", str(tmp_path)),
    ]


# --- every file that a command reads


def run(arguments: list[str], environ: Mapping[str, str], folder: Path) -> tuple[int, str]:
    """Return the exit code and all output of a command that must end by itself."""
    done = subprocess.run(
        [*POLLER, *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environ},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(
    ("variable", "arguments", "code"),
    [
        ("POLLER_DATABASE_URL_FILE", ["poll"], 2),
        ("POLLER_HEALTH_FILE", ["health"], 1),
        ("POLLER_HEALTH_FILE", ["watch"], 1),
        ("POLLER_QUERIES", ["check"], 2),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ["poll", "--push"], 2),
    ],
)
def test_a_command_reports_every_kind_of_unusable_file(
    tmp_path: Path,
    harm: Callable[[Path], None],
    variable: str,
    arguments: list[str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    harm(tmp_path / "f.yaml")
    environ = {
        variable: str(tmp_path / "f.yaml"),
        "POLLER_OTLP_ENDPOINT": "https://127.0.0.1:9",
        **({} if "DATABASE" in variable else {"POLLER_DATABASE_URL": "postgresql://user@127.0.0.1:9/none"}),
    }
    ended, output = run(arguments, environ, tmp_path)
    assert ended == code, output
    assert "f.yaml" in output
