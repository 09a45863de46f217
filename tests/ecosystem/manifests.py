"""Kubernetes manifests of this repository, built by the real kustomize and the real Helm."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.bed.process import ROOT
from tests.ecosystem.builds import need

KUSTOMIZE = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm"
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
NAMESPACE = "observability"
RELEASE = "obscura-poller"
"""This release's objects have the names of those that kustomize builds."""
POD_INDEX = "metadata.labels['apps.kubernetes.io/pod-index']"
"""Kubernetes 1.28 or later sets this label of the pods of a StatefulSet (KEP-4017)."""
IMAGE = "registry.example/obscura-poller"
REQUIRED = {"image": {"repository": IMAGE}, "database": {"existingSecret": "poller-database"}}
"""The required values of the chart."""
PERSISTENCE = {"state": {"persistence": {"enabled": True}}}
TARGETS: dict[str, Any] = {
    "targets": {
        "files": {"targets.yaml": (KUSTOMIZE / "shards-example/targets.yaml").read_text(encoding="utf-8")}
    }
}
SHARDS: dict[str, Any] = {**TARGETS, **PERSISTENCE, "shards": 3}
ELECTION: dict[str, Any] = {**TARGETS, "leaderElection": {"enabled": True}}
_COMPONENTS: dict[str, dict[str, Any]] = {
    "": {}, "keep-state": PERSISTENCE, "shards": SHARDS, "leader-election": ELECTION,
    "shards and leader-election": {**SHARDS, **ELECTION},
}  # fmt: skip
"""Values of the chart with the effect of a component of kustomize."""
_KUSTOMIZATION = f"""
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: {NAMESPACE}
images: [{{name: obscura-poller, newName: {IMAGE}, newTag: {VERSION}}}]
"""

BUILT = (
    "standalone", "standalone with keep-state", "sidecar-example", "shards-example",
    "leader-election-example", "chart", "chart with keep-state", "chart with shards",
    "chart with leader-election",
    "shards-leader-election-example", "chart with shards and leader-election",
)  # fmt: skip
"""What `build` builds."""

Manifest = dict[str, Any]
Values = Mapping[str, Any]


def run_kustomize(folder: Path) -> list[Manifest]:
    """Return the manifests that kustomize builds from a folder; a warning is an error."""
    done = subprocess.run([need("kustomize"), "build", folder], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return list(yaml.safe_load_all(done.stdout))


def kustomize(folder: Path, kustomization: str) -> list[Manifest]:
    """Return the manifests of a kustomization next to a copy of the repository's folders, in `folder`."""
    shutil.copytree(KUSTOMIZE, folder / "kubernetes")
    (folder / "kubernetes" / "mine").mkdir()
    (folder / "kubernetes" / "mine" / "kustomization.yaml").write_text(kustomization, encoding="utf-8")
    return run_kustomize(folder / "kubernetes" / "mine")


def run_helm(
    *arguments: str, values: Sequence[Values], folder: Path, chart: Path | None = CHART
) -> subprocess.CompletedProcess[str]:
    """Run `helm ARGUMENTS CHART -f VALUES...`; it writes only to `folder`."""
    files = []
    for number, content in enumerate(values):
        file = folder / f"values-{number}.yaml"
        file.write_text(yaml.safe_dump(dict(content)), encoding="utf-8")
        files += ["-f", str(file)]
    return subprocess.run(
        [need("helm"), *arguments, *([str(chart)] if chart else []), *files],
        env={"HOME": str(folder), "PATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def helm(*values: Values, folder: Path, release: str = RELEASE, chart: Path = CHART) -> list[Manifest]:
    """Return the manifests that the chart renders from values."""
    done = run_helm(
        "template", release, f"--namespace={NAMESPACE}", values=values, folder=folder, chart=chart
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def build(name: str, folder: Path) -> list[Manifest]:
    """Return the manifests of one of `BUILT`, with the same queries and names from both tools."""
    base, _, component = name.partition(" with ")
    if base == "chart":
        return helm(REQUIRED, queries(), _COMPONENTS[component], folder=folder)
    components = f"components: [../{component}]\n" if component else ""
    return kustomize(folder, f"{_KUSTOMIZATION}resources: [../{base}]\n{components}")


def queries() -> Values:
    """Return values with the query files that kustomize puts into its ConfigMap."""
    files = sorted((KUSTOMIZE / "base" / "queries").iterdir())
    return {"queries": {"files": {file.name: file.read_text(encoding="utf-8") for file in files}}}


def workload(manifests: list[Manifest]) -> Manifest:
    """Return the Deployment or StatefulSet, of two the first."""
    return workloads(manifests)[0]


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in ("Deployment", "StatefulSet")]


def pod(manifests: list[Manifest]) -> Manifest:
    """Return the specification of the workload's pod."""
    spec: Manifest = workload(manifests)["spec"]["template"]["spec"]
    return spec


def containers(spec: Manifest) -> Iterator[Manifest]:
    yield from spec["containers"]
    yield from spec.get("initContainers", [])


def poller(spec: Manifest) -> Manifest:
    """Return the container of the poller in the specification of a pod."""
    (container,) = (container for container in containers(spec) if container["name"] == "poller")
    assert "obscura-poller" in container["image"]
    return container


def environment(manifests: list[Manifest]) -> dict[str, str]:
    """Return the variables of the poller's container, as Kubernetes sets them in the first pod."""
    container = poller(pod(manifests))
    variables: dict[str, str] = {}
    for reference in container.get("envFrom", []):
        variables |= named(manifests, "ConfigMap", reference["configMapRef"]["name"])["data"]
    for variable in container["env"]:
        value = variable.get("value")
        if value is None:
            (field,) = variable["valueFrom"]["fieldRef"].values()
            fields = {"metadata.name": f"{RELEASE}-0", "metadata.namespace": NAMESPACE, POD_INDEX: "0"}
            value = fields[field]
        for name, earlier in variables.items():
            value = value.replace(f"$({name})", earlier)
        variables[variable["name"]] = value
    return variables


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (manifest,) = (m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name))
    return manifest


def mount(manifests: list[Manifest], folder: Path) -> dict[str, Path]:
    """Write the poller's ConfigMaps and secrets below `folder`; return the folder of each mount path."""
    spec = pod(manifests)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    places = {}
    for mounted in poller(spec)["volumeMounts"]:
        volume = volumes[mounted["name"]]
        place = places[mounted["mountPath"]] = folder / mounted["name"]
        place.mkdir(parents=True)
        files: dict[str, str] = {}
        if "configMap" in volume:
            files = named(manifests, "ConfigMap", volume["configMap"]["name"])["data"]
        elif "secret" in volume:
            files = named(manifests, "Secret", volume["secret"]["secretName"])["stringData"]
        for name, text in files.items():
            (place / name).write_text(text, encoding="utf-8")
    return places
