"""The facts of an installation: what the chart's ConfigMap `clinical-r1-platform` says, and nobody else.

There is one such ConfigMap a namespace, whatever the release is called. Steps of a pipeline see the variables of
`IN_STEPS`; whoever talks to the cluster reads all of them with `Facts.read`. The run parameters of every pipeline that
name things of the installation (image, claim, Secrets, authority) have their values in `run_parameters`.
"""

import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clinical_r1.cluster.api import Cluster
from clinical_r1.errors import UserError
from clinical_r1.schema import first_problem

PLATFORM = "clinical-r1-platform"
IN_STEPS = (
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "CLINICAL_R1_BUCKET",
    "CLINICAL_R1_CA_KEY",
    "CLINICAL_R1_SIMULATOR",
    "CLINICAL_R1_TRAINING_QUEUE",
    "CLINICAL_R1_TRAINING_RUNTIME",
)
"""Variables that every step of a pipeline gets from the ConfigMap; the chart always writes all of them."""


def _named(variable: str, **more: Any) -> Any:
    return Field(validation_alias=variable, **more)


class Facts(BaseModel):
    """What the chart installed, in the words of its ConfigMap; an empty text is a part that is not there."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    release: str = _named("CLINICAL_R1_RELEASE")
    """The Helm release."""
    endpoint: str = _named("AWS_ENDPOINT_URL")
    """S3 endpoint, with scheme."""
    region: str = _named("AWS_REGION")
    """Of the store."""
    bucket: str = _named("CLINICAL_R1_BUCKET")
    """The one bucket."""
    ca_key: str = _named("CLINICAL_R1_CA_KEY")
    """Key of the authorities' ConfigMap (`run_parameters["ca_config_map"]`)."""
    run_parameters: dict[str, str] = _named("CLINICAL_R1_RUN_PARAMETERS")
    """Run parameter of the pipelines -> its value here."""
    simulator: str = _named("CLINICAL_R1_SIMULATOR")
    """host:port of the simulated endpoint; empty without `simulator.enabled`."""
    kubeflow_namespace: str = _named("CLINICAL_R1_KUBEFLOW_NAMESPACE")
    """Where Kubeflow Pipelines runs."""
    account: str = _named("CLINICAL_R1_KUBEFLOW_ACCOUNT")
    """Service account of pipeline steps."""
    registered: str = _named("CLINICAL_R1_KUBEFLOW_REGISTERED")
    """How pipelines came into the dashboard: job | crd | none."""
    training_runtime: str = _named("CLINICAL_R1_TRAINING_RUNTIME")
    """TrainingRuntime of the chart."""
    training_queue: str = _named("CLINICAL_R1_TRAINING_QUEUE")
    """Kueue LocalQueue of TrainJobs."""
    serving_name: str = _named("CLINICAL_R1_SERVING_NAME")
    """The InferenceService, and what clients call the model."""
    serving_url: str = _named("CLINICAL_R1_SERVING_URL")
    """Base URL of the gateway, inside of the cluster."""
    inference_service: dict[str, Any] = _named("CLINICAL_R1_INFERENCE_SERVICE")
    """Manifest of the InferenceService without a model; empty where the chart serves none."""
    rollout_mode: str = _named("CLINICAL_R1_ROLLOUT_MODE")
    """dark | replicas | replace."""
    rollout_min_requests: int = _named("CLINICAL_R1_ROLLOUT_MIN_REQUESTS")
    """Fewer requests than this promote nothing."""

    @field_validator("run_parameters", "inference_service", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        return json.loads(value or "{}") if isinstance(value, str) else value

    @classmethod
    def of(cls, data: Mapping[str, str], place: str) -> Self:
        """From the ConfigMap's data; UserError names the key that is missing or wrong, and what brings it."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise UserError(
                f"{place}: {first_problem(error)}: the chart is older than this program: run `helm upgrade`"
            ) from None

    @classmethod
    def read(cls, cluster: Cluster) -> Self:
        """Of the chart that is installed in the cluster's namespace; UserError where there is none."""
        data = cluster.config_map(PLATFORM)
        if data is None:
            raise UserError(
                f"no ConfigMap {PLATFORM} in namespace {cluster.namespace}: "
                f"helm install r1 helm/clinical-r1 --namespace {cluster.namespace}, or give --namespace"
            )
        return cls.of(data, f"ConfigMap {PLATFORM} in namespace {cluster.namespace}")
