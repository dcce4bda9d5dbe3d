"""How the chains of two synthesizers differ, as effect sizes."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def analyse_chains(
    code_version: str,
    first: dsl.Input[dsl.Dataset],
    second: dsl.Input[dsl.Dataset],
    analysis: dsl.Output[dsl.Dataset],
):
    """chains.json and chains.html."""
    from pathlib import Path

    from clinical_r1.step import record_step
    from clinical_r1.synthesis.analysis import analyse

    with record_step("chains", analysis.path):
        names = ("first synthesizer", "second synthesizer")
        analyse(Path(first.path) / "traces.jsonl", Path(second.path) / "traces.jsonl", Path(analysis.path), names)
