"""The first steps on a cluster: the form's fields are in order and the claim is there, what was filled in becomes what
every step is told, what the training steps ask for. A mistake is one sentence here."""

from typing import Dict, List, NamedTuple  # noqa: UP035

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def provide_claim(
    image: str,
    image_pull_secret: str,
    accelerator: str,
    accelerators: str,
    cpu: str,
    memory: str,
    data_cpu: str,
    data_memory: str,
    node_selector: Dict[str, str],  # noqa: UP006
    tolerations: List[Dict[str, str]],  # noqa: UP006
    claim: str,
    storage_class: str,
    storage_size: str,
    store_secret: str,
    endpoint_secret: str,
    patient_secret: str,
    client_key_secret: str,
    ca_config_map: str,
    model_name: str = "clinicalgpt-r1",
    models_uri: str = "",
    deploy: str = "none",
    nodes: int = 1,
    deadline_hours: float = 1.0,
):
    """Refuse what no pod could be made of, or only a late step would meet; make the PersistentVolumeClaim if it is not
    there and has a `storage_size`."""
    # First of all: every local name is a parameter now.
    given = dict(locals())

    from clinical_r1.runs.form import check_placed
    from clinical_r1.step import one_sentence

    with one_sentence("volume"):
        check_placed(given)
        if storage_size:
            from clinical_r1.cluster.api import Cluster
            from clinical_r1.cluster.volume import ensure_claim

            ensure_claim(Cluster(), claim, storage_class, storage_size)


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def configure(
    pipeline: str,
    preset: str,
    records: str,
    record_map: str,
    languages: str,
    limit: int,
    base_model: str,
    traces: str,
    synthesizer_url: str,
    synthesizer_model: str,
    synthesizer_key: str,
    judge_url: str,
    judge_model: str,
    judge_key: str,
    endpoints_trusted: bool,
    sft_epochs: float,
    sft_learning_rate: float,
    algorithm: str,
    ppo_steps: int,
    ppo_learning_rate: float,
    batch_size: int,
    kl_beta: float,
    clip: float,
    reward_table: str,
    max_new_tokens: int,
    shards: int,
    seed: int,
    overrides: Dict[str, str],  # noqa: UP006
    state_dir: str,
    resolved_configuration: dsl.Output[dsl.Markdown],
) -> NamedTuple(  # type: ignore[valid-type]
    "Outputs",
    [
        ("records", str),
        ("synthesis", str),
        ("base_model", str),
        ("sft", str),
        ("ppo", str),
        ("evaluation", str),
        ("gate", str),
        ("report", str),
        ("settings", str),
        ("simulator", str),
        ("sources_sha256", str),
        ("state_dir", str),
        ("code_version", str),
        ("datasets_dir", str),
        ("shards", List[str]),  # noqa: UP006
        ("experiment", str),
        ("reference_training", str),
        ("reference_evaluation", str),
        ("arms_data", str),
        ("arms_state_dir", str),
        ("arms", List[Dict[str, str]]),  # noqa: UP006
    ],
):
    """Preset, parameters and overrides as the sections of a run, each an output, so that caching works by section."""
    # First of all: every local name is a parameter now.
    filled = {name: value for name, value in locals().items() if name not in ("pipeline", "resolved_configuration")}

    from clinical_r1.atomic import write_text
    from clinical_r1.runs.resolve import configure_run
    from clinical_r1.step import one_sentence

    with one_sentence("configure"):
        told, text = configure_run(pipeline, filled)
        write_text(resolved_configuration.path, text)
    return told


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def configure_audit(
    store: str,
    model_version: str,
    days: int,
    judge_url: str,
    judge_model: str,
    judge_key: str,
    endpoints_trusted: bool,
    labelled: str,
    overrides: Dict[str, str],  # noqa: UP006
    resolved_configuration: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("config", str), ("state_dir", str), ("code_version", str)]):  # type: ignore[valid-type]
    """The audit of served answers: `store` is the gateway's `sampling.store`, the bucket's audit/ where it is empty."""
    filled = {name: value for name, value in locals().items() if name != "resolved_configuration"}

    from clinical_r1.atomic import write_text
    from clinical_r1.runs.resolve import configure_audit
    from clinical_r1.step import one_sentence

    with one_sentence("configure"):
        told, text = configure_audit(filled)
        write_text(resolved_configuration.path, text)
    return told


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def plan_nodes(
    nodes: int,
    image: str,
    accelerator: str,
    accelerators: str,
    cpu: str,
    memory: str,
    claim: str,
    endpoint_secret: str,
    node_selector: Dict[str, str],  # noqa: UP006
    tolerations: List[Dict[str, str]],  # noqa: UP006
    deadline_hours: float,
) -> NamedTuple("Outputs", [("job", str), ("accelerators", str), ("cpu", str), ("memory", str)]):  # type: ignore[valid-type]
    """One node: the step trains, `job` is empty. More: it only waits for its TrainJob, and takes no accelerator."""
    # First of all: every local name is a parameter now.
    given = dict(locals())
    if nodes <= 1:
        return ("", accelerators, cpu, memory)
    from clinical_r1.cluster.nodes import Nodes

    return (Nodes.model_validate(given).model_dump_json(), "0", "1", "4Gi")
