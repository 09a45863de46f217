"""Every kind of change of query files is detected once, after the change is complete."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from poller.config.file_watcher import Watcher, contents, fingerprint
from poller.daemon.signals import on_hangup
from tests.bed.process import eventually
from tests.bed.volume import ConfigMap, replace

SOON = 0.02
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a query file, another file, and a link to a query file elsewhere."""
    folder = tmp_path / "queries"
    folder.mkdir()
    (folder / "a.yaml").write_text("one")
    (folder / "notes.txt").write_text("none of ours")
    (tmp_path / "elsewhere.yaml").write_text("else")
    (folder / "link.yaml").symlink_to("../elsewhere.yaml")
    return folder


def lead_elsewhere(folder: Path) -> None:
    (folder / "new").symlink_to("a.yaml")
    (folder / "new").rename(folder / "link.yaml")


def recreate(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    replace(folder / "a.yaml", "two")


CHANGES: dict[str, Change] = {
    "written in place": lambda folder: (folder / "a.yaml").write_text("two"),
    "renamed over": lambda folder: replace(folder / "a.yaml", "two"),
    "added": lambda folder: (folder / "b.yml").write_text("two"),
    "removed": lambda folder: (folder / "a.yaml").unlink(),
    "renamed": lambda folder: (folder / "a.yaml").rename(folder / "z.yaml"),
    "written where a link leads to": lambda folder: (folder.parent / "elsewhere.yaml").write_text("two"),
    "renamed over where a link leads to": lambda folder: replace(folder.parent / "elsewhere.yaml", "two"),
    "link led elsewhere": lead_elsewhere,
    "folder gone": shutil.rmtree,
    "folder recreated": recreate,
    "permission taken": lambda folder: (folder / "a.yaml").chmod(0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_detected(folder: Path, change: Change) -> None:
    before = fingerprint([folder])
    assert fingerprint([folder]) == before
    change(folder)
    assert fingerprint([folder]) != before


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "permission taken"])
def test_every_change_of_content_changes_the_digest(folder: Path, name: str) -> None:
    before = contents([folder])
    assert contents([folder]) == before
    CHANGES[name](folder)
    assert contents([folder]) != before


def test_files_of_other_kinds_are_ignored(folder: Path) -> None:
    before = fingerprint([folder]), contents([folder])
    (folder / "notes.txt").write_text("more")
    (folder / ".a.yaml.swp").write_text("an editor's")
    (folder / "nested").mkdir()
    (folder / "nested" / "c.yaml").write_text("two")
    assert (fingerprint([folder]), contents([folder])) == before


def test_a_touch_changes_no_content(folder: Path) -> None:
    checks = fingerprint([folder]), contents([folder])
    os.utime(folder / "a.yaml")
    assert fingerprint([folder]) != checks[0]
    assert contents([folder]) == checks[1]


@pytest.mark.parametrize("source", ["folder", "one file", "through ..data"])
def test_a_swapped_config_map_is_detected_although_all_its_times_are_equal(
    tmp_path: Path, source: str
) -> None:
    volume = ConfigMap(tmp_path / "volume", a="one")
    watched = {"folder": ".", "one file": "a.yaml", "through ..data": "..data"}[source]
    check = partial(fingerprint, [volume.folder / watched])
    digest = partial(contents, [volume.folder / watched])
    for text in ("two", "six", "ten"):  # of equal length
        before = check(), digest()
        volume.update(a=text)
        assert check() != before[0]
        assert digest() != before[1]


def test_a_pipe_does_not_block_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    assert stat.S_ISFIFO((folder / "pipe.yaml").stat().st_mode)
    assert fingerprint([folder])
    assert contents([folder])


class Watched:
    """A watcher of a folder, and the files that it reads at each reload."""

    def __init__(self, *sources: Path) -> None:
        self.read: list[tuple[bool, dict[str, str]]] = []
        self.answers: list[bool] = []
        self._sources = sources
        self._check = partial(fingerprint, list(sources))
        self.checks = 0
        self.settle = SOON
        self._watcher: Watcher | None = None

    def start(self, *, watch: bool = True, between: Callable[[], object] = lambda: None) -> Watcher:
        self._watcher = Watcher(self.check, self.reload, watch=watch, interval=SOON, settle=self.settle)
        between()
        self._watcher.start()
        return self._watcher

    def check(self) -> tuple[object, ...]:
        self.checks += 1
        return self._check()

    def reload(self, requested: bool) -> bool:
        files = [
            file
            for source in self._sources
            for file in ([source] if source.is_file() else source.glob("*.y*ml"))
        ]
        self.read.append((requested, {file.name: file.read_text() for file in files}))
        return self.answers.pop(0) if self.answers else True

    def has_read(self, files: dict[str, str]) -> bool:
        return bool(self.read) and self.read[-1][1] == files

    def checked(self, times: int = 4, seconds: float = 60.0) -> bool:
        """Wait for more checks."""
        before = self.checks
        return eventually(lambda: self.checks >= before + times, seconds)

    def stop(self) -> None:
        if self._watcher is not None:
            self._watcher.stop(60.0)


@pytest.fixture
def watched(folder: Path) -> Iterator[Watched]:
    watched = Watched(folder)
    before = set(threading.enumerate())
    yield watched
    watched.stop()
    assert set(threading.enumerate()) <= before


def test_a_change_triggers_a_single_reload(folder: Path, watched: Watched) -> None:
    watched.start()
    assert watched.checked()
    assert watched.read == []
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: len(watched.read) == 1)
    assert watched.checked()
    assert watched.read == [(False, {"a.yaml": "two", "link.yaml": "else"})]


def test_a_config_map_is_read_completely(tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "volume", a="1", b="1")
    watched = Watched(volume.folder)
    watched.start()
    try:
        for version in "23456789":
            volume.update(a=version, b=version)
            expected = {"a.yaml": version, "b.yaml": version}
            assert eventually(partial(watched.has_read, expected))
        volume.update(b="9")
        assert eventually(partial(watched.has_read, {"b.yaml": "9"}))
    finally:
        watched.stop()


def test_a_change_before_the_start_is_not_missed(folder: Path, watched: Watched) -> None:
    """The files may change after they are read and before the thread starts."""
    watched.start(between=lambda: replace(folder / "a.yaml", "two"))
    assert eventually(lambda: len(watched.read) == 1)


def test_a_file_that_still_grows_is_not_read(folder: Path, watched: Watched) -> None:
    """Another check must see the same content; the test counts checks and depends on no clock."""
    texts: list[str] = []
    text = ""
    grow = watched.check

    def check() -> tuple[object, ...]:
        nonlocal text
        if len(text) < 20:
            text += "x"
            (folder / "a.yaml").write_text(text)
        texts.append(text)
        return grow()

    watched.check = check  # type: ignore[method-assign]
    watched.start()
    assert eventually(lambda: bool(watched.read))
    assert watched.read[0][1]["a.yaml"] == "x" * 20
    assert len(watched.read) == 1


@pytest.mark.slow
def test_a_change_is_checked_again_after_the_settle_time(folder: Path, watched: Watched) -> None:
    """The interval between checks is long; a change must not wait for two of them."""
    watched.settle = 3600.0
    watcher = watched.start()
    assert watched.checked()
    checks = watched.checks
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: watched.checks > checks)
    assert eventually(lambda: not watched.checked(1, 1.0))
    assert watched.read == []
    watcher.request_reload()
    assert eventually(lambda: len(watched.read) == 1)
    assert watched.checked(), "after the reload the files do not change"


def test_a_file_that_changed_during_the_reload_is_read_again_without_another_change(
    folder: Path, watched: Watched
) -> None:
    watched.answers = [False, False]
    watched.start()
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: len(watched.read) == 3)
    assert watched.checked()
    assert len(watched.read) == 3


def test_a_request_reloads_immediately_and_is_repeated_until_it_succeeds(watched: Watched) -> None:
    watched.answers = [False, False, True]
    watcher = watched.start(watch=False)
    watcher.request_reload()
    assert eventually(lambda: len(watched.read) == 3)
    assert [requested for requested, _ in watched.read] == [True, True, True]


def test_without_watching_files_are_only_read_at_a_request(folder: Path, watched: Watched) -> None:
    watcher = watched.start(watch=False)
    replace(folder / "a.yaml", "two")
    watcher.request_reload()
    assert eventually(lambda: len(watched.read) == 1)
    assert watched.checks == 2
    replace(folder / "a.yaml", "three")
    watcher.request_reload()
    assert eventually(lambda: len(watched.read) == 2)
    assert watched.checks == 3


def test_a_defect_in_a_reload_is_logged_and_the_watcher_continues(
    folder: Path, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    real = watched.reload

    def broken(requested: bool) -> bool:
        if requested:
            raise RuntimeError("a defect")
        return real(requested)

    watched.reload = broken  # type: ignore[method-assign]
    watcher = watched.start()
    watcher.request_reload()
    assert eventually(lambda: bool(caplog.records))
    assert caplog.records[0].exc_info is not None
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: bool(watched.read))


def hang_up(times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGHUP)


def test_many_hangups_end_in_a_reload_without_a_deadlock(watched: Watched) -> None:
    """A handler may interrupt itself, so that a handler with a lock would hang sooner or later."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        watcher = watched.start(watch=False)
        on_hangup(watcher.request_reload)
        storm = threading.Thread(target=hang_up, args=[3000])
        storm.start()
        while storm.is_alive():
            storm.join(0.001)  # returns to Python code, which runs the handlers
        count = len(watched.read)
        signal.raise_signal(signal.SIGHUP)
        assert eventually(lambda: len(watched.read) > count)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_change_since_the_initial_fingerprint_triggers_a_reload(folder: Path) -> None:
    initial_fingerprint = fingerprint([folder])
    replace(folder / "a.yaml", "two")
    acted = threading.Event()

    def reload(_: bool) -> bool:
        acted.set()
        return True

    watcher = Watcher(
        partial(fingerprint, [folder]), reload, interval=SOON, settle=SOON, initial=initial_fingerprint
    )
    watcher.start()
    try:
        assert acted.wait(60)
    finally:
        watcher.stop()
