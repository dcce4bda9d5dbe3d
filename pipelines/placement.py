"""Where and how the steps of a pipeline run on a cluster; each knob is a run parameter. kfp.local ignores all of it.

`both_forms` gives a pipeline function the fields of `Placement` as run parameters after its own; inside of it the
`Placement` puts them on each task. What the chart made (store, bucket, authority) comes from the ConfigMap
`clinical-r1-platform` and a Secret, so that the compiled pipeline holds no address; both are required: where one is
missing the pod does not start, and its event says which. The defaults below are those of a release `clinical-r1`;
what the chart registers carries its own (clinical_r1/cluster/facts.py).
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Dict, List, NamedTuple  # noqa: UP035  (kfp reads Dict and List)

from kfp import dsl, kubernetes

from clinical_r1.cluster.facts import IN_STEPS, PLATFORM
from clinical_r1.cluster.nodes import ENDPOINT_KEYS, PATIENT_KEY
from components.failure import report_failure
from components.nodes import plan_nodes
from components.volume import provide_claim

STATE_MOUNT, STORE_MOUNT, CA_MOUNT = "/state", "/etc/clinical-r1/store", "/etc/clinical-r1/ca"
_RETRIES = {"num_retries": 3, "backoff_duration": "60s", "backoff_factor": 2.0, "backoff_max_duration": "1800s"}
_OF_A_JOB = (
    "image",
    "accelerator",
    "accelerators",
    "cpu",
    "memory",
    "claim",
    "endpoint_secret",
    "node_selector",
    "tolerations",
)
_cluster: ContextVar[bool] = ContextVar("cluster", default=False)


class Placement(NamedTuple):
    """The run parameters that every pipeline has, with their defaults; docs/runs.md tells what each does.

    Inside of a pipeline each field is kfp's channel to the value that the run was given.
    """

    image: str = "clinical-r1-trainer-python"
    image_pull_secret: str = ""
    accelerator: str = "nvidia.com/gpu"
    accelerators: str = "0"
    cpu: str = "4"
    memory: str = "32Gi"
    data_cpu: str = "1"
    data_memory: str = "8Gi"
    node_selector: Dict[str, str] = {}  # noqa: UP006  (kfp copies defaults into the YAML)
    tolerations: List[Dict[str, str]] = []  # noqa: UP006
    claim: str = "clinical-r1-state"
    storage_class: str = ""
    storage_size: str = ""
    store_secret: str = "clinical-r1-store-pipelines"
    endpoint_secret: str = "clinical-r1-endpoints"
    patient_secret: str = "clinical-r1-patient-key"
    ca_config_map: str = "clinical-r1-ca"

    def volume(self) -> dsl.PipelineTask:
        """The step that makes the claim; the first step that mounts it comes after it."""
        made = provide_claim(claim=self.claim, storage_class=self.storage_class, storage_size=self.storage_size)
        return self.plain(made, "claim")

    def plain(self, task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
        """Image, title, registry, and nothing of the cluster's: the step that makes the claim."""
        task.set_container_image(self.image).set_display_name(title)
        # Kubeflow sets the rest of restricted pod security by itself, this only where its server is told to.
        kubernetes.set_security_context(task, run_as_non_root=True)
        return kubernetes.set_image_pull_secrets(task, [self.image_pull_secret])

    def step(self, task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
        """A step that handles data: the claim, the store and the caches, no accelerator."""
        return self._asks(self._common(task, title), self.data_cpu, self.data_memory)

    def plan(self, nodes: Any, deadline_hours: Any) -> dsl.PipelineTask:
        """What the training steps will ask for: components/nodes.py."""
        told = {name: getattr(self, name) for name in _OF_A_JOB}
        return self.plain(plan_nodes(nodes=nodes, deadline_hours=deadline_hours, **told), "nodes")

    def train(self, task: dsl.PipelineTask, title: str, plan: dsl.PipelineTask | None = None) -> dsl.PipelineTask:
        """A step that computes with a model: accelerators too, on the nodes that are chosen for them. With a `plan` it
        may only wait for its TrainJob, and asks for what the plan says."""
        asked = plan.outputs if plan else self._asdict()
        task = self._common(task, title)
        task.set_accelerator_type(self.accelerator).set_accelerator_limit(asked["accelerators"])
        self._asks(task, asked["cpu"], asked["memory"], self.accelerator, asked["accelerators"])
        kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory")
        kubernetes.add_node_selector_json(task, self.node_selector)
        kubernetes.add_toleration_json(task, self.tolerations)
        return task

    def calls(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """A step that calls endpoints: their keys, and on a cluster retries with back-off (journals pay nothing twice).

        Not on one machine: there a wrong setting would be tried four times before the user reads of it.
        """
        if _cluster.get():
            task.set_retry(**_RETRIES)
        return self.keys(task)

    def hashes_patients(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """A step that turns patient numbers into hashes: the key for that as a variable."""
        return kubernetes.use_secret_as_env(task, self.patient_secret, {PATIENT_KEY: PATIENT_KEY}, optional=False)

    def keys(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """The keys of endpoints as variables; which of them a run needs its configuration says."""
        return kubernetes.use_secret_as_env(
            task, self.endpoint_secret, {key: key for key in ENDPOINT_KEYS}, optional=True
        )

    def _asks(self, task: dsl.PipelineTask, cpu: Any, memory: Any, *further: Any) -> dsl.PipelineTask:
        """What the pod asks for. kfp 2.17 hands resources into a loop only where the task names them as its inputs."""
        task.register_pipeline_channels([cpu, memory, *further])
        return task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory)

    def _common(self, task: dsl.PipelineTask, title: str) -> dsl.PipelineTask:
        task = self.plain(task, title)
        kubernetes.mount_pvc(task, self.claim, STATE_MOUNT)
        kubernetes.use_secret_as_volume(task, self.store_secret, STORE_MOUNT, optional=False)
        kubernetes.use_config_map_as_volume(task, self.ca_config_map, CA_MOUNT, optional=False)
        kubernetes.use_config_map_as_env(task, PLATFORM, {name: name for name in IN_STEPS}, optional=False)
        kubernetes.add_pod_label(task, "app.kubernetes.io/part-of", "clinical-r1")
        kubernetes.add_pod_label(task, "sidecar.istio.io/inject", "false")
        return task


def both_forms(define: Callable[..., Any], name: str, description: str) -> tuple[Any, Any]:
    """The pipeline of `define(place, ...)` twice: what runs on one machine, and what is compiled for a cluster.

    `define` takes a `Placement` first; the pipeline takes its other arguments and the fields of `Placement`.
    """
    signature = inspect.signature(define)
    own = list(signature.parameters.values())[1:]
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    knobs = [
        inspect.Parameter(name, kind, default=Placement._field_defaults[name], annotation=annotation)
        for name, annotation in Placement.__annotations__.items()
    ]

    def placed(*values: Any) -> Any:
        return define(Placement(*values[len(own) :]), *values[: len(own)])

    placed.__signature__ = signature.replace(parameters=[*own, *knobs])  # type: ignore[attr-defined]
    placed.__doc__ = define.__doc__
    return dsl.pipeline(name=name, description=description)(placed), _on_cluster(placed, name, description)


def _on_cluster(define: Callable[..., Any], name: str, description: str) -> Any:
    """The pipeline that is compiled: the steps of `define` with retries, and a failure report whatever happens.

    KFP hands out nothing from inside of an exit handler, so what runs on one machine is `define` alone.
    """
    with _as_cluster():
        steps = dsl.pipeline(name=f"{name}-steps", description=description)(define)

    signature = inspect.signature(define)

    def guarded(*values: Any) -> None:
        arguments = dict(zip(signature.parameters, values, strict=True))
        with dsl.ExitHandler(
            report_failure(run=dsl.PIPELINE_JOB_NAME_PLACEHOLDER).set_container_image(arguments["image"])
        ):
            steps(**arguments)

    guarded.__signature__ = signature.replace(return_annotation=inspect.Signature.empty)  # type: ignore[attr-defined]
    guarded.__doc__ = define.__doc__
    return dsl.pipeline(name=name, description=description)(guarded)


@contextmanager
def _as_cluster() -> Iterator[None]:
    token = _cluster.set(True)
    try:
        yield
    finally:
        _cluster.reset(token)
