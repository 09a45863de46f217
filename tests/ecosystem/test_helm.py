"""The Helm chart: linted and rendered by the real Helm, and compared with what kustomize builds."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import kubernetes_validate
import pytest
import yaml

from poller.config.settings import SETTINGS
from poller.receiver.receiver import Receiver
from tests.bed.documentation import all_blocks
from tests.bed.messaging import MessagingServer
from tests.bed.process import ROOT, Process
from tests.ecosystem.manifests import (
    CHART,
    ELECTION,
    IMAGE,
    NAMESPACE,
    PERSISTENCE,
    REQUIRED,
    SHARDS,
    TARGETS,
    VERSION,
    Manifest,
    build,
    environment,
    helm,
    mount,
    pod,
    poller,
    queries,
    run_helm,
    workloads,
)
from tests.ecosystem.test_kubernetes import API_VERSION

SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
DIGEST = f"sha256:{'0' * 64}"
SPEC = "Deployment.spec.template.spec"
CONTAINER = f"{SPEC}.containers.poller"
ENV = f"{CONTAINER}.env"
VOLUMES = f"{SPEC}.volumes"
CLAIM = "PersistentVolumeClaim"
EGRESS = "NetworkPolicy.spec.egress"


def flatten(value: object, path: str) -> Iterator[tuple[str, object]]:
    """Yield the path and the value of each leaf; an item of a list has its `name`, else its number."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from flatten(item, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            key = item["name"] if isinstance(item, dict) and "name" in item else number
            yield from flatten(item, f"{path}.{key}")
    else:
        yield path, value


def flat(manifests: list[Manifest]) -> dict[str, object]:
    """Return the leaves of all manifests.

    Each path begins with the kind; that of a ConfigMap or a second StatefulSet also with the end of its name.
    """
    ends = [(m["kind"], m["metadata"]["name"].rpartition("-")[2]) for m in manifests]
    names = [f"{kind}-{end}" if end in ("queries", "targets", "b") else kind for kind, end in ends]
    assert len(set(names)) == len(names)
    return dict(
        leaf for name, manifest in zip(names, manifests, strict=True) for leaf in flatten(manifest, name)
    )


# --- The chart itself ---


def test_the_chart_has_the_version_of_the_poller() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


@pytest.mark.parametrize("values", [{}, REQUIRED], ids=["defaults", "required values"])
def test_lint_finds_no_fault(values: dict[str, Any], tmp_path: Path) -> None:
    done = run_helm("lint", "--strict", values=[values], folder=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


def test_the_schema_has_every_value_and_every_setting() -> None:
    """A misspelled setting is refused."""

    def keys(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        if "properties" not in schema:
            yield path
            return
        assert schema["additionalProperties"] is False, path
        for name, item in schema["properties"].items():
            yield from keys(item, f"{path}.{name}")

    in_schema = set(keys(SCHEMA))
    settings = {key.removeprefix(".settings.") for key in in_schema if key.startswith(".settings.")}
    assert in_schema - {f".settings.{name}" for name in settings} == {
        *values_of_the_chart(), ".global", ".enabled",
    }  # fmt: skip
    variables = {setting.variables[0] for setting in SETTINGS.values()}
    secrets = {f"{setting.variables[0]}_FILE" for setting in SETTINGS.values() if setting.secret}
    assert settings == variables | secrets


def values_of_the_chart() -> set[str]:
    """Return the paths in values.yaml, where a map that is free in the schema is one value."""
    free = (
        ".queries.files",
        ".targets.files",
        ".settings",
        ".resources",
        ".podSecurityContext",
        ".securityContext",
    )
    paths = {path for path, _ in flatten(DEFAULTS, "") if not path.startswith(free)}
    return {re.sub(r"\.\d+$", "", path) for path in paths} | set(free) - {".settings"}


# --- Compared with kustomize ---


class Difference(NamedTuple):
    """An intended difference: where it is, the value of each side (None: absent), and the reason."""

    path: str
    kustomize: object
    chart: object
    reason: str


_OF_A_RELEASE = "the release names its objects, so that two releases can be in one namespace"
DIFFERENCES = (
    Difference(
        r"[\w-]+\.metadata\.labels\.helm\.sh/chart",
        None,
        f"obscura-poller-{VERSION}",
        "label of Helm's guidelines",
    ),
    Difference(
        r"[\w-]+\.metadata\.labels\.app\.kubernetes\.io/managed-by", None, "Helm", "the same guidelines"
    ),
    Difference(
        r"[\w-]+\.metadata\.labels\.app\.kubernetes\.io/version", None, VERSION, "the same guidelines"
    ),
    Difference(r".*[Ll]abels\.app\.kubernetes\.io/instance", None, "obscura-poller", _OF_A_RELEASE),
    *(
        Difference(path, f"poller-{name}", f"obscura-poller-{name}", _OF_A_RELEASE)
        for name in ("queries", "targets")
        for path in (rf"ConfigMap-{name}\.metadata\.name", rf".*\.volumes\.{name}\.configMap\.name")
    ),
    Difference(
        r"ConfigMap-targets\.metadata\.labels\.app\.kubernetes\.io/name",
        None,
        "obscura-poller",
        "the ConfigMap belongs to the kustomization of the user",
    ),
    Difference(rf"{CLAIM}\.metadata\.name", "poller-state", "obscura-poller-state", _OF_A_RELEASE),
    Difference(
        rf"{VOLUMES}\.state\.persistentVolumeClaim\.claimName",
        "poller-state",
        "obscura-poller-state",
        _OF_A_RELEASE,
    ),
)


def without_settings(manifests: list[Manifest]) -> list[Manifest]:
    """Return the manifests with the poller's variables as a map, and without the ConfigMap of kustomize.

    The chart writes the variables into the pod, because Helm adds no digest to the name of a ConfigMap.
    """
    for manifest in workloads(manifests):
        container = poller(pod([manifest]))
        container["env"] = environment([manifest, *manifests])
        container["env"].pop("NAMESPACE", None)
        container.pop("envFrom", None)
    return [
        manifest for manifest in manifests if not manifest["metadata"]["name"].startswith("poller-settings")
    ]


def test_the_chart_renders_what_kustomize_builds(tmp_path: Path) -> None:
    needed = set()
    for pair in (
        ("standalone", "chart"),
        ("standalone with keep-state", "chart with keep-state"),
        ("shards-example", "chart with shards"),
        ("leader-election-example", "chart with leader-election"),
        ("shards-leader-election-example", "chart with shards and leader-election"),
    ):
        sides = []
        for name in pair:
            folder = tmp_path / name
            folder.mkdir()
            sides.append(flat(without_settings(build(name, folder))))
        ours, theirs = sides
        assert len(ours) > 90
        for path in sorted(ours.keys() | theirs.keys()):
            if ours.get(path) != theirs.get(path):
                values = ours.get(path), theirs.get(path)
                allowed = [row for row in DIFFERENCES if re.fullmatch(row.path, path) and row[1:3] == values]
                assert allowed, f"{path}: kustomize {values[0]!r}, chart {values[1]!r}"
                needed |= set(allowed)
    assert needed == set(DIFFERENCES), "every row is needed"


# --- Every value ---

OPTIONS: list[tuple[str, str, dict[str, object]]] = [
    # value, YAML, leaves of the rendered manifests
    (
        ".fullnameOverride",
        "db-poller",
        {"Deployment.metadata.name": "db-poller", f"{ENV}.POLLER_INSTANCE.value": "db-poller"},
    ),
    (
        ".image.repository",
        "registry.example/mine",
        {f"{CONTAINER}.image": f"registry.example/mine:{VERSION}"},
    ),
    (".image.tag", "'2'", {f"{CONTAINER}.image": f"{IMAGE}:2"}),
    (".image.digest", DIGEST, {f"{CONTAINER}.image": f"{IMAGE}@{DIGEST}"}),
    (".image.pullPolicy", "Always", {f"{CONTAINER}.imagePullPolicy": "Always"}),
    (".imagePullSecrets", "[{name: registry}]", {f"{SPEC}.imagePullSecrets.registry.name": "registry"}),
    (".database.existingSecret", "mine", {f"{VOLUMES}.database.secret.secretName": "mine"}),
    (
        ".database.existingSecretKey",
        "uri",
        {f"{ENV}.POLLER_DATABASE_URL_FILE.value": "/run/secrets/poller/uri"},
    ),
    (".settings.POLLER_INSTANCE", "eu-1", {f"{ENV}.POLLER_INSTANCE.value": "eu-1"}),
    (".settings.POLLER_MAX_SERIES", "1000000", {f"{ENV}.POLLER_MAX_SERIES.value": "1000000"}),
    (".settings.POLLER_MAX_DUTY_CYCLE", "0.05", {f"{ENV}.POLLER_MAX_DUTY_CYCLE.value": "0.05"}),
    (".settings.POLLER_STRICT", "true", {f"{ENV}.POLLER_STRICT.value": "true"}),
    (".settings.POLLER_WATCH", "false", {f"{ENV}.POLLER_WATCH.value": "false"}),
    (".settings.POLLER_LOG_FORMAT", "'say \"\\n'", {f"{ENV}.POLLER_LOG_FORMAT.value": 'say "\\n'}),
    (".settings.POLLER_MAX_REPLAY_LAG", "null", {f"{ENV}.POLLER_MAX_REPLAY_LAG.value": None}),
    (".settings.OTEL_RESOURCE_ATTRIBUTES", "a=b", {f"{ENV}.OTEL_RESOURCE_ATTRIBUTES.value": "a=b"}),
    (
        ".extraEnv",
        "[{name: PGPASSWORD, valueFrom: {secretKeyRef: {name: mine, key: password}}}]",
        {
            f"{ENV}.PGPASSWORD.valueFrom.secretKeyRef.key": "password",
            f"{ENV}.PGPASSWORD.valueFrom.secretKeyRef.name": "mine",
        },
    ),
    (
        ".queries.existingConfigMap",
        "mine",
        {
            f"{VOLUMES}.queries.configMap.name": "mine",
            f"{CONTAINER}.volumeMounts.queries.mountPath": "/etc/poller/queries",
        },
    ),
    (
        ".queries.files",
        '{a.yaml: "queries: []\\n"}',
        {
            "ConfigMap-queries.data.a.yaml": "queries: []\n",
            f"{VOLUMES}.queries.configMap.name": "obscura-poller-queries",
        },
    ),
    (
        ".targets.existingConfigMap",
        "mine",
        {
            f"{VOLUMES}.targets.configMap.name": "mine",
            f"{CONTAINER}.volumeMounts.targets.mountPath": "/etc/poller/targets",
            f"{ENV}.POLLER_TARGETS.value": "/etc/poller/targets",
            f"{ENV}.POLLER_DATABASE_URL_FILE.value": None,
        },
    ),
    (
        ".targets.existingSecret",
        "mine",
        {
            f"{VOLUMES}.targets.secret.secretName": "mine",
            f"{VOLUMES}.targets.secret.defaultMode": 0o440,
            f"{ENV}.POLLER_TARGETS.value": "/etc/poller/targets",
        },
    ),
    (
        ".targets.files",
        '{a.yaml: "targets: []\\n"}',
        {
            "ConfigMap-targets.data.a.yaml": "targets: []\n",
            f"{VOLUMES}.targets.configMap.name": "obscura-poller-targets",
        },
    ),
    (
        ".shards",
        "2",
        {
            "Deployment.kind": None,
            "StatefulSet.spec.replicas": 2,
            "StatefulSet.spec.template.spec.containers.poller.env.POLLER_SHARDS.value": "2",
        },
    ),
    (
        ".leaderElection.enabled",
        "true",
        {
            "Deployment.spec.replicas": 2,
            f"{ENV}.POLLER_LEADER_ELECTION.value": "kubernetes:obscura-poller",
            "Role.rules.0.resourceNames.0": "obscura-poller",
            f"{EGRESS}.3.ports.0.port": 6443,
        },
    ),
    (
        ".leaderElection.lease",
        "mine",
        {
            f"{ENV}.POLLER_LEADER_ELECTION.value": "kubernetes:mine",
            "Role.rules.0.resourceNames.0": "mine",
        },
    ),
    (".state.sizeLimit", "1Gi", {f"{VOLUMES}.state.emptyDir.sizeLimit": "1Gi"}),
    (
        ".state.persistence.enabled",
        "true",
        {
            f"{VOLUMES}.state.persistentVolumeClaim.claimName": "obscura-poller-state",
            f"{VOLUMES}.state.emptyDir.sizeLimit": None,
        },
    ),
    (
        ".state.persistence.existingClaim",
        "mine",
        {f"{VOLUMES}.state.persistentVolumeClaim.claimName": "mine", f"{CLAIM}.kind": None},
    ),
    (".state.persistence.storageClassName", "fast", {f"{CLAIM}.spec.storageClassName": "fast"}),
    (".state.persistence.accessMode", "ReadWriteOnce", {f"{CLAIM}.spec.accessModes.0": "ReadWriteOnce"}),
    (".state.persistence.size", "2Gi", {f"{CLAIM}.spec.resources.requests.storage": "2Gi"}),
    (".networkPolicy.enabled", "false", {"NetworkPolicy.kind": None}),
    (
        ".networkPolicy.dns.ports",
        "[5353]",
        {f"{EGRESS}.0.ports.0.port": 5353, f"{EGRESS}.0.ports.1.port": 5353},
    ),
    (".networkPolicy.dns.to", "[{podSelector: {}}]", {f"{EGRESS}.0.to.0.podSelector": {}}),
    (
        ".networkPolicy.database.ports",
        "[5433]",
        {f"{EGRESS}.1.ports.0.port": 5433, f"{EGRESS}.1.ports.1.port": None},
    ),
    (
        ".networkPolicy.database.to",
        "[{ipBlock: {cidr: 10.0.0.5/32}}]",
        {f"{EGRESS}.1.to.0.ipBlock.cidr": "10.0.0.5/32"},
    ),
    (
        ".networkPolicy.collector.ports",
        "[443]",
        {f"{EGRESS}.2.ports.0.port": 443, f"{EGRESS}.2.ports.1.port": None},
    ),
    (".networkPolicy.collector.to", "[{namespaceSelector: {}}]", {f"{EGRESS}.2.to.0.namespaceSelector": {}}),
    (".networkPolicy.apiServer.ports", "[443]", {f"{EGRESS}.3.ports.0.port": 443}),
    (
        ".networkPolicy.apiServer.to",
        "[{ipBlock: {cidr: 10.0.0.1/32}}]",
        {f"{EGRESS}.3.to.0.ipBlock.cidr": "10.0.0.1/32"},
    ),
    (".networkPolicy.extraEgress", "[{ports: [{port: 8443}]}]", {f"{EGRESS}.3.ports.0.port": 8443}),
    (
        ".serviceAccount.create",
        "false",
        {"ServiceAccount.kind": None, f"{SPEC}.serviceAccountName": "default"},
    ),
    (
        ".serviceAccount.name",
        "mine",
        {"ServiceAccount.metadata.name": "mine", f"{SPEC}.serviceAccountName": "mine"},
    ),
    (".serviceAccount.annotations", "{a: b}", {"ServiceAccount.metadata.annotations.a": "b"}),
    (".resources", "{limits: {memory: 1Gi}}", {f"{CONTAINER}.resources.limits.memory": "1Gi"}),
    (".podSecurityContext", "{fsGroup: 7}", {f"{SPEC}.securityContext.fsGroup": 7}),
    (".securityContext", "{runAsUser: 7}", {f"{CONTAINER}.securityContext.runAsUser": 7}),
    (".terminationGracePeriodSeconds", "60", {f"{SPEC}.terminationGracePeriodSeconds": 60}),
    (".priorityClassName", "low", {f"{SPEC}.priorityClassName": "low"}),
    (".nodeSelector", "{disk: ssd}", {f"{SPEC}.nodeSelector.disk": "ssd"}),
    (".tolerations", "[{key: spot, operator: Exists}]", {f"{SPEC}.tolerations.0.key": "spot"}),
    (".affinity", "{nodeAffinity: {}}", {f"{SPEC}.affinity.nodeAffinity": {}}),
    (".podLabels", "{team: data}", {"Deployment.spec.template.metadata.labels.team": "data"}),
    (".podAnnotations", "{a: b}", {"Deployment.spec.template.metadata.annotations.a": "b"}),
    (".extraVolumes", "[{name: ca, secret: {secretName: ca}}]", {f"{VOLUMES}.ca.secret.secretName": "ca"}),
    (".extraVolumeMounts", "[{name: ca, mountPath: /ca}]", {f"{CONTAINER}.volumeMounts.ca.mountPath": "/ca"}),
]
NEEDED = {
    ".state.persistence.existingClaim": PERSISTENCE,
    ".state.persistence.storageClassName": PERSISTENCE,
    ".state.persistence.accessMode": PERSISTENCE,
    ".state.persistence.size": PERSISTENCE,
    ".shards": TARGETS,
    ".leaderElection.enabled": TARGETS,
    ".leaderElection.lease": ELECTION,
    ".networkPolicy.apiServer.ports": ELECTION,
    ".networkPolicy.apiServer.to": ELECTION,
}
"""Values without which another one has no effect."""


def value(path: str, text: str) -> dict[str, Any]:
    """Return the values with one key."""
    content: Any = yaml.safe_load(text)
    for key in reversed(path.split(".")[1:]):
        content = {key: content}
    return dict(content)


@pytest.mark.parametrize(("path", "text", "rendered"), OPTIONS, ids=[path[1:] for path, *_ in OPTIONS])
def test_a_value_has_its_effect(path: str, text: str, rendered: dict[str, object], tmp_path: Path) -> None:
    more = NEEDED.get(path, {})
    before = flat(helm(REQUIRED, more, folder=tmp_path))
    manifests = helm(REQUIRED, more, value(path, text), folder=tmp_path)
    after = flat(manifests)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, API_VERSION, strict=True)
    assert {leaf: after.get(leaf) for leaf in rendered} == rendered
    assert all(before.get(leaf) != after.get(leaf) for leaf in rendered)


def test_every_value_is_tested() -> None:
    tested = {path for path, *_ in OPTIONS if not path.startswith(".settings.")}
    assert {*tested, ".database.url"} == values_of_the_chart()


def test_the_chart_creates_a_secret_for_a_url(tmp_path: Path) -> None:
    url = 'postgresql://poller:"$1@replica/app'
    manifests = helm({"image": REQUIRED["image"], "database": {"url": url}}, folder=tmp_path)
    leaves = flat(manifests)
    assert leaves["Secret.stringData.database_url"] == url
    assert leaves[f"{VOLUMES}.database.secret.secretName"] == leaves["Secret.metadata.name"]
    assert leaves[f"{ENV}.POLLER_DATABASE_URL_FILE.value"] == "/run/secrets/poller/database_url"
    assert url not in str(pod(manifests))


def test_without_query_files_the_poller_uses_those_of_the_image(tmp_path: Path) -> None:
    manifests = helm(REQUIRED, folder=tmp_path)
    assert "ConfigMap" not in [manifest["kind"] for manifest in manifests]
    assert "/etc/poller/queries" not in str(pod(manifests))


def test_targets_need_no_secret(tmp_path: Path) -> None:
    manifests = helm({"image": REQUIRED["image"]}, TARGETS, folder=tmp_path)
    assert [volume["name"] for volume in pod(manifests)["volumes"]] == ["targets", "state"]
    assert [mount["name"] for mount in poller(pod(manifests))["volumeMounts"]] == ["targets", "state"]


def test_the_second_pod_of_a_shard_has_a_name_that_leaves_space_for_a_digest(tmp_path: Path) -> None:
    manifests = helm(REQUIRED, SHARDS, ELECTION, folder=tmp_path, release="r" * 53)
    names = [manifest["metadata"]["name"] for manifest in manifests if manifest["kind"] == "StatefulSet"]
    assert names == ["r" * 52, f"{'r' * 50}-b"]


@pytest.mark.parametrize(
    ("release", "name"),
    [("poller", "poller-obscura-poller"), ("my-obscura-poller", "my-obscura-poller"), ("r" * 53, "r" * 52)],
)
def test_objects_have_the_name_of_the_release(release: str, name: str, tmp_path: Path) -> None:
    values = {"image": REQUIRED["image"], "database": {"url": "postgresql://replica/app"}}
    manifests = helm(values, queries(), PERSISTENCE, folder=tmp_path, release=release)
    suffixes = {"Secret": "-database", "ConfigMap": "-queries", "PersistentVolumeClaim": "-state"}
    assert len(manifests) == 6
    for manifest in manifests:
        assert manifest["metadata"]["name"] == name + suffixes.get(manifest["kind"], "")
        assert manifest["metadata"]["namespace"] == NAMESPACE
        assert len(manifest["metadata"]["name"]) <= 63
        kubernetes_validate.validate(manifest, API_VERSION, strict=True)


def test_another_chart_can_depend_on_the_chart(tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    shutil.copytree(CHART, parent / "charts" / "obscura-poller")
    (parent / "Chart.yaml").write_text("{apiVersion: v2, name: parent, version: 1.0.0}", encoding="utf-8")
    values = {"obscura-poller": REQUIRED, "global": {"registry": "registry.example"}}
    manifests = helm(values, folder=tmp_path, chart=parent)
    assert poller(pod(manifests))["image"] == f"{IMAGE}:{VERSION}"


@pytest.mark.parametrize(
    ("values", "name"), [({}, "deploy/db-obscura-poller"), (SHARDS, "db-obscura-poller-0")]
)
def test_the_notes_name_the_pod(values: dict[str, Any], name: str, tmp_path: Path) -> None:
    arguments = "install", "db", f"--namespace={NAMESPACE}", "--dry-run=client"
    done = run_helm(*arguments, values=[REQUIRED, values], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:\n")[2]
    assert f"kubectl -n {NAMESPACE} exec {name} -- poller doctor" in notes


# --- Mistakes ---

MISTAKES = [
    # value, YAML, what the message names
    (".image.repository", "''", "image.repository is empty; name the image that you built"),
    (".image.repository", "7", "at '/image/repository': got number, want string"),
    (".image.tag", "1.0", "at '/image/tag': got number, want string"),
    (".image.digest", "sha256:abc", "at '/image/digest': 'sha256:abc' does not match pattern"),
    (".image.pullPolicy", "always", "at '/image/pullPolicy': value must be one of"),
    (".image.name", "a", "at '/image': additional properties 'name' not allowed"),
    (".replicas", "2", "additional properties 'replicas' not allowed"),
    (".database.existingSecret", "''", "database.existingSecret is empty; name the secret"),
    (".database.url", "postgresql://a", "database.url cannot be combined with database.existingSecret"),
    (".database.existingSecretKey", "a/b", "at '/database/existingSecretKey': 'a/b' does not match pattern"),
    (
        ".settings.POLLER_INTERVALL",
        "1m",
        "at '/settings': additional properties 'POLLER_INTERVALL' not allowed",
    ),
    (".settings.POLLER_DATABASE_URL", "a", "settings sets POLLER_DATABASE_URL; use `database`"),
    (".settings.POLLER_STATE_DIR", "/x", "settings sets POLLER_STATE_DIR; use `state`"),
    (".settings.POLLER_TARGETS", "/x", "settings sets POLLER_TARGETS; use `targets`"),
    (".settings.POLLER_SHARD", "0/2", "settings sets POLLER_SHARD; use `shards`"),
    (
        ".settings.POLLER_LEADER_ELECTION",
        "kubernetes:a",
        "settings sets POLLER_LEADER_ELECTION; use `leaderElection`",
    ),
    (".settings.POLLER_SELF_METRICS", "off", "at '/settings/POLLER_SELF_METRICS': got boolean, want"),
    (".settings.POLLER_INTERVAL", "[1m]", "at '/settings/POLLER_INTERVAL': got array, want"),
    (".extraEnv", "{A: b}", "at '/extraEnv': got object, want array"),
    (
        ".extraEnv",
        "[{name: POLLER_STATE_DIR, value: /x}]",
        "extraEnv sets POLLER_STATE_DIR; use `state`",
    ),
    (".extraEnv", "[{value: b}]", "at '/extraEnv/0': missing property 'name'"),
    (".queries", "{existingConfigMap: a, files: {a.yaml: b}}", "queries.files cannot be combined with"),
    (".queries.files", "{a.sql: b}", "at '/queries/files': additional properties 'a.sql' not allowed"),
    (".queries.files", "{a.yaml: {queries: []}}", "at '/queries/files/a.yaml': got object, want string"),
    (".targets", "{existingSecret: a, files: {a.yaml: b}}", "targets.files cannot be combined with"),
    (".targets.files", "{a.json: b}", "at '/targets/files': additional properties 'a.json' not allowed"),
    (".shards", "2", "shards needs targets; set targets.files, targets.existingConfigMap or"),
    (".shards", "'2'", "at '/shards': got string, want integer"),
    (".shards", "1001", "at '/shards': maximum: got 1,001, want 1,000"),
    (".leaderElection.enabled", "true", "leaderElection.enabled needs targets; set targets.files, "),
    (".leaderElection.lease", "My_Lease", "at '/leaderElection/lease': 'My_Lease' does not match pattern"),
    (
        ".settings",
        "{POLLER_SHARDS: 2, POLLER_TARGETS: a}",
        "settings sets POLLER_SHARDS; use `shards`\nsettings sets POLLER_TARGETS; use `targets`",
    ),
    (".leaderElection.replicas", "3", "at '/leaderElection': additional properties 'replicas' not allowed"),
    (".state.sizeLimit", "512", "at '/state/sizeLimit': got number, want string"),
    (".state.sizeLimit", "512MB", "at '/state/sizeLimit': '512MB' does not match pattern"),
    (".state.persistence.enabled", "'yes'", "at '/state/persistence/enabled': got string, want boolean"),
    (
        ".state.persistence.accessMode",
        "ReadOnlyMany",
        "at '/state/persistence/accessMode': value must be one of",
    ),
    (
        ".networkPolicy.database.ports",
        "['5432']",
        "at '/networkPolicy/database/ports/0': got string, want integer",
    ),
    (".networkPolicy.database.ports", "[70000]", "at '/networkPolicy/database/ports/0': maximum: got 70,000"),
    (".networkPolicy.collector.ports", "[]", "at '/networkPolicy/collector/ports': minItems: got 0, want 1"),
    (".networkPolicy.collector.ports", "null", "at '/networkPolicy/collector': missing property 'ports'"),
    (".networkPolicy.collector", "null", "at '/networkPolicy': missing property 'collector'"),
    (".networkPolicy.egress", "[]", "at '/networkPolicy': additional properties 'egress' not allowed"),
    (
        ".serviceAccount.automount",
        "true",
        "at '/serviceAccount': additional properties 'automount' not allowed",
    ),
    (".resources", "small", "at '/resources': got string, want object"),
    (
        ".terminationGracePeriodSeconds",
        "20s",
        "at '/terminationGracePeriodSeconds': got string, want integer",
    ),
    (".nodeSelector", "{gpu: true}", "at '/nodeSelector/gpu': got boolean, want string"),
    (".podLabels", "{app.kubernetes.io/name: a}", "at '/podLabels/app.kubernetes.io~1name': false schema"),
    (".fullnameOverride", "My_Poller", "at '/fullnameOverride': 'My_Poller' does not match pattern"),
]


@pytest.mark.parametrize(("path", "text", "message"), MISTAKES)
def test_a_mistake_is_refused_with_the_name_of_the_value(
    path: str, text: str, message: str, tmp_path: Path
) -> None:
    done = run_helm("template", "a", values=[REQUIRED, value(path, text)], folder=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            [TARGETS, {"database": {"existingSecret": "", "url": "postgresql://a"}}],
            "database.url cannot be combined with targets; write it to a secret",
        ),
        ([ELECTION, PERSISTENCE], "state.persistence cannot be combined with leaderElection"),
        (
            [SHARDS, {"state": {"persistence": {"existingClaim": "a"}}}],
            "state.persistence.existingClaim cannot be combined with shards",
        ),
        ([ELECTION, value(".settings.POLLER_INSTANCE", "a")], "settings sets POLLER_INSTANCE; remove it"),
        ([ELECTION, value(".extraEnv", "[{name: POLLER_INSTANCE}]")], "extraEnv sets POLLER_INSTANCE"),
    ],
)
def test_values_that_exclude_each_other_are_refused(
    values: list[dict[str, Any]], message: str, tmp_path: Path
) -> None:
    done = run_helm("template", "a", values=[REQUIRED, *values], folder=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_setting_may_be_a_boolean_only_if_the_poller_accepts_true_and_false() -> None:
    """Otherwise YAML's `off` would become the value `false`."""
    settings = SCHEMA["properties"]["settings"]["properties"]
    accepts = {
        setting.variables[0]
        for setting in SETTINGS.values()
        if "true" in setting.choices and setting.variables[0] in settings
    }
    assert accepts == {name for name, item in settings.items() if item["$ref"] == "#/definitions/setting"}


def test_a_variable_of_extra_env_replaces_the_setting(tmp_path: Path) -> None:
    """A pod with two variables of one name is refused by server-side apply."""
    extra = [{"name": "POLLER_OTLP_ENDPOINT", "value": "http://other:4317"}]
    environment = environment_of(tmp_path, {"extraEnv": extra})
    assert [item["value"] for item in environment if item["name"] == extra[0]["name"]] == [extra[0]["value"]]


def test_kubernetes_leaves_dollars_in_a_setting_unchanged(tmp_path: Path) -> None:
    """It reads `$$` as `$`, and `$(NAME)` as a variable."""
    environment = environment_of(tmp_path, {"settings": {"OTEL_SERVICE_NAME": "a$$b$(POLLER_INSTANCE)"}})
    (text,) = [item["value"] for item in environment if item["name"] == "OTEL_SERVICE_NAME"]
    assert text.replace("$$", "$") == "a$$b$(POLLER_INSTANCE)"


def test_names_that_look_like_numbers_stay_texts(tmp_path: Path) -> None:
    done = run_helm(
        "template", "42", "--namespace", "7", values=[REQUIRED, {"priorityClassName": "1"}], folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    rendered = [item for item in yaml.safe_load_all(done.stdout) if item]
    assert {item["metadata"]["namespace"] for item in rendered} == {"7"}
    (pod,) = [item["spec"]["template"] for item in rendered if item["kind"] == "Deployment"]
    assert pod["metadata"]["labels"]["app.kubernetes.io/instance"] == "42"
    assert pod["spec"]["priorityClassName"] == "1"


def environment_of(folder: Path, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the variables of the container."""
    done = run_helm("template", "a", values=[REQUIRED, values], folder=folder)
    assert done.returncode == 0, done.stderr
    (pod,) = [
        item["spec"]["template"]["spec"]
        for item in yaml.safe_load_all(done.stdout)
        if item and item["kind"] == "Deployment"
    ]
    return list(pod["containers"][0]["env"])


# --- Documentation and the daemon ---


def test_the_documented_values_render(tmp_path: Path) -> None:
    examples = all_blocks("values")
    assert {block.argument for block in examples} >= {"install", "policy"}
    for block in examples:
        for manifest in helm(REQUIRED, yaml.safe_load(block.text), folder=tmp_path):
            kubernetes_validate.validate(manifest, API_VERSION, strict=True)


def test_the_documented_option_sets_a_query_file(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/kubernetes.md").read_text(encoding="utf-8")
    (option,) = re.findall(r"`(--set-file \S+)`", page)
    name, _, file = shlex.split(option)[1].partition("=")
    (tmp_path / file).write_text("queries: []\n", encoding="utf-8")
    arguments = "--set-file", f"{name}={tmp_path / file}"
    done = run_helm("template", "a", *arguments, values=[REQUIRED], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (stored,) = (m["data"] for m in yaml.safe_load_all(done.stdout) if m and m["kind"] == "ConfigMap")
    assert stored == {file: "queries: []\n"}


def test_the_daemon_runs_with_the_rendered_variables_and_files(
    server: MessagingServer, receiver: Receiver, poller_process: Callable[..., Process], tmp_path: Path
) -> None:
    settings = {"POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint, "POLLER_EXPORT_INTERVAL": "1s"}
    values = {"image": REQUIRED["image"], "database": {"url": server.standby_dsn}, "settings": settings}
    manifests = helm(values, queries(), folder=tmp_path)
    mounted = mount(manifests, tmp_path / "pod")
    variables = environment(manifests)
    place, _, key = variables["POLLER_DATABASE_URL_FILE"].rpartition("/")
    variables |= {
        "POLLER_DATABASE_URL_FILE": str(mounted[place] / key),
        "POLLER_QUERIES": str(mounted["/etc/poller/queries"]),
        "POLLER_STATE_DIR": str(mounted["/var/lib/poller"]),
    }

    process = poller_process("run", env=variables)
    receiver.wait_for(lambda points: [p for p in points if p.metric == "users_total"], 120)

    (users, *_) = receiver.points("users_total")
    assert users.value == 37
    assert users.resource["service.instance.id"] == "obscura-poller"
    assert users.resource["k8s.namespace.name"] == NAMESPACE
    assert "no such setting" not in process.stderr


def test_the_daemon_polls_the_rendered_targets_as_a_shard(
    server: MessagingServer, receiver: Receiver, poller_process: Callable[..., Process], tmp_path: Path
) -> None:
    settings = {"POLLER_OTLP_ENDPOINT": receiver.grpc_endpoint, "POLLER_EXPORT_INTERVAL": "1s"}
    targets = {"targets": [{"name": "eu-1", "url": server.standby_dsn}]}
    values = {
        "image": REQUIRED["image"], "settings": settings, "shards": 1,
        "targets": {"files": {"targets.yaml": json.dumps(targets)}},
    }  # fmt: skip
    manifests = helm(values, queries(), folder=tmp_path)
    mounted = mount(manifests, tmp_path / "pod")
    variables = environment(manifests)
    variables |= {
        "POLLER_TARGETS": str(mounted[variables["POLLER_TARGETS"]]),
        "POLLER_QUERIES": str(mounted["/etc/poller/queries"]),
        "POLLER_STATE_DIR": str(mounted["/var/lib/poller"]),
    }

    poller_process("run", env=variables)
    receiver.wait_for(lambda points: [p for p in points if p.metric == "users_total"], 120)

    (users, *_) = receiver.points("users_total")
    assert (users.value, users.resource["service.instance.id"]) == (37, "eu-1")
    (shard, *_) = receiver.points("poller.shard.count")
    assert (shard.value, shard.resource["service.instance.id"]) == (1, "obscura-poller-0")
