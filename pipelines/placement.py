"""Where and how the steps of a pipeline run on a cluster; each knob is a run parameter. kfp.local ignores all of it.

`both_forms` makes of one definition the pipeline of one machine, which is told every step's settings, and that of a
cluster, whose first step finds them out from a form. What the chart made (store, bucket, authority, image) has names
that are run parameters too: the chart registers the pipelines with the installation's own names as defaults.
"""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Dict, List, NamedTuple, get_args, get_origin  # noqa: UP035  (kfp reads Dict, List)
from unittest import mock

from kfp import dsl, kubernetes

from clinical_r1.cluster.facts import IN_STEPS, PLATFORM
from clinical_r1.cluster.nodes import ENDPOINT_KEYS, PATIENT_KEY, Nodes
from clinical_r1.runs.form import FORMS
from components.configure import configure, configure_audit, plan_nodes, provide_claim

STATE_MOUNT, STORE_MOUNT, CA_MOUNT = "/state", "/etc/clinical-r1/store", "/etc/clinical-r1/ca"
_KINDS = {"str": str, "int": int, "float": float, "bool": bool, "map": Dict[str, str]}  # noqa: UP006


class Placement(NamedTuple):
    """The run parameters that every pipeline has, with their defaults.

    Inside of a pipeline each field is kfp's channel to the value that the run was given.
    """

    image: Annotated[str, "Trainer image that every step runs in."] = "clinical-r1-trainer-python"
    image_pull_secret: Annotated[str, "Secret to pull the image with; it need not be there."] = "clinical-r1-pull"
    accelerator: Annotated[str, "Resource name of the accelerator."] = "nvidia.com/gpu"
    accelerators: Annotated[str, "Accelerators of each training, evaluation and gate step; 0: CPU."] = "0"
    cpu: Annotated[str, "CPU request of each training, evaluation and gate step."] = "2"
    memory: Annotated[str, "Memory of each training, evaluation and gate step, request and limit."] = "8Gi"
    data_cpu: Annotated[str, "CPU request of the steps that handle data, and of each shard of synthesis."] = "1"
    data_memory: Annotated[str, "Memory of the steps that handle data, request and limit."] = "4Gi"
    node_selector: Annotated[Dict[str, str], "Labels of the nodes that the training steps run on, as JSON."] = {}  # noqa: UP006
    tolerations: Annotated[List[Dict[str, str]], "Taints that the training steps tolerate, as a JSON list."] = []  # noqa: UP006
    claim: Annotated[str, "PersistentVolumeClaim at /state: journals, checkpoints, data."] = "clinical-r1-state"
    storage_class: Annotated[str, "Storage class of the claim where it has to be made. Empty: the cluster's own."] = ""
    storage_size: Annotated[str, "Size of the claim where it has to be made. Empty: it must be there."] = ""
    store_secret: Annotated[str, "Secret with the object store's keys."] = "clinical-r1-store-pipelines"
    endpoint_secret: Annotated[str, "Secret with the endpoints' keys; it need not be there."] = "clinical-r1-endpoints"
    patient_secret: Annotated[str, "Secret with the key that hashes patients."] = "clinical-r1-patient-key"
    client_key_secret: Annotated[
        str, "Secret whose `key` is a client's key of the gateway, for the probes of `deploy`."
    ] = "clinical-r1-first-client"
    ca_config_map: Annotated[str, "ConfigMap with the authority of the store's certificate."] = "clinical-r1-ca"

    def volume(self, asked: Mapping[str, Any]) -> dsl.PipelineTask:
        """The step that checks these parameters (and those that the pipeline `asked`) and makes the claim; the first
        step that mounts it comes after it."""
        return self.plain(provide_claim(**self._asdict(), **asked), "Check the fields, provide the volume")

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
        """What the training steps will ask for (`plan_nodes`)."""
        told = {name: getattr(self, name) for name in Nodes.model_fields if name in self._fields}
        return self.plain(plan_nodes(nodes=nodes, deadline_hours=deadline_hours, **told), "Plan the nodes")

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
        """A step that calls endpoints, with their keys as variables; which of them a run needs its configuration says.

        Not retried on one machine: there a wrong setting would be tried four times before the user reads of it.
        """
        return self._as_variables(task, self.endpoint_secret, {key: key for key in ENDPOINT_KEYS})

    def hashes_patients(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """A step that turns patient numbers into hashes: the key for that as a variable."""
        return self._as_variables(task, self.patient_secret, {PATIENT_KEY: PATIENT_KEY}, optional=False)

    def asks_the_model(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """A step that is a client of the served model: its key as a variable, where the gateway asks for one."""
        return self._as_variables(task, self.client_key_secret, {"key": "CLINICAL_R1_API_KEY"})

    def _as_variables(
        self, task: dsl.PipelineTask, secret: str, keys: dict[str, str], optional: bool = True
    ) -> dsl.PipelineTask:
        return kubernetes.use_secret_as_env(task, secret, keys, optional=optional)

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


class OnCluster(Placement):
    """On a cluster a step that calls endpoints is retried with back-off (its journal pays for nothing twice)."""

    def calls(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """With the keys, and retries."""
        task.set_retry(num_retries=3, backoff_duration="60s", backoff_factor=2.0, backoff_max_duration="1800s")
        return super().calls(task)


def both_forms(
    define: Callable[..., Any], name: str, description: str, unused: Collection[str] = ()
) -> tuple[Any, Any]:
    """The pipeline of `define(place, ...)` twice: what runs on one machine, and what is compiled for a cluster.

    `define` takes a `Placement` first, whose `unused` fields no step of it reads: nobody is asked for them. Its
    arguments without a default are what the configure step finds out: on one machine the pipeline takes them, on a
    cluster it takes the fields of the form of that name in their place.
    """
    own = list(inspect.signature(define).parameters.values())[1:]
    told = [parameter for parameter in own if parameter.default is parameter.empty]
    asked = [parameter for parameter in own if parameter.default is not parameter.empty]
    fields = [knob for knob in Placement._fields if knob not in unused]
    knobs = [_parameter(knob, Placement._field_defaults[knob], Placement.__annotations__[knob]) for knob in fields]
    questions = [
        _parameter(question, default, Annotated[_KINDS[kind], words])
        for question, (kind, default, words, *_) in FORMS[name].items()
    ]

    def local(*values: Any) -> Any:
        place = Placement(**dict(zip(fields, values[len(own) :], strict=True)))
        return define(place, *values[: len(own)])

    def on_cluster(*values: Any) -> None:
        given = dict(zip(inspect.signature(on_cluster).parameters, values, strict=True))
        place = OnCluster(**{knob: given[knob] for knob in fields})
        filled = {question.name: given[question.name] for question in questions}
        kind = filled.pop("experiment", name)
        first = configure_audit(**filled) if name == "audit" else configure(pipeline=kind, **filled)
        further = {parameter.name: given[parameter.name] for parameter in asked}
        first = Placement.calls(place, place.step(first, "Configure")).after(place.volume(further))
        # Never from the cache: the records may have changed under the same name.
        first.set_caching_options(False)
        settings = {parameter.name: first.outputs[parameter.name] for parameter in told}
        define(place, **settings, **further)

    _sign(local, description, [*told, *asked, *knobs], inspect.signature(define).return_annotation)
    _sign(on_cluster, description, [*questions, *asked, *knobs])
    # kfp asks at each setting of each task whether it is a single step (here it always is). To name the method in its
    # error, it looks up the source of every frame of the stack first, and that through all modules there are: most of
    # what importing the pipelines took.
    with mock.patch.object(dsl.PipelineTask, "_ensure_container_spec_exists", lambda task: None, create=True):
        made = dsl.pipeline(name=name, description=description)
        return made(local), made(on_cluster)


def _parameter(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def _sign(
    function: Any, summary: str, parameters: Iterable[inspect.Parameter], returns: Any = inspect.Signature.empty
) -> None:
    """Give a function a signature and docstring that kfp reads: plain types, and a description of each parameter."""
    plain, lines = [], [summary, "", "Args:"]
    for one in parameters:
        if get_origin(one.annotation) is Annotated:
            kind, words = get_args(one.annotation)
            lines.append(f"    {one.name}: {words}")
            one = one.replace(annotation=kind)
        plain.append(one)
    function.__signature__ = inspect.Signature(plain, return_annotation=returns)
    function.__doc__ = "\n".join([*lines, ""])
