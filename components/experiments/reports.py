"""The last step of each experiment: result.json and report.html from the evaluations of its arms."""

from typing import List  # noqa: UP035  (kfp reads List, not list, in an artifact annotation)

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def report_policies(
    experiment: str,
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    sft: dsl.Input[dsl.Dataset],
    runs: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    report: dsl.Output[dsl.Dataset],
    experiment_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Policies reinforced from one SFT model; `experiment` names the module that compares them."""
    from importlib import import_module
    from pathlib import Path

    from clinical_r1.evaluation.experiments.arms import ArmsReport
    from clinical_r1.evaluation.experiments.finding import publish
    from clinical_r1.step import load_settings, record_step

    with record_step("report", report.path) as record:
        settings = load_settings(ArmsReport, config)
        folders = [Path(run.path) for run in runs]
        write = import_module(f"clinical_r1.evaluation.experiments.{experiment}").report
        finding = write(settings, Path(splits.path), Path(sft.path), folders, Path(report.path))
        record.update(publish(finding, Path(report.path), experiment_report, metrics))


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def report_compare_synthesizers(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    first_traces: dsl.Input[dsl.Dataset],
    second_traces: dsl.Input[dsl.Dataset],
    chains: dsl.Input[dsl.Dataset],
    first: dsl.Input[dsl.Dataset],
    runs: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    report: dsl.Output[dsl.Dataset],
    experiment_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Models taught by two synthesizers, and how their chains differ."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.arms import ArmsReport
    from clinical_r1.evaluation.experiments.compare_synthesizers import report as write
    from clinical_r1.evaluation.experiments.finding import publish
    from clinical_r1.step import load_settings, record_step

    with record_step("report", report.path) as record:
        settings, out = load_settings(ArmsReport, config), Path(report.path)
        traces = (Path(first_traces.path), Path(second_traces.path))
        folders = [Path(run.path) for run in runs]
        finding = write(settings, Path(splits.path), traces, Path(chains.path), Path(first.path), folders, out)
        record.update(publish(finding, out, experiment_report, metrics))


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def report_cross_language(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    base: dsl.Input[dsl.Dataset],
    scratch: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    bilingual: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    report: dsl.Output[dsl.Dataset],
    experiment_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train language x test language x base model; the arms of both bases in the order of the settings."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.arms import ArmsReport
    from clinical_r1.evaluation.experiments.cross_language import report as write
    from clinical_r1.evaluation.experiments.finding import publish
    from clinical_r1.step import load_settings, record_step

    with record_step("report", report.path) as record:
        settings = load_settings(ArmsReport, config)
        folders = [Path(run.path) for run in [*scratch, *bilingual]]
        finding = write(settings, Path(splits.path), Path(base.path), folders, Path(report.path))
        record.update(publish(finding, Path(report.path), experiment_report, metrics))


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def report_held_out_site(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    traces: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    runs: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    report: dsl.Output[dsl.Dataset],
    experiment_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Trained without a site against trained with it; and whether the test was seen."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.finding import publish
    from clinical_r1.evaluation.experiments.held_out_site import HeldOutReport
    from clinical_r1.evaluation.experiments.held_out_site import report as write
    from clinical_r1.step import load_settings, record_step

    with record_step("report", report.path) as record:
        settings = load_settings(HeldOutReport, config)
        trained, folders = ([Path(one.path) for one in part] for part in (traces, runs))
        finding = write(settings, Path(splits.path), trained, folders, Path(report.path))
        record.update(publish(finding, Path(report.path), experiment_report, metrics))


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def report_audit_verifier(
    config: str,
    code_version: str,
    splits: dsl.Input[dsl.Dataset],
    audits: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    runs: dsl.Input[List[dsl.Dataset]],  # noqa: UP006
    report: dsl.Output[dsl.Dataset],
    experiment_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Audits of several judges, and one model's accuracy corrected for each one's errors."""
    from pathlib import Path

    from clinical_r1.evaluation.experiments.audit_verifier import AuditReport
    from clinical_r1.evaluation.experiments.audit_verifier import report as write
    from clinical_r1.evaluation.experiments.finding import publish
    from clinical_r1.step import load_settings, record_step

    with record_step("report", report.path) as record:
        settings = load_settings(AuditReport, config)
        found, folders = ([Path(one.path) for one in part] for part in (audits, runs))
        finding = write(settings, Path(splits.path), found, folders, Path(report.path))
        record.update(publish(finding, Path(report.path), experiment_report, metrics))
