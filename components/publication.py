"""Step 9, and the last where it is asked for: the model goes to the store, and into service through KServe."""

from typing import NamedTuple

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def publish_model(
    name: str,
    models_uri: str,
    settings: str,
    code_version: str,
    sources_sha256: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    predictions: dsl.Input[dsl.Dataset],
    decision: dsl.Input[dsl.Dataset],
    report: dsl.Input[dsl.Dataset],
    manifest: dsl.Output[dsl.Model],
    model_card: dsl.Output[dsl.Markdown],
) -> NamedTuple("Outputs", [("uri", str)]):  # type: ignore[valid-type]
    """Upload to `models_uri` (the chart's bucket without it) and point `candidate` there; `manifest` is for lineage."""
    import os
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.objectstore.publication import publish_run
    from clinical_r1.step import record_step

    with record_step("publish", manifest.path) as record:
        folders = {"splits": splits, "traces": traces, "predictions": predictions, "gate": decision, "report": report}
        paths = {key: Path(artifact.path) for key, artifact in folders.items()}
        facts = {"run_id": manifest.uri, "code_version": code_version, "sources_sha256": sources_sha256}
        store = models_uri or f"s3://{os.environ['CLINICAL_R1_BUCKET']}/models"
        published = publish_run(store, name, Path(model.path) / "model", paths, settings, facts)
        write_text(Path(manifest.path) / "manifest.json", published.model_dump_json(indent=1) + "\n")
        uri = f"{store.rstrip('/')}/{name}/{published.version}"
        record.update({"uri": uri, "version": published.version, "bytes": published.size})
        manifest.metadata.update({"uri": uri, "version": published.version})
        write_text(model_card.path, (Path(report.path) / "MODEL_CARD.md").read_text(encoding="utf-8"))
    return (uri,)


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def deploy_published(
    uri: str,
    mode: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    decision: dsl.Input[dsl.Dataset],
    rollout: dsl.Output[dsl.Markdown],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", [("result", str)]):  # type: ignore[valid-type]
    """`mode` is none, dark or replicas; the probe cases are those of the validation split. `result` says what came."""
    import os
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.evaluation.promotion.run import read_gate
    from clinical_r1.schema import Case, read_jsonl
    from clinical_r1.step import one_sentence, publish_metrics

    with one_sentence("deploy"):
        gate = read_gate(Path(decision.path)).decision
        observed: dict[str, object] = {}
        if mode == "none":
            result = "not asked for"
        elif gate != "promote":
            result = f"nothing deployed: the gate says {gate}"
        else:
            from clinical_r1.cluster.deploy import deploy_model

            questions = [case.prompt for case in read_jsonl(Path(splits.path) / "validation.jsonl", Case)]
            key = os.environ.get("CLINICAL_R1_API_KEY", "")
            verdict = deploy_model(uri, mode, questions, key)  # type: ignore[arg-type]
            result, observed = f"{verdict.decision}: {verdict.reason}", verdict.observed.model_dump()
        print(f"{uri}: {result}", flush=True)
        write_text(rollout.path, f"# Deployment\n\n`{uri}`\n\n{result}\n")
        publish_metrics(observed, metrics)
    return (result,)
