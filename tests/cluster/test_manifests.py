"""What is in cluster/ is what Kubernetes, KubeRay, Ray and the jobs' own command lines take."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from geoloc.cli import COMMANDS
from geoloc.options import parse
from geoloc.serving.options import ServingOptions
from tests.conftest import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
KUBERNETES = CLUSTER / "kubernetes"
ROADS = {"cluster": "RayCluster", "geotag": "RayJob", "train-ranker": "RayJob", "service": "RayService"}
RAY = version("ray")


@pytest.fixture(scope="module")
def objects() -> dict[str, list[dict]]:
    """What each road applies, by its folder."""
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl, which has kustomize in it")
    found = {}
    for road in ROADS:
        built = subprocess.run(
            ["kubectl", "kustomize", str(KUBERNETES / road)], capture_output=True, text=True, timeout=60
        )
        assert built.returncode == 0, built.stderr
        found[road] = list(yaml.safe_load_all(built.stdout))
    return found


def of_kind(objects: list[dict], kind: str) -> dict:
    [found] = [one for one in objects if one["kind"] == kind]
    return found


def cluster_of(objects: list[dict], road: str) -> dict:
    """The RayCluster's spec, wherever it is."""
    spec = of_kind(objects, ROADS[road])["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def templates(cluster: dict) -> dict[str, dict]:
    return {group.get("groupName", "head"): group["template"] for group in [cluster["headGroupSpec"], *groups(cluster)]}


def groups(cluster: dict) -> list[dict]:
    return cluster["workerGroupSpecs"]


@pytest.mark.parametrize("road", ROADS)
def test_kubernetes_takes_it(objects, road):
    """Strictly: a field that there is not is an error."""
    kinds = sorted(one["kind"] for one in objects[road])
    assert kinds == sorted(["NetworkPolicy", ROADS[road], "ServiceAccount"])
    for one in objects[road]:
        assert one["metadata"]["namespace"] == "geoloc"
        if one["kind"] != ROADS[road]:
            kubernetes_validate.validate(one, "1.37", strict=True)
    pods = templates(cluster_of(objects[road], road))
    if "submitterPodTemplate" in (spec := of_kind(objects[road], ROADS[road])["spec"]):
        pods["submitter"] = spec["submitterPodTemplate"]
    for name, template in pods.items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name} | template.get("metadata", {})}
        kubernetes_validate.validate(pod | {"spec": template["spec"]}, "1.37", strict=True)
        assert template["spec"]["securityContext"]["runAsNonRoot"]
        for container in template["spec"]["containers"]:
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert "memory" in container["resources"]["limits"]
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts == {volume["name"] for volume in template["spec"].get("volumes", [])}


@pytest.mark.parametrize("road", ROADS)
def test_kuberay_takes_it(objects, road):
    """By its own schema, where GEOLOC_KUBERAY_CRDS names the folder ray-operator/config/crd/bases of its repository."""
    folder = os.environ.get("GEOLOC_KUBERAY_CRDS")
    if not folder:
        pytest.skip("needs KubeRay's resource definitions (GEOLOC_KUBERAY_CRDS)")
    kind = ROADS[road]
    [definition] = yaml.safe_load_all((Path(folder) / f"ray.io_{kind.lower()}s.yaml").read_text())
    [schema] = [v["schema"]["openAPIV3Schema"] for v in definition["spec"]["versions"] if v["name"] == "v1"]
    jsonschema.validate(of_kind(objects[road], kind), strict(schema))


def strict(schema: dict) -> dict:
    """An OpenAPI schema of Kubernetes' as JSON Schema has it, in which what is not named is not allowed."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: value for key, value in schema.items() if key not in ("properties", "items", "additionalProperties")}
    if "properties" in schema:
        found["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        found["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if "items" in schema:
        found["items"] = strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        found["additionalProperties"] = strict(schema["additionalProperties"])
    return found


@pytest.mark.parametrize("road", ROADS)
def test_the_cluster_is_what_its_comments_say(objects, road):
    cluster = cluster_of(objects[road], road)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"]
    assert not cluster["autoscalerOptions"]["securityContext"][
        "allowPrivilegeEscalation"
    ]  # a container that KubeRay adds
    head, by_name = cluster["headGroupSpec"], {group["groupName"]: group for group in groups(cluster)}
    assert head["rayStartParams"]["num-cpus"] == "0"  # no work on it
    for group in [head, *by_name.values()]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # or KubeRay refuses them
        [container], volumes = group["template"]["spec"]["containers"], group["template"]["spec"]["volumes"]
        [shm] = [volume["emptyDir"] for volume in volumes if volume["name"] == "shm"]
        assert shm["medium"] == "Memory"
        share = gibibytes(shm["sizeLimit"]) / gibibytes(container["resources"]["limits"]["memory"])
        assert 0.28 < share < 0.4  # Ray's object store takes 30 % of the memory, if there is room
    if road == "service":
        assert set(by_name) == {"cpu", "gpu"}
        assert all(group["minReplicas"] == 1 for group in by_name.values())
    else:
        assert by_name["gpu-spot"]["priority"] > by_name["gpu"]["priority"]
        assert by_name["gpu-spot"]["labels"] == {"ray.io/market-type": "spot"}
    assert {name for name, group in by_name.items() if "nvidia.com/gpu" in limits(group)} == set(by_name) - {"cpu"}


def limits(group: dict) -> dict:
    return group["template"]["spec"]["containers"][0]["resources"]["limits"]


def gibibytes(quantity: str) -> int:
    assert quantity.endswith("Gi")
    return int(quantity.removesuffix("Gi"))


def test_there_is_one_version_of_ray(objects):
    pinned = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert pinned == RAY
    docker = (CLUSTER / "Dockerfile").read_text()
    assert f"ARG RAY_VERSION={RAY}\n" in docker
    assert yaml.safe_load((CLUSTER / "ray-aws.yaml").read_text())["docker"]["image"].endswith(f":{RAY}")
    for road, applied in objects.items():
        assert cluster_of(applied, road)["rayVersion"] == RAY
        images = set(re.findall(r"image: (\S+)", yaml.safe_dump(applied)))
        assert images == {f"registry.example.com/geoloc:{RAY}"}


def test_the_image_has_what_the_jobs_are(objects):
    """Everything that it copies is there, it ends as a user without rights, and Ray's Python is one that we support."""
    lines = (CLUSTER / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    for step in steps:
        if step[0] == "COPY":
            sources = [name for name in step[1:-1] if not name.startswith("--")]
            assert all((REPOSITORY / name).exists() for name in sources)
            ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
            assert all(f"!{name.split('/')[0]}" in ignored for name in sources)
    assert [step[1] for step in steps if step[0] == "USER"][-1] == "1000"
    assert steps[1] == ["FROM", "rayproject/ray:${RAY_VERSION}-py311"]
    assert any(step[0] == "RUN" and "constraints.txt" in step for step in steps)


@pytest.mark.parametrize("road", ["geotag", "train-ranker"])
def test_entrypoints_are_commands_that_there_are(objects, road):
    spec = of_kind(objects[road], "RayJob")["spec"]
    check_command(spec["entrypoint"])
    assert spec["backoffLimit"] > 0  # on a new cluster, where it goes on
    assert spec["shutdownAfterJobFinishes"]


@pytest.mark.parametrize("page", ["README.md", "cluster/README.md"])
def test_commands_in_the_readme_are_commands_that_there_are(page):
    """Those of jobs/ that are written out whole."""
    text = (REPOSITORY / page).read_text().replace("\\\n", " ")
    commands = re.findall(r"python (jobs/\w+\.py [^\n#`|&>;']*)", text)
    checked = 0
    for command in commands:
        if "…" not in command:
            check_command(f"python {command}")
            checked += 1
    assert checked >= 3


def check_command(command: str) -> None:
    """A script in jobs/ with options that it has."""
    python, script, *arguments = shlex.split(command)
    assert python == "python"
    name = re.search(r'run_command\("(.+)"\)', (REPOSITORY / script).read_text())[1]
    module, _, options = COMMANDS[name].options.partition(":")
    parse(getattr(importlib.import_module(module), options), "", arguments, script)


def test_serve_takes_the_services(objects):
    """And both are the same: the one for any Ray cluster, and the one for Kubernetes."""
    of_kubernetes = yaml.safe_load(of_kind(objects["service"], "RayService")["spec"]["serveConfigV2"])
    plain = yaml.safe_load((CLUSTER / "serve.yaml").read_text())
    assert of_kubernetes == plain
    [application] = ServeDeploySchema(**plain).applications
    ServingOptions(**application.args)
    mounts = templates(cluster_of(objects["service"], "service"))["gpu"]["spec"]["containers"][0]["volumeMounts"]
    assert any(application.args["keys"].startswith(mount["mountPath"]) for mount in mounts)


def test_ray_takes_the_launchers_file():
    config = prepare_config(yaml.safe_load((CLUSTER / "ray-aws.yaml").read_text()))
    validate_config(config)
    types = config["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    for name in ("gpu", "gpu_spot"):  # or the containers see none of them
        assert types[name]["docker"]["worker_run_options"] == ["--env NVIDIA_VISIBLE_DEVICES=all"]
    spot = {name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]}
    assert (
        spot == {name for name, node in types.items() if node.get("labels") == {"ray.io/market-type": "spot"}} != set()
    )
    assert "num-cpus=0" in " ".join(config["head_start_ray_commands"])
    for node in types.values():
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("geoloc")  # a role, and no keys
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    assert not re.search(r"aws_secret|AKIA", (CLUSTER / "ray-aws.yaml").read_text(), re.IGNORECASE)
