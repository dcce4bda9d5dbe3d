"""The records step: sources in, four disjoint splits of de-identified cases out.

    prepare(RecordsConfig(sources=[Source(path="cases.jsonl")]), Path("out"))

writes out/{sft,rl,validation,test}.jsonl (`schema.Case`), rejects.jsonl and quarantine.jsonl (file, line, reason; no
text), report.json and card.md. Order: read, check, PHI gate, duplicates, contamination, leakage, split, write.
Nothing is written when a step fails, but for rejects.jsonl where there were too many malformed rows.
"""

import hashlib
from collections import Counter
from pathlib import Path

from clinical_r1.atomic import file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.records import icd10
from clinical_r1.records.config import RecordsConfig
from clinical_r1.records.gate import run_gate
from clinical_r1.records.intake import enforce_reject_rate, read_all
from clinical_r1.records.policies import Kept, apply_policies
from clinical_r1.records.report import RecordsReport, card, counts
from clinical_r1.records.split import Item, assign, groups_of
from clinical_r1.schema import SPLITS, Case, write_jsonl


def read_cases(config: RecordsConfig) -> list[Case]:
    """Gated, cleaned cases without splitting them: for evaluation sets and other single-pool uses."""
    intake = read_all(config)
    enforce_reject_rate(intake, config)
    return [kept.case for kept in apply_policies(run_gate(intake.rows, config), config).kept]


def prepare(config: RecordsConfig, out_dir: Path) -> RecordsReport:
    """Run the step; see the module's docstring. UserError for input that a user can correct."""
    intake = read_all(config)
    try:
        enforce_reject_rate(intake, config)
    except UserError:
        write_jsonl(out_dir / "rejects.jsonl", intake.rejects)
        raise
    gated = run_gate(intake.rows, config)
    policies = apply_policies(gated, config)
    if not policies.kept:
        raise UserError(
            f"{config.sources[0].path}: none of {len(intake.rows)} rows is left "
            f"({len(gated.quarantined)} quarantined, {len(policies.rejects)} dropped); relax the records policies"
        )
    items = [_item(kept, config) for kept in policies.kept]
    found, rule = assign(items, config.splits, config.seed)
    splits = {name: [policies.kept[i].case for i in found[name]] for name in SPLITS}

    for name in SPLITS:
        write_jsonl(out_dir / f"{name}.jsonl", splits[name])
    write_jsonl(out_dir / "rejects.jsonl", [*intake.rejects, *policies.rejects])
    write_jsonl(out_dir / "quarantine.jsonl", gated.quarantined)
    every = [case for name in SPLITS for case in splits[name]]
    report = RecordsReport(
        read=len(intake.rows) + intake.limited + len(intake.rejects),
        malformed=len(intake.rejects),
        reject_rate=round(intake.reject_rate, 6),
        limited=intake.limited,
        dropped=policies.dropped,
        quarantined=len(gated.quarantined),
        cases=len(every),
        unused=len(found["unused"]),
        splits={name: len(splits[name]) for name in SPLITS},
        split_rule=rule,
        groups=len(groups_of(items)),
        group_by=list(config.group_by),
        without_patient=sum(not case.patient for case in every),
        without_site=sum(not case.site for case in every),
        languages=counts(case.language for case in every),
        specialties=counts(case.specialty for case in every),
        chapters=counts(icd10.chapter(case.icd10) or "none" for case in every),
        icd10={name: intake.codes[name] for name in ("checked", "coarsened", "cleared")},
        leaks=policies.leaks,
        phi=gated.summary,
        sources=intake.sources,
        seed=config.seed,
        config_hash=hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16],
        hashes={f"{name}.jsonl": file_sha256(out_dir / f"{name}.jsonl") for name in SPLITS},
    )
    write_text(out_dir / "card.md", card(report, splits))
    write_text(out_dir / "report.json", report.model_dump_json(indent=2) + "\n")
    return report


def _item(kept: Kept, config: RecordsConfig) -> Item:
    case = kept.case
    stratum = {
        "specialty": case.specialty,
        "icd10_chapter": icd10.chapter(case.icd10),
        "language": case.language,
        "site": case.site,
    }
    named = {"patient": case.patient, "site": case.site}
    keys = [(name, named[name]) for name in config.group_by if named[name]]
    return Item(
        id=case.id,
        stratum=tuple(stratum[name] for name in config.stratify_by),
        keys=(*keys, *kept.keys),
        test_only=kept.site in config.splits.test_sites,
    )


def overlap(splits: dict[str, list[Case]], key: str) -> int:
    """How many non-empty values of a case field (`patient`, `site`, `id`) occur in more than one split."""
    homes: Counter[str] = Counter()
    for cases in splits.values():
        homes.update({getattr(case, key) for case in cases} - {""})
    return sum(times > 1 for times in homes.values())
