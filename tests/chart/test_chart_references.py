"""Whatever the release is called, what it registers refers to what it installs."""

import json

import pytest
import yaml
from references import images, references
from rendering import CHART, Render, Rendered

from clinical_r1.cluster.facts import IN_STEPS, PLATFORM, Facts
from clinical_r1.cluster.nodes import ENDPOINT_KEYS

LONG = "the-department-of-endocrinology-and-metabolism-7"
RELEASES = ("r1", "clinical-r1", LONG)
PIPELINES = sorted(path.name for path in (CHART / "sources" / "pipelines").glob("*.yaml"))
BY_THE_USER = {
    "production": {"store-pipelines", "hospital-ca", "registry", "clinical-r1-patient-key"},
}
"""What an example says that somebody else made; the installation stops where it does not."""


def registered(chart: Rendered) -> dict[str, str]:
    """The pipelines that the registration job uploads, by file name."""
    found: dict[str, str] = {}
    for document in chart.kind("ConfigMap"):
        found |= {name: text for name, text in (document.get("data") or {}).items() if name in PIPELINES}
    return found


def keys_of(document: dict) -> set[str]:
    """Keys of a ConfigMap or Secret."""
    return set(document.get("data") or {}) | set(document.get("stringData") or {})


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("example", ["laptop", "one-gpu", "production"])
def test_every_reference_of_what_is_registered_is_installed(render: Render, example: str, release: str) -> None:
    chart = render(example, "kubeflow.register.mode=job", release=release)
    there = {(document["kind"], document["metadata"]["name"]): document for document in chart.all}
    found = registered(chart)
    assert set(found) == set(PIPELINES)
    facts = Facts.of(there["ConfigMap", PLATFORM]["data"], PLATFORM)
    for name, text in found.items():
        asked = list(references(text))
        assert asked, name
        for reference in asked:
            place = f"{name}: {reference}"
            if reference.name in BY_THE_USER.get(example, ()):
                continue
            document = there.get((reference.kind, reference.name))
            if document is None:
                allowed = {facts.run_parameters["endpoint_secret"]: set(ENDPOINT_KEYS)}
                allowed |= {facts.run_parameters["client_key_secret"]: {"key"}}  # where the gateway asks for none
                allowed |= {facts.run_parameters["image_pull_secret"]: set()}
                assert reference.optional and reference.keys <= allowed.get(reference.name, set()), place
            elif not reference.optional:
                assert reference.keys <= keys_of(document), place
        image = next(pod for where, pod, _ in chart.pods() if "register" in where)["containers"][0]["image"]
        assert images(text) == {image} == {facts.run_parameters["image"]}, name


@pytest.mark.parametrize("release", RELEASES)
def test_the_facts_are_whole_and_name_what_is_rendered(render: Render, release: str) -> None:
    chart = render("one-gpu", release=release)
    names = {(document["kind"], document["metadata"]["name"]) for document in chart.all}
    data = chart.get("ConfigMap", PLATFORM)["data"]
    facts = Facts.of(data, PLATFORM)
    assert set(IN_STEPS) <= set(data)
    assert facts.release == release
    given = facts.run_parameters
    assert all(given.values()), "Kubeflow's driver refuses an empty name"
    assert ("PersistentVolumeClaim", given["claim"]) in names
    assert {("Secret", given["store_secret"]), ("Secret", given["patient_secret"])} <= names
    assert ("ConfigMap", given["ca_config_map"]) in names
    served = facts.inference_service["spec"]["predictor"]
    assert {("ServingRuntime", served["model"]["runtime"]), ("ServiceAccount", served["serviceAccountName"])} <= names
    assert ("TrainingRuntime", facts.training_runtime) in names


def test_resources_carry_the_same_defaults(render: Render) -> None:
    chart = render("one-gpu", "kubeflow.register.mode=crd", release="r1")
    given = json.loads(chart.get("ConfigMap", PLATFORM)["data"]["CLINICAL_R1_RUN_PARAMETERS"])
    for version in chart.kind("PipelineVersion"):
        parameters = version["spec"]["pipelineSpec"]["root"]["inputDefinitions"]["parameters"]
        for name, value in given.items():
            if name in parameters:
                assert parameters[name]["defaultValue"] == value, (version["metadata"]["name"], name)


def test_without_an_authority_of_its_own_steps_mount_an_empty_one(render: Render) -> None:
    chart = render("laptop", release="r1")
    assert chart.get("ConfigMap", "ca")["data"] == {}


@pytest.mark.parametrize("name", ["1st-release", "a.b", "x" * 53, LONG, "9", "on", "1e3"])
def test_names_are_those_that_kubernetes_takes(render: Render, name: str) -> None:
    chart = render("laptop", "kubeflow.register.mode=job", release=name)
    for document in chart.all:
        called = document["metadata"]["name"]
        label = document["kind"] in ("Service", "Job", "Deployment", "StatefulSet")  # pods are named after them
        assert isinstance(called, str) and len(called) <= (63 if label else 253), called
        if document["kind"] == "Service":
            assert called[0].isalpha() and "." not in called, called
    assert all(isinstance(d["metadata"]["labels"]["app.kubernetes.io/instance"], str) for d in chart.all)


def test_two_long_names_do_not_collide(render: Render) -> None:
    one, other = (
        {d["metadata"]["name"] for d in render("laptop", release=f"{'long-' * 9}{end}").all} for end in ("one", "two")
    )
    fixed = {PLATFORM, "kfp-launcher"}
    shared = {name for name in one & other if name not in fixed and not name.startswith("clinical-r1")}
    assert not shared


@pytest.mark.parametrize(
    "setting",
    ["objectStore.region=010", "kubeflow.state.storageClass=010", "serving.priorityClassName=1e3", "tests.prompt=a #b"],
)
def test_values_that_look_like_numbers_stay_text(render: Render, setting: str) -> None:
    key, _, value = setting.partition("=")
    chart = render("one-gpu", setting, "serving.model.uri=s3://clinical-r1/models/demo/1", release="r1")
    assert f'"{value}"' in chart.text, key
    yaml.safe_load(chart.get("ConfigMap", "kfp-launcher")["data"]["providers"])


def test_the_simulated_endpoint_is_that_of_the_demo(render: Render) -> None:
    from clinical_r1.simulator.beside import SimulatorConfig, arguments_of

    demo = yaml.safe_load((CHART.parents[1] / "clinical_r1" / "runs" / "configs" / "demo.yaml").read_text())
    given = {
        tuple(word.split("="))
        for word in render("laptop").get("Deployment", "simulator")["spec"]["template"]["spec"]["containers"][0]["args"]
    }
    usual = arguments_of(SimulatorConfig())
    wanted = arguments_of(SimulatorConfig.model_validate(demo["simulator"]["endpoint"]))
    pairs = set(zip(wanted[::2], wanted[1::2], strict=True)) - set(zip(usual[::2], usual[1::2], strict=True))
    assert given == pairs


@pytest.mark.parametrize("example", ["laptop", "one-gpu", "production"])
def test_kserves_sdk_reads_what_a_pipeline_would_deploy(render: Render, example: str) -> None:
    from kserve import V1beta1InferenceService

    from clinical_r1.cluster.inference_service import manifest, typed

    uri = "s3://clinical-r1/models/demo/1"
    chart = render(example, f"serving.model.uri={uri}", release="r1")
    facts = Facts.of(chart.get("ConfigMap", PLATFORM)["data"], PLATFORM)
    made, by_helm = manifest(facts, uri), chart.kind("InferenceService")[0]
    assert isinstance(typed(made), V1beta1InferenceService)
    assert isinstance(typed(by_helm), V1beta1InferenceService)
    assert made["spec"] == by_helm["spec"]
    assert made["metadata"]["annotations"]["meta.helm.sh/release-name"] == "r1"
