"""The claim that all steps of a run share: journals, checkpoints, data between training nodes."""

from collections.abc import Callable

from clinical_r1.cluster.api import Cluster, Refused


def ensure_claim(
    cluster: Cluster, name: str, storage_class: str, size: str, say: Callable[[str], None] = print
) -> bool:
    """Make a ReadWriteMany claim unless there is one of this name; returns whether it was made. Raises Refused."""
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    labels = {"app.kubernetes.io/part-of": "clinical-r1"}
    try:
        cluster.create_claim({"metadata": {"name": name, "labels": labels}, "spec": spec})
    except Refused as error:
        if error.status != 409:
            raise
        say(f"claim {name}: is there, used as it is")
        return False
    say(f"claim {name}: made, {size}")
    return True
