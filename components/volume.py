"""Step 0 on a cluster: the claim with journals, checkpoints and data."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def provide_claim(claim: str, storage_class: str, storage_size: str):
    """Make the PersistentVolumeClaim if it is not there; without `storage_size` there is nothing to do."""
    if storage_size:
        from clinical_r1.cluster.api import Cluster
        from clinical_r1.cluster.volume import ensure_claim

        ensure_claim(Cluster(), claim, storage_class, storage_size)
