"""Clearing of the environment, markers, and the plugins in tests/bed."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

_OURS = ("PG", "OTEL_", "POLLER_", "OBSCURA_")
_READ_BY_LIBRARIES = {
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES"),
    # requests prefers these to the certificate authority of an exporter.
    *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
}

# Before any import, because libpq, the OpenTelemetry SDK and gRPC read some of these when they are loaded. A
# proxy would intercept the requests of a test to its receiver.
for _name in list(os.environ):
    if _name.startswith(_OURS) or _name in _READ_BY_LIBRARIES or _name.lower().endswith("_proxy"):
        del os.environ[_name]

# If the environment forbids bytecode files, each of a thousand processes would compile the poller again.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# The tests start servers as another account, which requires a real fork. gRPC would start its threads in the
# child and end it before it executes the server (gRPC 1.85). Processes of the tests do not inherit this.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

# Each worker takes its ports from a different range. Otherwise a test in another worker could take the port
# of a server that is down for a moment.
if _worker := os.environ.get("PYTEST_XDIST_WORKER"):
    from poller.receiver.ports import take_share

    take_share(int(_worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))

# A script that runs the tests in the background, or under nohup, ignores these signals, and every process of
# the tests would inherit that. Ctrl-C ends a process
# only if it does not ignore SIGINT.
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

# A busy machine must not fail a test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

pytest_plugins = [
    "tests.bed.versions",
    "tests.bed.golden",
    "tests.bed.postgres",
    "tests.bed.messaging",
    "tests.bed.otlp",
    "tests.bed.process",
    "tests.bed.proxy",
    "tests.bed.replica",
    "tests.bed.role",
    "tests.bed.served",
    "tests.bed.terminal",
    "tests.bed.pgbouncer",
    "tests.bed.pushes",
    "tests.bed.s3",
]


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> Iterator[None]:
    """Discard the secrets that a test registered: they would be masked in the output of all later tests."""
    from poller.model.redaction import forget

    yield
    forget()


@pytest.fixture(autouse=True)
def _environment_of_other_tests() -> Iterator[None]:
    """Remove the variables that `poller.events` sets for the packages that it loads."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]


_MARKS = {
    "postgres": {"pg_bin", "site", "Cluster"},
    "process": {
        "subprocess",
        "multiprocessing",
        "start_process",
        "on_terminal",
        "s3_endpoint",
        "LoaderProcess",
    },
}
"""Fixtures, modules and classes that give a test each mark."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its needs, so that `-m "not postgres and not process"` selects the fast ones."""
    used: dict[object, set[str]] = {}
    for item in items:
        if isinstance(item, pytest.Function):
            names = set(item.fixturenames) | _names_of(item.function, used)
            for fixture in item.fixturenames:
                names |= _names_of(getattr(item.module, fixture, None), used)
            for mark, needed in _MARKS.items():
                if names & needed:
                    item.add_marker(mark)


def _names_of(thing: object, used: dict[object, set[str]]) -> set[str]:
    """Return all names that a function, a class or a fixture of the tests uses, directly or indirectly."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    if not str(getattr(thing, "__module__", None)).startswith("tests."):
        return set()
    if thing not in used:
        used[thing] = set()
        functions = vars(thing).values() if isinstance(thing, type) else [thing]
        for function in map(inspect.unwrap, filter(callable, functions)):
            codes = [function.__code__] if hasattr(function, "__code__") else []
            for code in codes:
                codes += [constant for constant in code.co_consts if inspect.iscode(constant)]
                used[thing] |= set(code.co_names)
            for name in tuple(used[thing]):
                used[thing] |= _names_of(getattr(function, "__globals__", {}).get(name), used)
    return used[thing]
