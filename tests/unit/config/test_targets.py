"""Every mistake in a targets file is reported, with its place and the correct form, and without a secret."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from poller.config.load_settings import load as load_settings
from poller.config.queries.schema.json_schema import as_text
from poller.config.targets.json_schema import schema
from poller.config.targets.load import load_targets
from poller.config.yaml_file import read
from poller.model.errors import ConfigError
from poller.model.secrets import Secret
from poller.model.target import Databases, Target
from tests.bed.golden import Golden
from tests.bed.process import ROOT

FILES = ROOT / "tests" / "targets"
MISTAKES = [path.stem.removeprefix("invalid-") for path in sorted(FILES.glob("invalid-*.yaml"))]
SECRET = "hunter2"


def loaded(source: Path, **environ: str) -> dict[str, Target]:
    targets = load_targets(
        source, load_settings({f"POLLER_{name}": value for name, value in environ.items()})
    )
    return {target.name: target for target in targets}


def problems(source: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(source)
    return [str(problem) for problem in caught.value.problems]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("reason", MISTAKES)
def test_each_mistake_is_reported_as_in_its_golden_file(
    reason: str, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pytest --update` writes `invalid-<reason>.txt`."""
    monkeypatch.chdir(FILES)  # paths are printed unchanged
    lines = problems(Path(f"invalid-{reason}.yaml"))
    assert SECRET not in "\n".join(lines)
    golden(FILES / f"invalid-{reason}.txt", "".join(f"{line}\n" for line in lines))


def test_every_golden_file_belongs_to_an_invalid_file() -> None:
    assert {path.stem for path in FILES.glob("*.txt")} == {f"invalid-{reason}" for reason in MISTAKES}


def test_keys_that_a_target_omits_come_from_the_defaults_and_then_from_the_settings(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        a="defaults: {connections: 3, lock_timeout: 2s, strict: true}\n"
        "targets: [{name: a, url: host=a, lock_timeout: 3s}, {name: b, url: host=b}]\n",
        b="targets: [{name: c, url: host=c}]\n",
    )
    targets = loaded(
        file, CONNECT_TIMEOUT="4s", LOCK_TIMEOUT="5s", REQUIRE_STANDBY="true", MAX_REPLAY_LAG="9s"
    )
    assert [(t.connections, t.lock_timeout, t.strict) for t in targets.values()] == [
        (3, 3.0, True), (3, 2.0, True), (1, 5.0, False),
    ]  # fmt: skip
    assert {(t.connect_timeout, t.require_standby, t.max_replay_lag) for t in targets.values()} == {
        (4.0, "true", 9.0)
    }


def test_a_target_can_switch_off_a_limit_of_the_settings(tmp_path: Path) -> None:
    file = write(
        tmp_path, a="targets: [{name: a, url: host=a, max_replay_lag: null, require_standby: false}]\n"
    )
    target = loaded(file, MAX_REPLAY_LAG="9s", REQUIRE_STANDBY="true")["a"]
    assert (target.max_replay_lag, target.require_standby) == (None, "false")


def test_every_key_is_loaded() -> None:
    targets = loaded(FILES / "valid-complete.yaml")
    assert targets["eu-1"] == Target(
        name="eu-1",
        url_file=Path("/run/secrets/eu-1/url"),
        password_command=Secret("aws rds generate-db-auth-token --hostname eu-1"),
        tags=("messaging", "eu", "2024"),
        resource={"deployment.environment.name": "prod", "team": "chat"},
        attributes={"region": "eu", "zone": 1, "active": True, "share": 0.5},
        connect_timeout=0.25,
        lock_timeout=2.0,
        require_standby="true",
        max_replay_lag=60.0,
        max_active_backends=50,
        strict=True,
    )
    assert targets["tenants"].databases == Databases(include=("t_*",), exclude=("t_test_*",), limit=10_000)
    assert targets["7"].databases == Databases()
    assert targets["7"].require_standby == "false"


def test_a_password_of_a_target_replaces_every_password_of_the_defaults() -> None:
    target = loaded(FILES / "valid-complete.yaml")["eu-2"]
    assert target.password_command is None
    assert target.password_file == FILES / "secrets" / "eu-2"  # relative to the targets file


def test_a_name_used_in_two_files_is_reported_with_both_places(tmp_path: Path) -> None:
    write(
        tmp_path,
        a="targets:\n  - {name: a, url: host=a}\n",
        b="targets:\n  - {name: a, url: host=b, connections: 0}\n",
    )
    assert problems(tmp_path) == [
        f"{tmp_path}/b.yaml:2: targets[0].connections: 0 is less than 1; write 1 to 64",
        f"{tmp_path}/b.yaml:2: targets[0].name: is also the name at {tmp_path}/a.yaml:2; rename one",
    ]


def test_a_folder_reports_the_problems_of_all_its_files(tmp_path: Path) -> None:
    for reason in ("numbers", "switches"):
        shutil.copy(FILES / f"invalid-{reason}.yaml", tmp_path)
    lines = [
        f"{tmp_path}/{line}"
        for reason in ("numbers", "switches")
        for line in (FILES / f"invalid-{reason}.txt").read_text(encoding="utf-8").splitlines()
    ]
    assert [line for line in problems(tmp_path) if "is also the name" not in line] == lines


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "does not exist; write a folder of targets files, or a file"),
        ("", "contains no targets file; add a *.yaml file, or write another folder"),
    ],
)
def test_a_file_that_does_not_exist_and_an_empty_folder_are_errors(
    tmp_path: Path, name: str, message: str
) -> None:
    assert problems(tmp_path / name) == [f"{tmp_path / name}: {message}"]


def test_the_number_of_targets_is_limited(tmp_path: Path) -> None:
    for part in range(2):
        items = "".join(f"- {{name: t{part}-{number}, url: host=h}}\n" for number in range(5001 - part))
        write(tmp_path, **{f"part-{part}": f"targets:\n{items}"})
    assert problems(tmp_path) == [
        f"{tmp_path}/part-1.yaml:5001: targets[4999]: is target 10,001; write at most 10,000"
    ]


PLANTED = "Tr0ub4dor-secret!"
URLS = [
    f"postgresql://u:{PLANTED}@h/db", f"postgresql://u@h/db?password={PLANTED}", f"host=h password={PLANTED}",
    f"host=h password='{PLANTED}", f"postgresql://u:{PLANTED}/db", f"mysql://u:{PLANTED}@h", PLANTED,
    f"postgresql://h/db?options=-c%20x.y%3D{PLANTED}", f"postgresql://u:p@{PLANTED}@h/db", f"!{PLANTED}",
    f"*{PLANTED}", f"{PLANTED}: {PLANTED}", f"[{PLANTED}", f"{{{PLANTED}}}", f"- {PLANTED}", f'"{PLANTED}',
]  # fmt: skip
KEYS = [
    "name", "url", "url_file", "password_file", "password", "tags", "resource", "connections", "databases",
    "require_standby", "max_replay_lag", "connect_timeout", "max_active_backends", "strict", "attributes",
    f"password:{PLANTED}", PLANTED, f'"postgresql://u:{PLANTED}@h/db"',
]  # fmt: skip


@given(
    keys=st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(URLS), st.booleans()), min_size=1, max_size=4
    ),
    prefix=st.sampled_from(["targets:\n  - ", "defaults:\n    ", "targets:\n    "]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_no_message_contains_a_password_in_any_place(
    keys: Sequence[tuple[str, str, bool]], prefix: str, tmp_path: Path
) -> None:
    entries = [
        f"{key}: {yaml.dump(value).removesuffix('...') if quoted else value}" for key, value, quoted in keys
    ]
    text = prefix + "    ".join(f"{entry.rstrip()}\n" for entry in entries)
    file = tmp_path / "t.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        output = repr(loaded(file))
    except ConfigError as error:
        output = f"{error} {error.problems!r}"
    public = ("name", "attributes", "resource")  # a valid value is exported
    if not any(key in public and value == PLANTED for key, value, _ in keys):
        assert PLANTED not in output, text


@pytest.mark.parametrize(
    "url",
    [
        "host=h",
        "postgresql://u@h1,h2:5433/db?sslmode=verify-full&target_session_attrs=standby",
        "postgres://h",
        "postgresql:///db?host=/run/postgresql",
        "service=eu",
        "host='a b' user=me@example.org passfile=/run/pgpass",
    ],
)
def test_a_connection_string_without_a_secret_is_accepted(tmp_path: Path, url: str) -> None:
    file = write(tmp_path, a=yaml.dump({"targets": [{"name": "a", "url": url}]}))
    assert loaded(file)["a"].conninfo() == url


GOOD = sorted(FILES.glob("valid-*.yaml"))
ONLY_CHECK_SEES = {
    # YAML mistakes, contents of texts and numbers, and keys and targets that contradict each other.
    "attribute-value-huge", "databases-forget", "duplicate-key", "name-twice",
    "resource-label", "url-of-another-system", "url-password", "url-port",
}  # fmt: skip


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(schema())


def is_accepted(validator: Draft202012Validator, path: Path) -> bool:
    document = read(path)
    assert not isinstance(document, str), document
    return bool(validator.is_valid(document.data))


def test_the_schema_is_valid_and_the_packaged_file_is_current() -> None:
    """`poller schema --targets --write poller/targets.schema.json` writes it."""
    Draft202012Validator.check_schema(schema())
    assert (ROOT / "poller" / "targets.schema.json").read_text(encoding="utf-8") == as_text(schema())


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_the_schema_accepts_what_the_loader_accepts(path: Path, validator: Draft202012Validator) -> None:
    assert loaded(path)
    assert is_accepted(validator, path)


@pytest.mark.parametrize("reason", MISTAKES)
def test_the_schema_rejects_what_the_loader_rejects(reason: str, validator: Draft202012Validator) -> None:
    accepted = is_accepted(validator, FILES / f"invalid-{reason}.yaml")
    assert accepted is (reason in ONLY_CHECK_SEES)


def test_every_key_is_described_and_has_a_valid_example_and_a_default_unless_it_is_required() -> None:
    document = schema()
    for part in (document, *document["$defs"].values()):
        for key, definition in part["properties"].items():
            assert definition["description"].endswith("."), key
            required = key in part.get("required", ())
            assert ("default" in definition) is not required, key
            alone = Draft202012Validator({"$defs": document["$defs"], **definition})
            for example in [*definition["examples"], *([] if required else [definition["default"]])]:
                assert alone.is_valid(example), (key, example)
