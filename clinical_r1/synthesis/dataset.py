"""From finished traces to a dataset: policies over the whole, files, hash, merge of shards, immutable address."""

import hashlib
import itertools
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from clinical_r1.atomic import atomic_writer, file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.privacy.crossing import gate_state
from clinical_r1.schema import Case, Trace, TraceOutcome, iter_jsonl
from clinical_r1.synthesis.card import write_card
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.report import SynthesisReport, Tally, check_yield
from clinical_r1.synthesis.search import rejected
from clinical_r1.synthesis.spool import Spool

if TYPE_CHECKING:
    import pyarrow as pa

TRACES, REJECTED, PARQUET, CARD, REPORT = "traces.jsonl", "rejected.jsonl", "traces.parquet", "card.md", "report.json"
PARQUET_ROWS = 500


def write_dataset(
    spool: Spool,
    config: SynthesisConfig,
    cases: Path,
    out_dir: Path,
    endpoints: list[dict[str, object]],
    seconds: float,
    whole: bool,
    imported: dict[str, int] | None = None,
) -> SynthesisReport:
    """Write the dataset folder from a spool; `report.json` comes last, so a folder that has one is complete.

    `whole` is False for one shard of many: what is decided over the whole dataset (identical samples, the share of
    guided traces) is left to `merge_shards`, so that the result does not depend on the number of shards.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / REPORT).unlink(missing_ok=True)
    reasons: dict[int, str] = {}
    if whole:
        copies = spool.copies()
        reasons = dict.fromkeys(spool.guided_over(config.max_guided_share, copies), "guided_cap")
        reasons |= dict.fromkeys(copies, "identical_sample")
    tally = Tally()
    digest = hashlib.sha256()
    with atomic_writer(out_dir / TRACES, "wb") as kept, atomic_writer(out_dir / REJECTED, "wb") as refused:
        for position, trace in spool.ordered():
            if position in reasons:
                trace.outcome, trace.reason = TraceOutcome.REJECTED, reasons[position]
            tally.add(trace)
            line = trace.model_dump_json().encode() + b"\n"
            if trace.accepted:
                digest.update(line)
                kept.write(line)
            else:
                refused.write(line)
    write_parquet(out_dir / TRACES, out_dir / PARQUET)
    gate = gate_state(cases, config.crossing)
    if config.traces and config.traces.scrub:
        gate = "passed"
    report = tally.report(config, digest.hexdigest(), file_sha256(cases), gate, endpoints, seconds)
    report.imported = imported or {}
    write_card(report, config, out_dir / CARD)
    write_text(out_dir / REPORT, report.model_dump_json(indent=1) + "\n")
    return report


def write_parquet(traces: Path, target: Path) -> None:
    """The traces as Parquet, row group by row group; nested columns keep their structure.

    Through Arrow's JSON reader: rows made in Python would draw in pandas, 50 MB for nothing.
    """
    import io

    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    schema = _schema()
    with atomic_writer(target, "wb") as handle, pq.ParquetWriter(handle, schema) as writer, open(traces, "rb") as lines:
        while block := b"".join(itertools.islice(lines, PARQUET_ROWS)):
            table = pj.read_json(
                io.BytesIO(block),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            )
            writer.write_table(pa.Table.from_batches(table.to_batches(), schema))


def _schema() -> "pa.Schema":
    """Columns of a trace: text but for those named here."""
    import pyarrow as pa

    verdict = pa.struct([("label", pa.string()), ("judge", pa.string()), ("reason", pa.string())])
    attempt = [("strategy", pa.string()), ("reasoning", pa.string()), ("answer", pa.string()), ("verdict", verdict)]
    usage = [
        ("calls", pa.int64()),
        ("prompt_tokens", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("cost", pa.float64()),
    ]
    kinds = {
        "references": pa.list_(pa.string()),
        "sample": pa.int64(),
        "attempts": pa.list_(pa.struct(attempt)),
        "usage": pa.struct(usage),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in Trace.model_fields])


def merge_shards(
    config: SynthesisConfig, cases: Path, shard_dirs: Iterable[Path], out_dir: Path, state_dir: Path
) -> SynthesisReport:
    """One dataset from the outputs of all shards, in the order of `cases`; the same as a run without shards gives.

    Raises UserError where a shard is missing, unfinished or made from other cases: every case has to be there.
    """
    if config.traces is not None:
        return _imported_shard(list(map(Path, shard_dirs)), out_dir)
    samples = config.samples_per_case
    order: dict[str, int] = {}
    copies: list[tuple[int, Case]] = []
    for place, case in enumerate(iter_jsonl(cases, Case)):
        if case.id in order:
            copies.append((place, case))
        order.setdefault(case.id, place)
    endpoints: list[dict[str, object]] = []
    seconds = 0.0
    done: set[int] = set()
    with Spool(state_dir, config.seed) as spool:
        for folder in map(Path, shard_dirs):
            shard = read_report(folder)
            endpoints += shard.endpoints
            seconds = max(seconds, shard.seconds)
            for trace in _all_traces(folder):
                if trace.reason == "duplicate_case":
                    continue
                if trace.case_id not in order:
                    raise UserError(f"{folder}: holds traces of cases that are not in {cases}; merge shards of one run")
                position = order[trace.case_id] * samples + trace.sample
                if position not in done:
                    done.add(position)
                    spool.put(position, trace)
        if missing := len(order) * samples - len(done):
            raise UserError(
                f"{missing} of {len(order) * samples} traces are in no shard; run the missing shards, then merge"
            )
        for place, case in copies:
            spool.put(place * samples, rejected(case, 0, "duplicate_case"))
        report = write_dataset(spool, config, cases, out_dir, endpoints, seconds, whole=True)
    check_yield(report, config)
    return report


def _imported_shard(shards: list[Path], out_dir: Path) -> SynthesisReport:
    """The first shard imports everything, so its dataset is the whole."""
    whole = next((folder for folder in shards if read_report(folder).imported), shards[0])
    out_dir.mkdir(parents=True, exist_ok=True)
    for name in (TRACES, REJECTED, PARQUET, CARD, REPORT):
        shutil.copyfile(whole / name, out_dir / name)
    return read_report(out_dir)


def read_report(folder: Path) -> SynthesisReport:
    """The report of a finished dataset folder; UserError where it is none."""
    path = folder / REPORT
    if not path.is_file():
        raise UserError(f"{folder}: no {REPORT}, so no finished synthesis output; run that shard to its end")
    return SynthesisReport.model_validate_json(path.read_text(encoding="utf-8"))


def _all_traces(folder: Path) -> Iterator[Trace]:
    yield from iter_jsonl(folder / TRACES, Trace)
    yield from iter_jsonl(folder / REJECTED, Trace)


def store_dataset(folder: Path, root: Path) -> Path:
    """Copy a finished dataset to its immutable address `root/traces/<name>/<hash>`; an existing one is left alone."""
    report = read_report(folder)
    target = root / "traces" / report.name / report.dataset_hash[:16]
    if (target / REPORT).is_file():
        return target
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for name in (TRACES, REJECTED, PARQUET, CARD, REPORT):
        shutil.copyfile(folder / name, staging / name)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    return target
