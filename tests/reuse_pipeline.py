"""Runs the records step under kfp.local with a cache, as the worker does: python tests/reuse_pipeline.py CASES ROOT."""

import logging
import sys
from pathlib import Path

from kfp import dsl, local

from clinical_r1.records.config import RecordsConfig
from clinical_r1.runs.sources import as_argument
from components.data import prepare_records


@dsl.pipeline(name="records-only")
def records_only(config: str, sources_sha256: str, code_version: str):
    """One step of the real pipeline."""
    prepare_records(config=config, sources_sha256=sources_sha256, code_version=code_version)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout)  # kfp says at this level that it reuses a step
    cases, root = sys.argv[1], Path(sys.argv[2])
    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(root / "outputs"),
        cache_root=str(root / "cache"),
        enable_caching=True,
    )
    phi = {"policy": "off", "off_because": "synthetic"}
    settings = {"sources": [{"path": cases}], "group_by": ["patient"], "phi": phi}
    records_only(config=as_argument(RecordsConfig.model_validate(settings)), sources_sha256="x", code_version="y")
