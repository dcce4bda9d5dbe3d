"""Parts of an experiment: which traces an arm is trained on, and a leak that is planted on purpose."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def select_traces(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[dsl.Dataset],
    selected: dsl.Output[dsl.Dataset],
):
    """Keep the traces of some languages, sites, or a number of cases."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.selection import Selection
    from clinical_r1.evaluation.experiments.selection import select_traces as select
    from clinical_r1.step import load_settings, record_step

    with record_step("select", selected.path) as record:
        settings = load_settings(Selection, config)
        record.update(select(settings, Path(splits.path), Path(traces.path), Path(selected.path)))


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def leak_cases(config: str, code_version: str, splits: dsl.Input[dsl.Dataset], leaking: dsl.Output[dsl.Dataset]):
    """The splits with test cases among the training cases, and which ones: a contaminated benchmark, on purpose."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.selection import Leak
    from clinical_r1.evaluation.experiments.selection import leak_cases as leak
    from clinical_r1.step import load_settings, record_step

    with record_step("leak", leaking.path) as record:
        record.update(leak(load_settings(Leak, config), Path(splits.path), Path(leaking.path)))
