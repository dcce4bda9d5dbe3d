"""Our traces as a data set in Hugging Face's form: chat messages with `reasoning_content`, JSONL and Parquet, a card.

The form is what TRL, NeMo Automodel, slime and LLaMA-Factory read. Identifiers of patients and cases stay behind.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.schema import Trace, TraceOutcome, iter_jsonl, write_jsonl
from clinical_r1.synthesis.dataset import CARD, TRACES

LICENCES = ("apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odbl")
"""What the Hub knows by these names; anything else is `other`, with its name beside it."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def export_traces(folder: Path, out: Path, licence: str = "", unverified: bool = True) -> int:
    """Write `out`/{README.md, data/train.jsonl, data/train.parquet} from a dataset folder; returns the rows.

    `unverified`: with the traces that no verifier has seen. Raises UserError where there is nothing to export.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / TRACES
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the folder of a synthesis or of `traces import`")
    rows = [
        message_row(trace)
        for trace in iter_jsonl(path, Trace)
        if trace.accepted and (unverified or trace.outcome is not TraceOutcome.UNVERIFIED)
    ]
    if not rows:
        raise UserError(f"{path}: no trace to export; look at rejected.jsonl beside it")
    write_jsonl(out / "data" / "train.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), out / "data" / "train.parquet")
    write_text(out / "README.md", _card(rows, folder, licence))
    return len(rows)


def message_row(trace: Trace) -> dict[str, Any]:
    """One trace as messages."""
    answer = {"role": "assistant", "content": trace.response, "reasoning_content": trace.thinking}
    return {
        "messages": [{"role": "user", "content": trace.question, "reasoning_content": None}, answer],
        "references": trace.references,
        "language": trace.language,
        "specialty": trace.specialty,
        "outcome": trace.outcome.value,
        "verified": trace.outcome is not TraceOutcome.UNVERIFIED,
    }


def _card(rows: list[dict[str, Any]], folder: Path, licence: str) -> str:
    known = licence.casefold() in LICENCES
    front: dict[str, Any] = {
        "language": sorted({row["language"] for row in rows}),
        "license": licence.casefold() if known else "other",
        **({} if known else {"license_name": licence or "not stated"}),
        "task_categories": ["text-generation"],
        "tags": ["medical", "reasoning", "clinical-r1"],
        "size_categories": [next((name for most, name in SIZES if len(rows) < most), "n>1M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train.parquet"}]}],
    }
    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else "# Reasoning traces\n"
    told = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    example = json.dumps({"role": "assistant", "content": "...", "reasoning_content": "..."})
    form = (
        f"## Form\n\n`messages` with `reasoning_content` (`{example}`); `verified` says whether a verifier found the "
    )
    return f"---\n{told}---\n\n{card}\n{form}answer right.\n"
