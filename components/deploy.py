"""Last, where it is asked for: a model that the gate promotes goes into service through KServe."""

from typing import NamedTuple

from kfp import dsl


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
