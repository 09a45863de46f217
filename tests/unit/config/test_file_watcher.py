"""Every way in which query files change is seen, once, and not before it is over."""

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

from poller.config.queries.file_watcher import Watcher, contents, fingerprint
from poller.daemon.signals import on_hangup
from tests.bed.process import eventually
from tests.bed.volume import ConfigMap, replace

SOON = 0.02
Change = Callable[[Path], object]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one query file, one that is none, and one elsewhere that a link leads to."""
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


def make_anew(folder: Path) -> None:
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
    "folder made anew": make_anew,
    "permission taken": lambda folder: (folder / "a.yaml").chmod(0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_is_seen(folder: Path, change: Change) -> None:
    before = fingerprint([folder])
    assert fingerprint([folder]) == before
    change(folder)
    assert fingerprint([folder]) != before


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "permission taken"])
def test_every_change_of_content_is_told_by_the_digest(folder: Path, name: str) -> None:
    before = contents([folder])
    assert contents([folder]) == before
    CHANGES[name](folder)
    assert contents([folder]) != before


def test_what_is_no_query_file_changes_nothing(folder: Path) -> None:
    before = fingerprint([folder]), contents([folder])
    (folder / "notes.txt").write_text("more")
    (folder / ".a.yaml.swp").write_text("an editor's")
    (folder / "nested").mkdir()
    (folder / "nested" / "c.yaml").write_text("two")
    assert (fingerprint([folder]), contents([folder])) == before


def test_a_touch_changes_no_content(folder: Path) -> None:
    looks = fingerprint([folder]), contents([folder])
    os.utime(folder / "a.yaml")
    assert fingerprint([folder]) != looks[0]
    assert contents([folder]) == looks[1]


@pytest.mark.parametrize("source", ["folder", "one file", "through ..data"])
def test_a_config_map_that_is_swapped_is_seen_though_all_its_times_are_the_same(
    tmp_path: Path, source: str
) -> None:
    volume = ConfigMap(tmp_path / "volume", a="one")
    watched = {"folder": ".", "one file": "a.yaml", "through ..data": "..data"}[source]
    look = partial(fingerprint, [volume.folder / watched])
    digest = partial(contents, [volume.folder / watched])
    for text in ("two", "six", "ten"):  # of one length
        before = look(), digest()
        volume.update(a=text)
        assert look() != before[0]
        assert digest() != before[1]


def test_a_pipe_does_not_make_it_wait(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    assert stat.S_ISFIFO((folder / "pipe.yaml").stat().st_mode)
    assert fingerprint([folder])
    assert contents([folder])


class Watched:
    """A watcher of a folder, and what it reads at each reload."""

    def __init__(self, *sources: Path) -> None:
        self.read: list[tuple[bool, dict[str, str]]] = []
        self.answers: list[bool] = []
        self._sources = sources
        self._look = partial(fingerprint, list(sources))
        self.looks = 0
        self.settle = SOON
        self._watcher: Watcher | None = None

    def start(self, *, watch: bool = True, between: Callable[[], object] = lambda: None) -> Watcher:
        self._watcher = Watcher(self.look, self.reload, watch=watch, interval=SOON, settle=self.settle)
        between()
        self._watcher.start()
        return self._watcher

    def look(self) -> tuple[object, ...]:
        self.looks += 1
        return self._look()

    def reload(self, asked: bool) -> bool:
        files = [
            file
            for source in self._sources
            for file in ([source] if source.is_file() else source.glob("*.y*ml"))
        ]
        self.read.append((asked, {file.name: file.read_text() for file in files}))
        return self.answers.pop(0) if self.answers else True

    def has_read(self, files: dict[str, str]) -> bool:
        return bool(self.read) and self.read[-1][1] == files

    def looked(self, times: int = 4, seconds: float = 60.0) -> bool:
        """Wait for some more looks."""
        before = self.looks
        return eventually(lambda: self.looks >= before + times, seconds)

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


def test_a_change_makes_one_reload_and_rest_makes_none(folder: Path, watched: Watched) -> None:
    watched.start()
    assert watched.looked()
    assert watched.read == []
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: len(watched.read) == 1)
    assert watched.looked()
    assert watched.read == [(False, {"a.yaml": "two", "link.yaml": "else"})]


def test_a_config_map_is_read_whole(tmp_path: Path) -> None:
    volume = ConfigMap(tmp_path / "volume", a="1", b="1")
    watched = Watched(volume.folder)
    watched.start()
    try:
        for version in "23456789":
            volume.update(a=version, b=version)
            wanted = {"a.yaml": version, "b.yaml": version}
            assert eventually(partial(watched.has_read, wanted))
        volume.update(b="9")
        assert eventually(partial(watched.has_read, {"b.yaml": "9"}))
    finally:
        watched.stop()


def test_a_change_before_the_start_is_not_missed(folder: Path, watched: Watched) -> None:
    """The files may change between the moment they are read and the start of the thread."""
    watched.start(between=lambda: replace(folder / "a.yaml", "two"))
    assert eventually(lambda: len(watched.read) == 1)


def test_what_still_grows_is_left_alone(folder: Path, watched: Watched) -> None:
    """Another look must see the same: the looks are counted, so no clock decides here."""
    seen: list[str] = []
    text = ""
    grow = watched.look

    def look() -> tuple[object, ...]:
        nonlocal text
        if len(text) < 20:
            text += "x"
            (folder / "a.yaml").write_text(text)
        seen.append(text)
        return grow()

    watched.look = look  # type: ignore[method-assign]
    watched.start()
    assert eventually(lambda: bool(watched.read))
    assert watched.read[0][1]["a.yaml"] == "x" * 20
    assert len(watched.read) == 1


def test_a_change_is_looked_at_again_after_its_own_time_and_not_after_that_of_rest(
    folder: Path, watched: Watched
) -> None:
    """The files are looked at seldom, so that a change must not wait twice for that."""
    watched.settle = 3600.0
    watcher = watched.start()
    assert watched.looked()
    replace(folder / "a.yaml", "two")
    looks = watched.looks
    assert eventually(lambda: not watched.looked(1, 1.0))
    assert watched.looks > looks
    assert watched.read == []
    watcher.ask()
    assert eventually(lambda: len(watched.read) == 1)
    assert watched.looked(), "after the reload the files are at rest"


def test_what_changed_while_it_was_read_is_read_again_though_nobody_touches_it_any_more(
    folder: Path, watched: Watched
) -> None:
    watched.answers = [False, False]
    watched.start()
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: len(watched.read) == 3)
    assert watched.looked()
    assert len(watched.read) == 3


def test_who_asks_is_answered_at_once_changed_or_not_and_until_it_is_done(watched: Watched) -> None:
    watched.answers = [False, False, True]
    watcher = watched.start(watch=False)
    watcher.ask()
    assert eventually(lambda: len(watched.read) == 3)
    assert [asked for asked, _ in watched.read] == [True, True, True]


def test_without_watching_nothing_is_looked_at_until_somebody_asks(folder: Path, watched: Watched) -> None:
    watcher = watched.start(watch=False)
    replace(folder / "a.yaml", "two")
    watcher.ask()
    assert eventually(lambda: len(watched.read) == 1)
    assert watched.looks == 2
    replace(folder / "a.yaml", "three")
    watcher.ask()
    assert eventually(lambda: len(watched.read) == 2)
    assert watched.looks == 3


def test_a_defect_in_a_reload_is_said_and_ends_nothing(
    folder: Path, watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    real = watched.reload

    def broken(asked: bool) -> bool:
        if asked:
            raise RuntimeError("a defect")
        return real(asked)

    watched.reload = broken  # type: ignore[method-assign]
    watcher = watched.start()
    watcher.ask()
    assert eventually(lambda: bool(caplog.records))
    assert caplog.records[0].exc_info is not None
    replace(folder / "a.yaml", "two")
    assert eventually(lambda: bool(watched.read))


def hang_up(times: int) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGHUP)


def test_a_storm_of_hangups_ends_in_a_reload_and_in_no_deadlock(watched: Watched) -> None:
    """A handler may interrupt itself: with a lock in it, this would hang sooner or later."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        watcher = watched.start(watch=False)
        on_hangup(watcher.ask)
        storm = threading.Thread(target=hang_up, args=[3000])
        storm.start()
        while storm.is_alive():
            storm.join(0.001)  # back in Python, where handlers run
        count = len(watched.read)
        signal.raise_signal(signal.SIGHUP)
        assert eventually(lambda: len(watched.read) > count)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_change_since_somebody_else_looked_is_acted_upon(folder: Path) -> None:
    seen = fingerprint([folder])
    replace(folder / "a.yaml", "two")
    acted = threading.Event()

    def reload(_: bool) -> bool:
        acted.set()
        return True

    watcher = Watcher(partial(fingerprint, [folder]), reload, interval=SOON, settle=SOON, initial=seen)
    watcher.start()
    try:
        assert acted.wait(60)
    finally:
        watcher.stop()
