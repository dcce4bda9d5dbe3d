"""What the training steps of a run ask for: accelerators of their own, or a TrainJob on many nodes."""

from typing import Dict, List, NamedTuple  # noqa: UP035

from kfp import dsl


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
    if nodes <= 1:
        return ("", accelerators, cpu, memory)
    from clinical_r1.cluster.nodes import Nodes

    job = Nodes(
        nodes=nodes,
        image=image,
        accelerator=accelerator,
        accelerators=int(accelerators),
        cpu=cpu,
        memory=memory,
        claim=claim,
        endpoint_secret=endpoint_secret,
        node_selector=node_selector,
        tolerations=tolerations,
        deadline_hours=deadline_hours,
    )
    return (job.model_dump_json(), "0", "1", "4Gi")
