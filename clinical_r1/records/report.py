"""What the records step did, as numbers: report.json for machines, card.md for people. Never text of a record."""

from typing import Any

from pydantic import Field

from clinical_r1.page import render
from clinical_r1.records.row import Facts
from clinical_r1.schema import SPLITS
from clinical_r1.strict import Strict


class RecordsReport(Strict):
    """Counts of one run of `prepare`; the keys of report.json."""

    read: int
    """Rows met, well-formed or not."""
    malformed: int
    reject_rate: float
    """malformed / rows looked at; compared with max_reject_rate."""
    reject_reasons: dict[str, int] = Field(default_factory=dict)
    """Malformed and unusable rows by reason; every one has its file and line in rejects.jsonl."""
    limited: int
    """Rows left out by `limit` or `languages`; a seeded limit passes most of them over unread."""
    dropped: dict[str, int]
    """Well-formed rows left out: unusable, too_long, duplicate, near_duplicate, contaminated, leak, ungrouped."""
    quarantined: int
    cases: int
    """Cases in the four splits."""
    unused: int
    """Good cases beyond the split sizes asked for."""
    splits: dict[str, int]
    split_rule: str
    """`counts` or `fractions`."""
    groups: int
    group_by: list[str]
    without_patient: int
    """Cases of sources that know no patients; each is its own patient."""
    without_site: int = 0
    """Cases that name no site; each is grouped by its patient alone."""
    group_overlap: int = 0
    """Groups in more than one split; the step fails unless 0."""
    languages: dict[str, int]
    specialties: dict[str, int]
    chapters: dict[str, int]
    icd10: dict[str, int]
    """checked; of these coarsened (cut to a WHO code), not_who, icd9, foreign (ICD-11, ICD-O, SNOMED CT), ambiguous,
    cleared (kept without a code); mapped, unmapped (codes for `code_map`)."""
    lost: dict[str, int] = Field(default_factory=dict)
    """What the cases' records had and the cases do not, by kind (FHIR resources of no use or no standing)."""
    leaks: int
    """Cases whose question names the reference, whatever became of them."""
    phi: dict[str, Any]
    """policy, off_because, counts of what was scrubbed and of what sent records to quarantine, by type."""
    sources: list[dict[str, Any]]
    """By source: format, read, kept, quarantined, limited, rejected by kind, terms, hash of its files."""
    seed: int
    config_hash: str
    hashes: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the split files."""


def card(report: RecordsReport, splits: dict[str, list[Facts]]) -> str:
    """The dataset card as Markdown."""
    return render("records.md.j2", report=report, splits={name: splits[name] for name in SPLITS}).rstrip() + "\n"


def account(report: RecordsReport | dict[str, Any]) -> list[str]:
    """What happened to the rows, as lines for a console; also of report.json, or of those keys in a summary."""
    told = report.model_dump() if isinstance(report, RecordsReport) else report
    lines = []
    for source in told["sources"]:
        became = {**source["rejected"], "quarantined": source["quarantined"], "beyond the limit": source["limited"]}
        line = f"{source['name']} ({source['format']}): {source['read']} read, {source['kept']} kept"
        lines.append("; ".join(filter(None, (line, _said(became)))))
    lines += [f"  {count} x {reason}" for reason, count in list(told["reject_reasons"].items())[:8]]
    not_taken = ("not_who", "icd9", "foreign", "ambiguous", "cleared", "unmapped")
    codes = _said({kind: count for kind, count in told["icd10"].items() if kind in not_taken})
    lines += [f"  codes not taken: {codes}"] if codes else []
    if told["lost"]:
        shown = ", ".join(f"{count} {kind}" for kind, count in list(told["lost"].items())[:6])
        lines.append(f"  in the records but not in the cases: {shown}" + (", ..." if len(told["lost"]) > 6 else ""))
    phi = told["phi"]
    gate = "off, because " + phi["off_because"].replace("_", " ")
    if phi["policy"] != "off":
        gate = f"on, {sum(phi['scrubbed'].values())} identifiers removed, {told['quarantined']} records kept back"
    return [*lines, f"PHI gate: {gate}"]


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)
