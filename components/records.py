"""Step 1: records of any supported format become four disjoint splits."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def prepare_records(
    config: str,
    sources_sha256: str,
    code_version: str,
    splits: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    simulator: str = "",
):
    """Read, check, de-identify and split records; `sources_sha256` keys the cache to the content of the sources.

    Patients of a simulated world (`simulator` says so) need no secret key.
    """
    import os
    import tempfile
    from pathlib import Path

    from clinical_r1.records.config import RecordsConfig
    from clinical_r1.records.run import prepare
    from clinical_r1.runs.sources import fetched
    from clinical_r1.simulator.beside import PATIENT_KEY
    from clinical_r1.step import load_settings, publish_metrics, record_step

    with record_step("records", splits.path) as record, tempfile.TemporaryDirectory() as folder:
        settings = load_settings(RecordsConfig, config)
        if simulator:
            os.environ.setdefault(settings.phi.key_env, PATIENT_KEY)
        report = prepare(fetched(settings, Path(folder)), Path(splits.path))
        record.update(report.model_dump(mode="json"))
    publish_metrics(record, metrics)
