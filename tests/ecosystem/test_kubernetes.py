"""The manifests: built by kustomize and Helm, valid, restricted, and consistent with the image."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from poller.config.load_settings import load
from poller.config.queries.files import files_of
from poller.config.targets.load import load_targets
from poller.model.shards import Shard
from tests.bed.documentation import pages
from tests.bed.process import ROOT
from tests.ecosystem.manifests import (
    BUILT,
    IMAGE,
    KUSTOMIZE,
    NAMESPACE,
    Manifest,
    build,
    containers,
    environment,
    kustomize,
    named,
    pod,
    poller,
    run_kustomize,
    workload,
)

API_VERSION = "1.37"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")

# https://kubernetes.io/docs/concepts/security/pod-security-standards/, profile "restricted".
_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_POD_MUST_NOT = "hostNetwork", "hostPID", "hostIPC"


@pytest.fixture(scope="module", params=BUILT)
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Manifest]:
    return build(request.param, tmp_path_factory.mktemp("manifests"))


def test_every_manifest_is_valid_by_the_schemas_of_the_api(manifests: list[Manifest]) -> None:
    assert workload(manifests)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, API_VERSION, strict=True)


def test_the_pods_pass_the_restricted_profile(manifests: list[Manifest]) -> None:
    spec = pod(manifests)
    assert "poller" in [container["name"] for container in containers(spec)]
    around = spec.get("securityContext", {})
    assert not set(_POD_MUST_NOT) & set(spec)
    assert all(set(volume) - {"name"} <= _VOLUMES for volume in spec["volumes"])
    for container in containers(spec):
        own = {**around, **container["securityContext"]}
        assert own["runAsNonRoot"] is True
        assert own["runAsUser"] > 0
        assert own["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert "hostPort" not in json.dumps(container.get("ports", []))


def test_the_poller_runs_as_the_user_of_the_image_and_writes_only_to_its_state(
    manifests: list[Manifest],
) -> None:
    spec = pod(manifests)
    container = poller(spec)
    assert container["volumeMounts"]
    own = {**spec["securityContext"], **container["securityContext"]}
    assert f"USER {own['runAsUser']}:{own['runAsGroup']}\n" in DOCKERFILE
    assert own["readOnlyRootFilesystem"] is True
    kinds = {volume["name"]: set(volume) - {"name"} for volume in spec["volumes"]}
    claims = workload(manifests)["spec"].get("volumeClaimTemplates", [])
    kinds |= {claim["metadata"]["name"]: {"persistentVolumeClaim"} for claim in claims}
    for mount in container["volumeMounts"]:
        if mount.get("readOnly"):
            assert kinds[mount["name"]] <= {"configMap", "secret"}
        else:
            assert mount["mountPath"] == "/var/lib/poller"
            assert kinds[mount["name"]] <= {"emptyDir", "persistentVolumeClaim"}
    for mounted in ("POLLER_QUERIES=/etc/poller/queries", "POLLER_STATE_DIR=/var/lib/poller"):
        assert mounted in DOCKERFILE
        assert mounted.partition("=")[2] in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_every_object_that_the_poller_refers_to_exists(manifests: list[Manifest], tmp_path: Path) -> None:
    """The variables are settings, and every referenced object except the secret is in the manifests."""
    container = poller(pod(manifests))
    objects = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests}
    variables = environment(manifests)
    secret = tmp_path / "database_url"
    secret.write_text("postgresql://poller@replica/app")
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    place = "/run/secrets/poller"
    volumes = {volume["name"]: volume for volume in pod(manifests)["volumes"]}
    assert volumes[mounts[place]]["secret"]["secretName"] == "poller-database"
    if "POLLER_TARGETS" not in variables:
        assert variables["POLLER_DATABASE_URL_FILE"].rpartition("/")[0] == place
        variables["POLLER_DATABASE_URL_FILE"] = str(secret)
    settings = load(variables)
    assert settings.warnings == ()
    assert settings.endpoint is not None
    name = variables["POLLER_INSTANCE"]
    assert settings.instance == (name if settings.own_shard is None else f"{name}-0"), "the name of the pod"
    queries = objects["ConfigMap", volumes[mounts["/etc/poller/queries"]]["configMap"]["name"]]
    assert queries["data"]
    assert {name: without_schema_line(text) for name, text in queries["data"].items()} == {
        f.name: without_schema_line(f.read_text(encoding="utf-8")) for f in files_of(ROOT / "queries")
    }
    for volume in volumes.values():
        if claim := volume.get("persistentVolumeClaim"):
            assert ("PersistentVolumeClaim", claim["claimName"]) in objects


def without_schema_line(text: str) -> str:
    """Return a query file without its first line, because the path to the schema differs between folders."""
    first, _, rest = text.partition("\n")
    assert first.startswith("# yaml-language-server: $schema=")
    return rest


def test_probes_ask_poller_health_and_a_sidecar_is_never_unready(manifests: list[Manifest]) -> None:
    spec = pod(manifests)
    container = poller(spec)
    probes = {name: container[name]["exec"]["command"] for name in container if name.endswith("Probe")}
    assert probes.pop("livenessProbe") == ["poller", "health", "--live"]
    if container in spec.get("initContainers", []):
        assert container["restartPolicy"] == "Always"
        assert probes == {}
    else:
        assert probes == {"readinessProbe": ["poller", "health", "--ready"]}
    assert container["resources"]["limits"].keys() == {"memory"}


def test_policies_and_selectors_match_the_pod(manifests: list[Manifest]) -> None:
    deployment = workload(manifests)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    policies = [manifest for manifest in manifests if manifest["kind"] == "NetworkPolicy"]
    # The policy of the server applies to the pod of a sidecar.
    assert len(policies) == (deployment["metadata"]["name"] == "obscura-poller")
    for policy in policies:
        selectors.append(policy["spec"]["podSelector"]["matchLabels"])
        assert policy["spec"]["ingress"] == []
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    for selector in selectors:
        assert selector.items() <= labels.items()


def test_the_documented_overlay_sets_image_and_collector(tmp_path: Path) -> None:
    documented = next(block for block in blocks("yaml") if "kind: Kustomization" in block)
    objects = kustomize(tmp_path, documented)
    assert poller(pod(objects))["image"] == f"{IMAGE}:0.1.0"
    variables = environment(objects)
    assert variables["POLLER_OTLP_ENDPOINT"] == "http://collector.example:4317"
    assert "POLLER_MAX_REPLAY_LAG" in variables, "the other settings remain"


def test_the_number_of_shards_is_written_once(tmp_path: Path) -> None:
    folder = tmp_path / "kubernetes"
    shutil.copytree(KUSTOMIZE, folder)
    file = folder / "shards-example" / "kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    assert text.count("count: 3") == 1
    file.write_text(text.replace("count: 3", "count: 7"), encoding="utf-8")
    objects = run_kustomize(file.parent)
    assert workload(objects)["spec"]["replicas"] == 7
    variables = environment(objects)
    shard = load(variables).own_shard
    assert shard == Shard(0, 7)
    assert "POLLER_DATABASE_URL_FILE" not in variables


def test_each_shard_has_a_volume_of_its_own_and_all_have_the_same_targets(tmp_path: Path) -> None:
    objects = build("shards-example", tmp_path)
    spec = workload(objects)["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    mounts = {mount["mountPath"]: mount["name"] for mount in poller(pod(objects))["volumeMounts"]}
    assert mounts["/var/lib/poller"] == claim["metadata"]["name"]
    assert claim["metadata"]["name"] not in [volume["name"] for volume in pod(objects)["volumes"]]
    (volume,) = (v for v in pod(objects)["volumes"] if v["name"] == mounts["/etc/poller/targets"])
    files = named(objects, "ConfigMap", volume["configMap"]["name"])["data"]
    assert environment(objects)["POLLER_TARGETS"] == "/etc/poller/targets"
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
        settings = load({"POLLER_TARGETS": str(tmp_path / name)})
        targets = load_targets(tmp_path / name, settings)
        assert {str(target.url_file.parent) for target in targets if target.url_file} == {
            "/run/secrets/poller"
        }


def test_only_the_pods_of_an_election_have_a_token_and_it_allows_the_requests_for_its_leases(
    manifests: list[Manifest],
) -> None:
    roles = [manifest for manifest in manifests if manifest["kind"] == "Role"]
    lease = environment(manifests).get("POLLER_LEADER_ELECTION", "").removeprefix("kubernetes:")
    assert pod(manifests)["automountServiceAccountToken"] is bool(lease)
    assert len(roles) == bool(lease)
    for role in roles:
        (binding,) = (manifest for manifest in manifests if manifest["kind"] == "RoleBinding")
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        (subject,) = binding["subjects"]
        account = named(manifests, "ServiceAccount", pod(manifests)["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        assert subject == {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": NAMESPACE,
        }
        shard = load(environment(manifests)).own_shard
        leases = [f"{lease}-{index}" for index in range(shard.count)] if shard else [lease]
        assert role["rules"] == [
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": leases,
                "verbs": ["get", "update"],
            },
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        ]


@pytest.mark.parametrize("name", ["shards-leader-election-example", "chart with shards and leader-election"])
def test_each_shard_of_an_election_has_two_pods_with_their_own_names(name: str, tmp_path: Path) -> None:
    objects = build(name, tmp_path)
    second = [manifest for manifest in objects if manifest is not workload(objects)]
    assert workload(objects)["spec"]["replicas"] == workload(second)["spec"]["replicas"] == 3
    pairs = []
    for manifests in objects, second:
        variables = environment(manifests)
        settings = load(variables)
        assert (settings.own_shard, settings.lease_name) == (Shard(0, 3), "obscura-poller")
        pairs.append(settings.instance)
        (instance,) = (item for item in poller(pod(manifests))["env"] if item["name"] == "POLLER_INSTANCE")
        instance["value"] = ""
    assert pairs == ["obscura-poller-0", "obscura-poller-b-0"], "the names of the pods"
    assert workload(objects)["spec"] == workload(second)["spec"]
    (spread,) = pod(objects)["topologySpreadConstraints"]
    assert "apps.kubernetes.io/pod-index" in spread["matchLabelKeys"], "the pods of one shard"


def test_an_election_has_two_pods_that_prefer_different_nodes(tmp_path: Path) -> None:
    objects = build("leader-election-example", tmp_path)
    spec = workload(objects)["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    (spread,) = pod(objects)["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
    (policy,) = (manifest for manifest in objects if manifest["kind"] == "NetworkPolicy")
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert {443, 5432, 6443} <= set(ports)


def test_the_network_policy_allows_every_port_that_the_documentation_recommends() -> None:
    policy = yaml.safe_load((KUSTOMIZE / "standalone/networkpolicy.yaml").read_text(encoding="utf-8"))
    allowed = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
    written = "".join(page.read_text(encoding="utf-8") for page in pages())
    urls = re.findall(r"POLLER_(?:OTLP_ENDPOINT|DATABASE_URL)[=:]\s*'?(\w+://[^\s'`]+)", written)
    defaults = {"https": 443, "postgresql": 5432}
    ports = {url.port or defaults[url.scheme] for url in map(urlsplit, urls)}
    assert ports >= {4317, 9090}
    assert ports | {443, 5432, 6432} <= allowed


def blocks(language: str) -> list[str]:
    """Return the code blocks of the operator's page."""
    page = (ROOT / "docs/how-to/kubernetes.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_both_deployments_run_the_same_container() -> None:
    """Except probes and fields of the pod."""

    def container(file: str, key: str) -> Manifest:
        document = yaml.safe_load((KUSTOMIZE / file).read_text(encoding="utf-8"))
        (item,) = document["spec"]["template"]["spec"][key]
        return {name: item[name] for name in ("image", "env", "envFrom", "livenessProbe", "resources")}

    assert container("standalone/deployment.yaml", "containers") == container(
        "sidecar/sidecar.yaml", "initContainers"
    )
