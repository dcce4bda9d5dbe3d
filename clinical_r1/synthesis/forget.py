"""Forget patients: take their records out of every file under a folder, and name the models that were trained on them.

Cases and traces are JSON lines that carry the patient's hash or the id of one of the patient's cases; journal rows
carry a keyed hash of either. A dataset that loses lines is another dataset: its hash, report and immutable address
change, and models whose manifest names the old hash (or that of any changed file) are listed, since no deletion undoes
training.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from clinical_r1.atomic import atomic_writer, file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.llm.journal import JOURNAL, JOURNAL_KEY, open_journal
from clinical_r1.privacy.crossing import RECORDS_REPORT
from clinical_r1.privacy.quotes import is_about, quotes, quotes_of, quoting_files, rows_of, walk
from clinical_r1.synthesis.dataset import PARQUET, REPORT, TRACES, write_parquet
from clinical_r1.synthesis.report import SynthesisReport

MANIFEST = "manifest.json"
SHORTEST_HASH = 16
"""Fewest hex digits by which a manifest may name a dataset (the length of an address)."""


class Forgotten(BaseModel):
    """What was removed, and what cannot be."""

    cases: int = 0
    """Distinct cases of the patients."""
    lines: dict[str, int] = Field(default_factory=dict)
    """Removed lines by file (relative to the root that it is under)."""
    journal_lines: int = 0
    datasets: dict[str, str] = Field(default_factory=dict)
    """Old hash -> new hash of every changed dataset."""
    hashes: list[str] = Field(default_factory=list)
    """Hashes that a model's manifest may name: of all changed files, as they were."""
    quoting: list[str] = Field(default_factory=list)
    """Pages and other files that quote the patients' texts or name their cases, removed whole: what wrote them can
    write them again."""
    unreached: list[str] = Field(default_factory=list)
    """What was not searched: files of other kinds by name, and places that no folder holds."""
    models: list[str] = Field(default_factory=list)
    """Models trained on one of them; retrain them, or record why they stay."""


def forget(
    patients: Sequence[str],
    roots: Sequence[Path],
    manifests: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Forgotten:
    """Remove all lines about `patients` (keyed hashes, as `Case.patient` has them) below `roots`.

    `manifests` are model manifests from elsewhere (an object store) by name; those in files named manifest.json below
    the roots are found. `dry_run` counts and changes nothing. Raises UserError where a root is missing, or a process
    of another machine uses a journal. Pages and other files that quote the patients are removed; what cannot be
    searched is named.
    """
    wanted = {patient for patient in patients if patient}
    if not wanted:
        raise UserError("forget: no patient given; pass the keyed hash that the records carry in `patient`")
    for root in roots:
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; give the folders that hold records, traces and journals")
    result = Forgotten()
    ids = {
        str(row["id"])
        for _, path in _files(roots, ".jsonl")
        for _, row in rows_of(path)
        if row.get("patient") in wanted and row.get("id")
    }
    result.cases = len(ids)
    needles = quotes_of(roots, wanted, ids)
    result.quoting, result.unreached = quoting_files(roots, ids, needles, dry_run)
    hashes: set[str] = set()
    changed: list[tuple[Path, str]] = []
    for root, path in list(_files(roots, ".jsonl")):
        before = file_sha256(path)
        if removed := _remove(path, wanted, ids, needles, dry_run):
            result.lines[str(path.relative_to(root))] = removed
            hashes.add(before)
            if not dry_run:
                _renew_records_report(path, before)
            if path.name == TRACES and not dry_run:
                _renew_dataset(path.parent, before, result)
                changed.append((path.parent, before))
    for _, path in list(_files(roots, ".key")):
        if path.name == JOURNAL_KEY and path.with_name(JOURNAL).is_file():
            with open_journal(path.parent) as journal:
                result.journal_lines += journal.forget(wanted | ids, dry_run)
    for folder, old in changed:
        if folder.name == old[:SHORTEST_HASH]:
            folder.rename(folder.with_name(result.datasets[old][:SHORTEST_HASH]))
    result.hashes = sorted(hashes)
    result.models = sorted(_trained_on(hashes, roots, manifests or {}))
    return result


def _files(roots: Sequence[Path], ending: str) -> Iterator[tuple[Path, Path]]:
    return ((root, path) for root, path in walk(roots) if path.name.endswith(ending))


def _remove(path: Path, patients: set[str], ids: set[str], needles: list[str], dry_run: bool) -> int:
    """Take the lines out, whole or not at all; returns how many."""

    def about(row: Mapping[str, Any]) -> bool:
        return is_about(row, patients, ids) or quotes(row, needles)

    count = sum(about(row) for _, row in rows_of(path))
    if count and not dry_run:
        with atomic_writer(path, "wb", private=True) as handle:
            for line, row in rows_of(path):
                if not about(row):
                    handle.write(line)
    return count


def _renew_records_report(split: Path, old: str) -> None:
    """The records report vouches for its splits by hash; what is left of one passed the gate as the whole did."""
    path = split.with_name(RECORDS_REPORT)
    if not path.is_file():
        return
    report = json.loads(path.read_text(encoding="utf-8"))
    if report.get("hashes", {}).get(split.name) == old:
        report["hashes"][split.name] = file_sha256(split)
        write_text(path, json.dumps(report, ensure_ascii=False, indent=2) + "\n")


def _renew_dataset(folder: Path, old: str, result: Forgotten) -> None:
    """Give a dataset that lost traces its new hash: Parquet twin, report, card. The card's counts stay."""
    new = file_sha256(folder / TRACES)
    result.datasets[old] = new
    if (folder / PARQUET).is_file():
        write_parquet(folder / TRACES, folder / PARQUET)
    if (folder / REPORT).is_file():
        report = SynthesisReport.model_validate_json((folder / REPORT).read_text(encoding="utf-8"))
        report.traces = sum(1 for _ in rows_of(folder / TRACES))
        report.dataset_hash = new
        write_text(folder / REPORT, report.model_dump_json(indent=1) + "\n")
    card = folder / "card.md"
    if card.is_file():
        text = card.read_text(encoding="utf-8").replace(old, new).replace(old[:SHORTEST_HASH], new[:SHORTEST_HASH])
        note = "Traces of patients who were forgotten have been removed since; the counts above are those from before."
        write_text(card, text.removesuffix(f"\n{note}\n") + f"\n{note}\n")


def _trained_on(hashes: set[str], roots: Sequence[Path], manifests: Mapping[str, Any]) -> set[str]:
    """Names of the models whose manifest mentions one of the hashes, in full or by its first 16 digits."""
    if not hashes:
        return set()
    short = {digest[:SHORTEST_HASH] for digest in hashes}
    named = [(name, json.dumps(manifest)) for name, manifest in manifests.items()]
    named += [
        (str(path.parent.relative_to(root)), path.read_text(encoding="utf-8"))
        for root, path in _files(roots, MANIFEST)
        if path.name == MANIFEST
    ]
    return {name for name, text in named if any(digest in text for digest in short)}
