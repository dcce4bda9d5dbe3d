"""From finished traces to a dataset: policies over the whole, files, hash, merge of shards, immutable address."""

import hashlib
import io
import itertools
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from clinical_r1.atomic import atomic_writer, file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.privacy.crossing import gate_state
from clinical_r1.schema import Case, Trace, TraceOutcome, Usage, iter_jsonl
from clinical_r1.synthesis.config import SynthesisConfig, draw
from clinical_r1.synthesis.report import SynthesisReport, card, check_yield, tally
from clinical_r1.synthesis.search import rejected

TRACES, REJECTED, PARQUET, CARD, REPORT = "traces.jsonl", "rejected.jsonl", "traces.parquet", "card.md", "report.json"
PARQUET_ROWS = 500
_TABLE = "CREATE TABLE traces (position INTEGER PRIMARY KEY, case_id TEXT, digest BLOB, guided INTEGER, line TEXT)"
"""`digest` of the text of an accepted trace; `guided`: the rank of one that was guided."""


class Spool:
    """Finished traces on disk in the order of arrival, read back by position, which orders the dataset: memory stays
    flat.

    A database without a name: it ends with its process, whatever ends that. What survives a crash is the journal, from
    which the same traces are made again.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        """`folder`: on the file system that the spool may fill."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "traces.spool"
        self._path.unlink(missing_ok=True)
        self._seed = seed
        self._rows = sqlite3.connect(self._path, isolation_level=None)
        for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", _TABLE, "BEGIN"):
            self._rows.execute(statement)
        self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._rows.close()

    def put(self, position: int, trace: Trace) -> None:
        digest = guided = None
        if trace.accepted:
            digest = hashlib.blake2b(f"{trace.thinking}\0{trace.response}".encode(), digest_size=16).digest()
        if trace.outcome is TraceOutcome.GUIDED:
            guided = draw("guided", self._seed, trace.case_id, trace.sample)
        row = (position, trace.case_id, digest, guided, trace.model_dump_json())
        try:
            self._rows.execute("INSERT INTO traces VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.OperationalError as error:
            raise UserError(f"{self._path}: cannot write ({error}); free space and run again") from None

    def copies(self) -> set[int]:
        """Positions of accepted traces whose text an earlier sample of the same case already has."""
        rows = self._rows.execute(
            "SELECT position, row_number() OVER (PARTITION BY case_id, digest ORDER BY position) FROM traces "
            "WHERE digest IS NOT NULL"
        )
        return {position for position, number in rows if number > 1}

    def guided_over(self, share: float, without: set[int]) -> set[int]:
        """Positions of guided traces above the largest allowed share of the dataset; which stay is decided by hash."""
        rows = self._rows.execute("SELECT position FROM traces WHERE guided IS NOT NULL ORDER BY guided, position")
        guided = [position for (position,) in rows if position not in without]
        accepted = self._rows.execute("SELECT count(digest) FROM traces").fetchone()[0] - len(without)
        if share >= 1:
            return set()
        return set(guided[int((accepted - len(guided)) * share / (1 - share) + 1e-9) :])

    def ordered(self) -> Iterator[tuple[int, Trace]]:
        for position, line in self._rows.execute("SELECT position, line FROM traces ORDER BY position"):
            yield position, Trace.model_validate_json(line)


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
    with atomic_writer(out_dir / TRACES, "wb") as kept, atomic_writer(out_dir / REJECTED, "wb") as refused:

        def written() -> Iterator[Trace]:
            for position, trace in spool.ordered():
                if position in reasons:
                    trace.outcome, trace.reason = TraceOutcome.REJECTED, reasons[position]
                (kept if trace.accepted else refused).write(trace.model_dump_json().encode() + b"\n")
                yield trace

        counted = tally(written(), config)
    write_parquet(out_dir / TRACES, out_dir / PARQUET)
    scrubbed = config.traces is not None and config.traces.scrub
    report = SynthesisReport(
        **counted,
        dataset_hash=file_sha256(out_dir / TRACES),
        cases_hash=file_sha256(cases),
        gate="passed" if scrubbed else gate_state(cases, config.crossing),
        endpoints=endpoints,
        seconds=round(seconds, 2),
        imported=imported or {},
    )
    write_text(out_dir / CARD, card(report, config))
    write_text(out_dir / REPORT, report.model_dump_json(indent=1) + "\n")
    return report


def write_parquet(traces: Path, target: Path) -> None:
    """The traces as Parquet, row group by row group; nested columns keep their structure.

    Through Arrow's JSON reader: rows made in Python would draw in pandas, 50 MB for nothing.
    """
    import pyarrow as pa
    import pyarrow.json as pj
    import pyarrow.parquet as pq

    verdict = pa.struct([("label", pa.string()), ("judge", pa.string()), ("reason", pa.string())])
    attempt = [("strategy", pa.string()), ("reasoning", pa.string()), ("answer", pa.string()), ("verdict", verdict)]
    usage = [(name, pa.float64() if name == "cost" else pa.int64()) for name in Usage.model_fields]
    kinds = {
        "references": pa.list_(pa.string()),
        "sample": pa.int64(),
        "attempts": pa.list_(pa.struct(attempt)),
        "usage": pa.struct(usage),
    }
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in Trace.model_fields])
    with atomic_writer(target, "wb") as handle, pq.ParquetWriter(handle, schema) as writer, open(traces, "rb") as lines:
        while block := b"".join(itertools.islice(lines, PARQUET_ROWS)):
            table = pj.read_json(
                io.BytesIO(block),
                read_options=pj.ReadOptions(use_threads=False, block_size=len(block) + 1),
                parse_options=pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
            )
            writer.write_table(pa.Table.from_batches(table.to_batches(), schema))


def merge_shards(
    config: SynthesisConfig, cases: Path, shard_dirs: Iterable[Path], out_dir: Path, state_dir: Path
) -> SynthesisReport:
    """One dataset from the outputs of all shards, in the order of `cases`; the same as a run without shards gives.

    Raises UserError where a shard is missing, unfinished or made from other cases: every case has to be there.
    """
    if config.traces is not None:
        # The first shard imports everything, so its dataset is the whole.
        folders = list(map(Path, shard_dirs))
        _copy(next((folder for folder in folders if read_report(folder).imported), folders[0]), out_dir)
        return read_report(out_dir)
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
            for trace in itertools.chain(iter_jsonl(folder / TRACES, Trace), iter_jsonl(folder / REJECTED, Trace)):
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


def _copy(folder: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in (TRACES, REJECTED, PARQUET, CARD, REPORT):
        shutil.copyfile(folder / name, target / name)


def read_report(folder: Path) -> SynthesisReport:
    """The report of a finished dataset folder; UserError where it is none."""
    path = folder / REPORT
    if not path.is_file():
        raise UserError(f"{folder}: no {REPORT}, so no finished synthesis output; run that shard to its end")
    return SynthesisReport.model_validate_json(path.read_text(encoding="utf-8"))


def store_dataset(folder: Path, root: Path) -> Path:
    """Copy a finished dataset to its immutable address `root/traces/<name>/<hash>`; an existing one is left alone."""
    report = read_report(folder)
    target = root / "traces" / report.name / report.dataset_hash[:16]
    if (target / REPORT).is_file():
        return target
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    _copy(folder, staging)
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    return target
