"""The real image, built with buildah and run as its own user on a read-only root.

The Dockerfile's base images are only available from a registry of images. Debian's packages of the same
release replace them: with a shell and pip's wheel for the build, and with no program except Python for the
run. gcr.io/distroless/python3-debian13 consists of the same packages.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.bed.pins import BUILD_REQUIREMENTS, REQUIREMENTS
from tests.bed.process import ROOT, Process
from tests.bed.programs import need

SUITE, PYTHON = "trixie", "3.13"
_PACKAGES = "base-files,ca-certificates,coreutils,dash,findutils,libgomp1,libstdc++6,python3-venv,sed"
_NOT_TO_RUN_ON = (
    *("usr/bin/", "usr/sbin/", "usr/share/python-wheels", "usr/lib/python3/", "usr/lib/apt", "etc/apt"),
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/dpkg", "var/cache"),
)
_KEEP_SECONDS = 7 * 86400.0
_NEEDED = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
    "chroot": "coreutils",
}
"""Programs, and Debian's package of each."""

# Read-only except for the state directory, by the same means of Linux as `docker run --read-only` and
# readOnlyRootFilesystem. In a read-only /dev only the devices themselves are writable.
_ENTER = """
mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
mount --bind /dev "$1/dev" && mount -o remount,bind,ro "$1/dev"
mount --bind "$2" "$1/var/lib/poller"
mount --bind "$3" "$1/etc/poller/queries" && mount -o remount,bind,ro "$1/etc/poller/queries"
mount --rbind /proc "$1/proc"
root=$1 user=$4
shift 4
exec /usr/bin/setpriv --no-new-privs /usr/sbin/chroot --userspec="$user" --groups= "$root" "$@"
"""


def need_builder() -> None:
    """Skip the test on a machine that cannot build images; in CI a missing program fails it."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the image is built on Linux on x86-64 only")
    if os.getuid() != 0:
        pytest.skip("the image is built by root only")
    for program, package in _NEEDED.items():
        need(program, package)


@dataclass(frozen=True)
class Image:
    """A built image: its configuration, and its files in a folder."""

    config: dict[str, Any]
    root: Path

    @property
    def packages(self) -> Path:
        return self.root / f"opt/poller/lib/python{PYTHON}/site-packages"

    def command(
        self,
        words: list[str],
        *,
        state: Path,
        queries: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Return the command that runs `words` as the image's user, with its environment and `env`.

        `state` is its state directory; `queries`, a folder, is mounted over those of the image.
        """
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in (env or {}).items())]
        places = [self.root, state, queries or self.root / "etc/poller/queries"]
        enter = ["/usr/bin/unshare", "--mount", "/bin/sh", "-euc", _ENTER, "sh", *map(str, places)]
        return ["/usr/bin/env", "-i", *variables, *enter, self.config["User"], *words]

    def ask(self, words: list[str], *, state: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(words, state=state), capture_output=True, text=True, timeout=120)

    def start(self, start_process: Callable[..., Process], **arguments: Any) -> Process:
        """Run the image as an engine does: ENTRYPOINT and CMD."""
        words = [*self.config["Entrypoint"], *self.config["Cmd"]]
        return start_process(self.command(words, **arguments))


@contextmanager
def built(folder: Path) -> Iterator[Image]:
    """Build the Dockerfile; downloads are stored in the user's cache for later runs."""
    folder.mkdir()
    build_base, runtime_base = _bases()
    wheels = _wheels()
    buildah = _Buildah(folder)
    pip = folder / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    try:
        buildah.load(build_base, "build")
        buildah.load(runtime_base, "runtime")
        buildah.run(
            *("build", "--quiet", "--format", "docker", "--isolation", "chroot", "--tag", "localhost/poller"),
            *("--build-arg", "BUILD_IMAGE=localhost/build", "--build-arg", "RUNTIME_IMAGE=localhost/runtime"),
            *("--secret", f"id=pip,src={pip}", "--volume", f"{wheels}:/wheels:ro", str(ROOT)),
        )
        config = json.loads(buildah.run("inspect", "--type", "image", "localhost/poller"))["Docker"]["config"]
        container = buildah.run("from", "--pull-never", "localhost/poller")
        yield Image(config, Path(buildah.run("mount", container)))
    finally:
        buildah.close()


class _Buildah:
    """A private, temporary store of images: with overlaid layers if possible, else with copies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._driver = "overlay"
        trial = [("from", "--name", "trial", "scratch"), ("mount", "trial")]
        if any(self._try(*words).returncode for words in trial):
            self._driver = "vfs"

    def run(self, *words: str) -> str:
        done = self._try(*words)
        assert done.returncode == 0, f"buildah {words[0]}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def _try(self, *words: str) -> subprocess.CompletedProcess[str]:
        store = self._folder / self._driver
        places = ["--root", str(store), "--runroot", f"{store}-run", "--storage-driver", self._driver]
        return subprocess.run(
            ["buildah", *places, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    def load(self, tree: Path, name: str) -> None:
        """Make an image of a tar file."""
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(tree), "/")
        self.run("commit", "--quiet", "--rm", container, f"localhost/{name}")

    def close(self) -> None:
        self._try("umount", "--all")
        shutil.rmtree(self._folder, ignore_errors=True)


def _bases() -> tuple[Path, Path]:
    """Return the base trees for the build and the run, as tar files."""
    hook = 'cat "$1"/usr/share/ca-certificates/mozilla/*.crt > "$1"/etc/ssl/certs/ca-certificates.crt'

    def make(folder: Path) -> None:
        tree = folder / "build.tar"
        _network(
            *("mmdebstrap", "--quiet", "--mode=root", "--variant=extract", f"--include={_PACKAGES}"),
            *(f"--extract-hook={hook}", SUITE, str(tree)),
        )
        with tarfile.open(tree) as whole, tarfile.open(folder / "runtime.tar", "w") as bare:
            for member in whole:
                name = member.name.removeprefix("./")
                if not name.startswith(_NOT_TO_RUN_ON) or name.startswith("usr/bin/python3"):
                    bare.addfile(member, whole.extractfile(member) if member.isreg() else None)

    folder = _cached(f"base {SUITE} {_PACKAGES} {hook} {_NOT_TO_RUN_ON}", make)
    return folder / "build.tar", folder / "runtime.tar"


def _wheels() -> Path:
    """Return the pinned wheels for the image's Python, from the index that pip is configured with."""

    def make(folder: Path) -> None:
        platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 28)]
        for pinned in (REQUIREMENTS, BUILD_REQUIREMENTS):
            _network(
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
                *("--only-binary=:all:", f"--python-version={PYTHON}", *platforms),
                *("--dest", str(folder), "--requirement", str(pinned)),
            )

    return _cached(f"wheels {PYTHON} {REQUIREMENTS.read_text()} {BUILD_REQUIREMENTS.read_text()}", make)


def _network(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command[0]}: {done.stdout}\n{done.stderr}"


def _cached(inputs: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` filled, now or earlier; `inputs` identifies its dependencies."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "obscura-poller-tests"
    cache.mkdir(parents=True, exist_ok=True)
    kind, digest = inputs.split(" ", 1)[0], hashlib.sha256(inputs.encode()).hexdigest()[:12]
    folder = cache / f"{kind}-{digest}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            for old in cache.glob(f"{kind}-*"):
                if time.time() - old.stat().st_mtime > _KEEP_SECONDS:
                    shutil.rmtree(old)
            new = cache / f"new-{kind}"
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            make(new)
            new.rename(folder)
    return folder
