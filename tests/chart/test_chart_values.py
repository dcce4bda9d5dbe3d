"""Values that are wrong: refused by name, before anything is installed."""

import re

import pytest
from rendering import ChartError, Render


@pytest.mark.parametrize(
    ("example", "value", "message"),
    [
        (None, "global.imageRegistry=r.example", "objectStore.endpoint is empty: name your S3 endpoint"),
        ("laptop", "global.imageRegistry=", "global.imageRegistry is empty: this project publishes no images"),
        ("production", "objectStore.existingSecrets.journal=", "objectStore.existingSecrets.journal is empty"),
        ("laptop", "serving.model.uri=s3://other/models/a/b", "models are served from s3://clinical-r1/models/"),
        ("laptop", "serving.model.uri=a", "/serving/model/uri"),
        ("production", "serving.autoscaling.prometheus=", "serving.autoscaling.prometheus is empty"),
        ("production", "serving.replicas.max=2", "serving.replicas.max above serving.replicas.min"),
        ("one-gpu", "serving.replicas.min=2", "serving.replicas.min is above serving.replicas.max"),
        ("one-gpu", "objectStore.minio.tls.mode=existing", "objectStore.minio.tls.secret is empty"),
        ("laptop", "servng.enabled=true", "additional properties 'servng' not allowed"),
        ("laptop", "serving.engine.kind=gpu", "/serving/engine/kind"),
        ("laptop", "objectStore.bucket=Capital", "/objectStore/bucket"),
        ("production", "training.queue=", "training.queue is empty"),
    ],
)
def test_wrong_values_are_told_by_name(render: Render, example: str | None, value: str, message: str) -> None:
    with pytest.raises(ChartError, match=re.escape(message)):
        render(example, value)


@pytest.mark.parametrize("key", ["monitoring", "monitoring.rules", "kubeflow.state", "serving.gateway.config", "istio"])
def test_a_key_that_is_taken_away_is_named(render: Render, key: str) -> None:
    with pytest.raises(ChartError, match="values don't meet the specifications") as error:
        render("laptop", f"{key}=null")
    assert key.rpartition(".")[2] in str(error.value)


@pytest.mark.parametrize(
    "key",
    [
        "kubeflow.state.existingClaim",
        "kubeflow.endpointSecret",
        "kubeflow.patientSecret",
        "objectStore.existingSecret",
        "objectStore.existingSecrets.traces",
        "objectStore.caBundle.configMap",
        "serving.gateway.existingSecret",
        "training.queue",
        "kubeflow.serviceAccountName",
    ],
)
@pytest.mark.parametrize("name", ["my claim", "My-Name", "a/b", "-x", "x #y"])
def test_what_names_no_object_is_refused(render: Render, key: str, name: str) -> None:
    with pytest.raises(ChartError, match=key.rpartition(".")[2]):
        render("production", f"{key}={name}")


@pytest.mark.parametrize(
    "uri", ["s3://clinical-r1/models/a #b/1", "s3://clinical-r1/models/a/1?x", "s3://b c/models/a"]
)
def test_a_models_address_has_no_spaces_and_no_query(render: Render, uri: str) -> None:
    with pytest.raises(ChartError, match="/serving/model/uri"):
        render("laptop", f"serving.model.uri={uri}")
