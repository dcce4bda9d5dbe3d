"""Step 2: cases become verified reasoning traces (paper section 2.1.2)."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def synthesize_traces(
    config: str,
    state_dir: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
):
    """Search, verify and rewrite; `state_dir` holds the journal, so that a retry pays for no finished call again."""
    from pathlib import Path

    from clinical_r1.step import flat_numbers, load_settings, record_step
    from clinical_r1.synthesis.config import SynthesisConfig
    from clinical_r1.synthesis.run import synthesize

    with record_step("synthesize", traces.path) as record:
        cases = Path(splits.path) / "sft.jsonl"
        state = Path(state_dir) / "synthesize"
        report = synthesize(load_settings(SynthesisConfig, config), cases, Path(traces.path), state)
        record.update(report.model_dump(mode="json"))
    for name, value in flat_numbers(record).items():
        metrics.log_metric(name, value)
