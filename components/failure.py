"""Last, whatever happened: one sentence and one page about how a run ended."""

from kfp import dsl


@dsl.component(base_image="clinical-r1-trainer-python", install_kfp_package=False)
def report_failure(run: str, status: dsl.PipelineTaskFinalStatus, page: dsl.Output[dsl.Markdown]):
    """Print the end of the run, and for a failed one what to do next; the dashboard shows `page`."""
    from clinical_r1.atomic import write_text
    from clinical_r1.step import end_of_run

    text = end_of_run(run, status.state, status.pipeline_task_name, status.error_code, status.error_message)
    print(text, flush=True)
    write_text(page.path, text)
