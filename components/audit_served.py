"""Out of band: judges the answers that the gateway sampled."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def audit_answers(
    config: str,
    state_dir: str,
    code_version: str,
    report: dsl.Output[dsl.Dataset],
    audit_report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """`report` holds audit.html and audit.json, without any text of a sample; `audit_report` is for the dashboard."""
    from pathlib import Path

    from clinical_r1.atomic import write_text
    from clinical_r1.evaluation.judging.online import REPORT, OnlineAuditConfig, audit_served
    from clinical_r1.step import load_settings, publish_metrics, record_step

    with record_step("audit", report.path) as record:
        state = Path(state_dir) / f"audit-{code_version}"
        record.update(audit_served(load_settings(OnlineAuditConfig, config), Path(report.path), state))
        write_text(audit_report.path, (Path(report.path) / REPORT).read_text(encoding="utf-8"))
    publish_metrics({name: record[name] for name in ("samples", "with_reference")}, metrics)
