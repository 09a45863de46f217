"""The image is linted, built, and run as its own user on a read-only root."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from poller.config.queries.files import files_of
from poller.receiver.receiver import Receiver
from tests.bed import image as bed
from tests.bed.image import Image, built
from tests.bed.licences import LICENCES, START, table
from tests.bed.messaging import MessagingServer
from tests.bed.pins import (
    BUILD_REQUIREMENTS,
    CONSTRAINTS,
    KUBERNETES_REQUIREMENTS,
    REQUIREMENTS,
    pins,
    unmet,
    wanted,
)
from tests.bed.process import ROOT, Process, eventually

pytestmark = pytest.mark.image

NOTHING_BUT = "proc", "dev", "var/lib/poller"
_WRITABLE = """
import os, sys
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name)[1:] not in sys.argv[1:]]
    for name in [".", *files]:
        path = os.path.join(folder, name)
        if os.access(path, os.W_OK) and not os.path.islink(path):
            print(path)
"""


def test_the_dockerfile_passes_hadolint() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "hadolint", "--no-color", "Dockerfile"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_pins_satisfy_pyproject() -> None:
    """deploy/image/pin.sh regenerates all four files."""
    assert unmet(wanted("http"), pins(REQUIREMENTS)) == []
    assert unmet(wanted("http", "kubernetes"), pins(KUBERNETES_REQUIREMENTS)) == []
    assert pins(KUBERNETES_REQUIREMENTS).items() >= pins(REQUIREMENTS).items()
    assert unmet(wanted("dev"), pins(CONSTRAINTS)) == []
    assert list(pins(BUILD_REQUIREMENTS)) != []


def test_every_pin_of_the_image_has_hashes_and_no_index() -> None:
    for file in (REQUIREMENTS, KUBERNETES_REQUIREMENTS, BUILD_REQUIREMENTS):
        text = file.read_text(encoding="utf-8")
        assert "://" not in text
        assert "--index" not in text
        for block in text.replace("\\\n", " ").splitlines():
            assert not block.strip() or block.lstrip().startswith("#") or "--hash=sha256:" in block, block


def test_the_list_of_licences_names_each_pinned_package() -> None:
    rows = [row.split(" | ") for row in LICENCES.read_text(encoding="utf-8").partition(START)[2].splitlines()]
    listed = {row[0].strip("| "): row[1] for row in rows if len(row) == 4}
    assert listed.items() >= {name: str(version) for name, version in pins(REQUIREMENTS).items()}.items()
    assert not any("unknown" in row[2] for row in rows if len(row) == 4)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    bed.need_builder()
    with built(tmp_path / "buildah") as image:
        yield image


@pytest.mark.timeout(900)
def test_the_image_builds_and_polls_with_only_its_state_folder_writable(
    image: Image,
    server: MessagingServer,
    receiver: Receiver,
    start_process: Callable[..., Process],
    tmp_path: Path,
) -> None:
    """A single test, because the image is built only once."""
    looks_as_documented(image)
    holds_only_pinned_packages(image)
    is_as_large_as_stated(image)
    state = owned_folder(tmp_path / "state", image)
    writes_nowhere_else(image, state)
    polls_pushes_and_ends_in_order(image, server, receiver, start_process, state)
    polls_mounted_queries(image, server, receiver, start_process, tmp_path)


def looks_as_documented(image: Image) -> None:
    config = image.config
    user, _, group = config["User"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert config["Entrypoint"] == ["poller"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "poller", "health"]
    assert list(config["Volumes"]) == ["/var/lib/poller"]
    labels = {name.rpartition(".")[2]: value for name, value in config["Labels"].items()}
    assert labels["licenses"] == "Apache-2.0"
    assert labels["title"] == "obscura-poller"
    shipped = {file.name: file.read_text() for file in files_of(ROOT / "queries")}
    assert {f.name: f.read_text() for f in (image.root / "etc/poller/queries").iterdir()} == shipped


def holds_only_pinned_packages(image: Image) -> None:
    installed = {canonicalize_name(d.metadata["Name"]): d for d in distributions(path=[str(image.packages)])}
    pinned = pins(REQUIREMENTS)
    assert installed.keys() == {*pinned, "obscura-poller"}
    required = [Requirement(text) for package in installed.values() for text in package.requires or []]
    assert unmet(required, pinned) == []
    assert pinned.keys() <= {
        canonicalize_name(requirement.name) for requirement in [*required, *wanted("http")]
    }
    assert table(image.packages) == LICENCES.read_text(encoding="utf-8").partition(START)[2].strip()
    assert {file.name for file in (image.root / "opt/poller/bin").iterdir() if not file.is_symlink()} == {
        "poller"
    }
    for file in (image.root / "opt").rglob("*"):
        mode = file.lstat().st_mode
        assert stat.S_ISLNK(mode) or not mode & (stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID), file


def is_as_large_as_stated(image: Image) -> None:
    stated = re.search(
        r"`/opt/poller` is (\d+) MB", (ROOT / "deploy/image/README.md").read_text(encoding="utf-8")
    )
    assert stated is not None
    files = (file.lstat() for file in (image.root / "opt/poller").rglob("*") if not file.is_dir())
    assert sum(file.st_size for file in files) / 1e6 == pytest.approx(int(stated[1]), rel=0.1)


def owned_folder(folder: Path, image: Image) -> Path:
    """Return an empty state directory that belongs to the user of the image, like a volume."""
    folder.mkdir()
    user, _, group = image.config["User"].partition(":")
    os.chown(folder, int(user), int(group))
    return folder


def writes_nowhere_else(image: Image, state: Path) -> None:
    in_image = (image.root / "var/lib/poller").stat()
    assert f"{in_image.st_uid}:{in_image.st_gid}" == image.config["User"], (
        "a volume gets the owner of the folder"
    )
    done = image.ask(["/opt/poller/bin/python3", "-c", _WRITABLE, *NOTHING_BUT], state=state)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for writes in ("sh", "bash", "pip", "cc"):
        done = image.ask([writes], state=state)
        assert done.returncode == 127, f"the image contains {writes}"


def polls_pushes_and_ends_in_order(
    image: Image,
    server: MessagingServer,
    receiver: Receiver,
    start_process: Callable[..., Process],
    state: Path,
) -> None:
    settings = {
        "POLLER_DATABASE_URL": server.standby_dsn,
        "POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint,
        "POLLER_INTERVAL": "1s",
        "POLLER_TIMEOUT": "1s",
        "POLLER_EXPORT_INTERVAL": "1s",
    }
    daemon = image.start(start_process, state=state, env=settings)
    arrives({"users_total", "attachments_total_bytes"}, receiver, daemon)
    assert Path(f"/proc/{daemon.pid}/status").read_text().split("Uid:")[1].split()[0] == "65532"
    health = image.config["Healthcheck"]["Test"][1:]
    assert eventually(lambda: image.ask(health, state=state).returncode == 0), daemon
    assert eventually(lambda: image.ask([*health, "--ready"], state=state).returncode == 0), daemon
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0, daemon
    done = image.ask(health, state=state)
    assert done.returncode == 1, done
    assert any(state.iterdir()), "the last good values are stored"


def polls_mounted_queries(
    image: Image,
    server: MessagingServer,
    receiver: Receiver,
    start_process: Callable[..., Process],
    tmp_path: Path,
) -> None:
    """The exports use HTTP."""
    queries = tmp_path / "queries"
    queries.mkdir()
    own = {
        "name": "own",
        "sql": "SELECT 7 AS n",
        "metrics": [{"name": "own", "description": "Of a volume.", "unit": "{thing}", "value_column": "n"}],
    }
    (queries / "own.yaml").write_text(json.dumps({"queries": [own]}))
    receiver.clear()
    daemon = image.start(
        start_process,
        state=owned_folder(tmp_path / "another", image),
        queries=queries,
        env={"POLLER_DATABASE_URL": server.standby_dsn, "POLLER_OTLP_ENDPOINT": receiver.http_endpoint,
             "POLLER_OTLP_PROTOCOL": "http/protobuf"},
    )  # fmt: skip
    arrives({"own"}, receiver, daemon)
    assert not receiver.points("users_total")
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0, daemon


def arrives(metrics: set[str], receiver: Receiver, daemon: Process) -> None:
    try:
        receiver.wait_for(lambda points: metrics <= {point.metric for point in points}, 90)
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{daemon}") from None
