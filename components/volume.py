"""Step 0 on a cluster: what says where the steps run is in order, and the claim with journals and data is there."""

from typing import Dict, List  # noqa: UP035

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

    from clinical_r1.runs.placed import check_placed
    from clinical_r1.step import one_sentence

    with one_sentence("volume"):
        check_placed(given)
        if storage_size:
            from clinical_r1.cluster.api import Cluster
            from clinical_r1.cluster.volume import ensure_claim

            ensure_claim(Cluster(), claim, storage_class, storage_size)
