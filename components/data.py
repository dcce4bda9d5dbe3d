"""Steps 1 and 2: records become four disjoint splits, cases verified reasoning traces (paper section 2.1.2)."""

from typing import List  # noqa: UP035  (kfp reads List, not list, in an artifact annotation)

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


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def synthesize_shard(
    config: str,
    shard: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Output[dsl.Dataset],
    simulator: str = "",
):
    """Search, verify and rewrite the cases of one shard, written as "index/count".

    The journal in `state_dir` makes sure that a retry pays for no finished call again. An empty `config` is that of an
    experiment that trains nothing.
    """
    from pathlib import Path

    from clinical_r1.simulator.beside import simulated
    from clinical_r1.step import load_settings, record_step
    from clinical_r1.synthesis.config import Shard, SynthesisConfig
    from clinical_r1.synthesis.run import synthesize

    with record_step("synthesize", traces.path) as record, simulated(simulator):
        if not config:
            return
        settings = load_settings(SynthesisConfig, config)
        settings = settings.model_copy(update={"shard": Shard.parse(shard)})
        state = Path(state_dir) / f"synthesize-{shard.replace('/', '-of-')}"
        report = synthesize(settings, Path(splits.path) / "sft.jsonl", Path(traces.path), state)
        record.update(report.model_dump(mode="json"))


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def merge_traces(
    config: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    shards: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    traces: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
    datasets_dir: str = "",
):
    """One dataset from all shards; the same as a run without shards gives, whatever the shards' number and timing.

    A copy goes to its immutable address `datasets_dir`/traces/<name>/<hash>; an empty `datasets_dir` keeps none.
    """
    import json
    from pathlib import Path

    from clinical_r1.step import STEP_FILE, load_settings, publish_metrics, record_step
    from clinical_r1.synthesis.config import SynthesisConfig
    from clinical_r1.synthesis.dataset import merge_shards, store_dataset

    folders = [Path(shard.path) for shard in shards]
    searched = max(json.loads((folder / STEP_FILE).read_text())["seconds"] for folder in folders)
    with record_step("synthesize", traces.path, spent=searched) as record:
        settings = load_settings(SynthesisConfig, config)
        cases = Path(splits.path) / "sft.jsonl"
        report = merge_shards(settings, cases, folders, Path(traces.path), Path(state_dir) / "merge")
        record.update(report.model_dump(mode="json"))
        record["address"] = str(store_dataset(Path(traces.path), Path(datasets_dir))) if datasets_dir else ""
    publish_metrics(record, metrics)
