"""The records step: sources in, four disjoint splits of de-identified cases out.

    prepare(RecordsConfig(sources=[Source(path="cases.jsonl")]), Path("out"))

writes out/{sft,rl,validation,test}.jsonl (`schema.Case`), rejects.jsonl and quarantine.jsonl (file, line, reason; no
text), report.json and card.md. Order: read, check, PHI gate, duplicates, contamination, leakage, split, write; texts
wait
on disk in between. Nothing is written when a step fails, but for rejects.jsonl where there were too many malformed
rows.
"""

import hashlib
import json
import os
import secrets
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern

from clinical_r1.atomic import atomic_writer, file_sha256, write_text
from clinical_r1.errors import UserError
from clinical_r1.progress import progress
from clinical_r1.records import icd10
from clinical_r1.records.config import LaterConfig, RecordsConfig
from clinical_r1.records.dedup import Boilerplate
from clinical_r1.records.intake import Intake, enforce_reject_rate
from clinical_r1.records.policies import Kept, Policies, apply_policies
from clinical_r1.records.report import RecordsReport, account, card, counts
from clinical_r1.records.row import Quarantined
from clinical_r1.records.split import Item, assign, groups_of
from clinical_r1.records.spool import Facts, Spool, spool_beside
from clinical_r1.records.treat import treated
from clinical_r1.rewards import signals_of
from clinical_r1.schema import SPLITS, Case, write_jsonl


@dataclass
class Taken:
    """Everything that was read and treated, up to the splits."""

    intake: Intake
    spool: Spool
    policies: Policies = field(default_factory=Policies)
    quarantined: list[Quarantined] = field(default_factory=list)
    scrubbed: Counter[str] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    """Tokens of the longest question that was too long for the window."""

    def case(self, facts: Facts) -> Case:
        """A kept case with its text."""
        case = Case.model_validate_json(self.spool.text(facts))
        return case.model_copy(update={"id": facts.id}) if facts.renamed else case


def read_cases(config: RecordsConfig) -> list[Case]:
    """Gated, cleaned cases without splitting them: for evaluation sets and other single-pool uses."""
    with taken_cases(config, None) as taken:
        return [taken.case(kept.facts) for kept in taken.policies.kept]


def prepare(config: RecordsConfig, out_dir: Path) -> RecordsReport:
    """Run the step; see the module's docstring. UserError for input that a user can correct."""
    with taken_cases(config, out_dir) as taken:
        policies = taken.policies
        if not policies.kept:
            raise UserError(_nothing_left(taken))
        items = [_item(kept, config) for kept in policies.kept]
        found, rule = assign(items, config.splits, config.seed)
        splits = {name: [policies.kept[i].facts for i in found[name]] for name in SPLITS}
        _check_later(config.later, taken, splits)
        for name in SPLITS:
            _write_split(out_dir / f"{name}.jsonl", splits[name], taken)
        rejects = [*taken.intake.rejects, *(reject for _, reject in policies.rejects)]
        write_jsonl(out_dir / "rejects.jsonl", rejects)
        write_jsonl(out_dir / "quarantine.jsonl", taken.quarantined)
        report = accounts(taken, splits, len(found["unused"]), rule, len(groups_of(items)))
        report.hashes = {f"{name}.jsonl": file_sha256(out_dir / f"{name}.jsonl") for name in SPLITS}
        write_text(out_dir / "card.md", card(report, splits))
        write_text(out_dir / "report.json", report.model_dump_json(indent=2) + "\n")
    return report


def _check_later(later: LaterConfig, taken: Taken, splits: dict[str, list[Facts]]) -> None:
    """Raise UserError for a case, or a test split, that a later step would refuse."""

    def first(rows: list[Facts], wrong: Callable[[Case], bool]) -> str:
        return next((facts.id for facts in rows if wrong(taken.case(facts))), "")

    if later.paid and (found := first(splits["rl"], lambda case: not signals_of(case) & set(later.paid))):
        raise UserError(
            f"records: case {found} of the split rl has none of what ppo.reward_table pays "
            f"({', '.join(later.paid)}): give it a reference, options or a rubric, or take another table"
        )
    if found := first(splits["validation"][: later.watched], lambda case: not case.references):
        raise UserError(
            f"records: case {found} of the split validation has no reference, by which RL is watched: leave it out"
        )
    if not later.rubrics and (found := first(splits["test"], lambda case: bool(case.rubric))):
        raise UserError(
            f"records: case {found} of the split test has a rubric, which a model grades: set "
            "evaluation.reward_judge.verifier.kind to llm and name its endpoint"
        )
    diagnoses: dict[str, str] = {}

    def another(case: Case) -> bool:
        return bool(case.references) and diagnoses.setdefault(case.language, case.reference) != case.reference

    if later.probe and not first(splits["test"], another):
        raise UserError(
            "records: the split test holds fewer than two different diagnoses of a language, so that the gate can make "
            "no probe of forgetting: give more cases, or name a benchmark in MedQA's form in gate.forgetting"
        )


@contextmanager
def taken_cases(config: RecordsConfig, out_dir: Path | None, strict: bool = True) -> Iterator[Taken]:
    """Read and treat every row, and apply the policies; the texts lie in a spool until the block ends.

    `strict` raises UserError for too many malformed rows.
    """
    with spool_beside(out_dir) as spool:
        taken = Taken(Intake(config), spool)
        cases, common = _treat(taken)
        try:
            if strict:
                enforce_reject_rate(taken.intake)
        except UserError:
            if out_dir is not None:
                write_jsonl(out_dir / "rejects.jsonl", taken.intake.rejects)
            raise
        if strict:
            _enforce_window(taken)
        taken.policies = apply_policies(cases, spool, common, config)
        for source, reject in taken.policies.rejects:
            taken.intake.sources[source].rejected[reject.kind] += 1
        for kept in taken.policies.kept:
            taken.intake.sources[kept.facts.source].kept += 1
        yield taken


def _enforce_window(taken: Taken) -> None:
    """Refuse questions that the window cannot hold, where the configuration says so."""
    window = taken.intake.config.window
    long = [reject for reject in taken.intake.rejects if reject.kind == "too_long"]
    if long and window.longer == "refuse":
        raise UserError(
            f"{long[0].file}:{long[0].line}: {len(long)} of {taken.intake.read} questions are longer than the "
            f"{window.tokens} tokens that the model's window leaves for them (the longest has {taken.longest}): "
            f"{window.advice or 'raise records.window.tokens'}, or set records.window.longer to drop to leave them out"
        )


def _treat(taken: Taken) -> tuple[list[Facts], Boilerplate]:
    intake, cases, common = taken.intake, [], Boilerplate()
    with progress("records", 0) as advance:
        for batch in treated(intake.rows(), intake.config):
            for facts, text, shingles in batch.cases:
                taken.spool.add(facts, text, shingles)
                common.add(taken.spool.shingles(facts))
                facts.file, facts.site, facts.patient = intern(facts.file), intern(facts.site), intern(facts.patient)
                facts.specialty, facts.icd10 = intern(facts.specialty), intern(facts.icd10)
                cases.append(facts)
            for source, reject in batch.rejects:
                intake.reject(reject, source)
            for source, held in batch.quarantined:
                taken.quarantined.append(held)
                intake.sources[source].quarantined += 1
            taken.longest = max(taken.longest, batch.longest)
            taken.scrubbed.update(batch.scrubbed)
            taken.doubts.update(batch.doubts)
            advance(len(batch.cases) + len(batch.rejects) + len(batch.quarantined))
    return cases, common


def _nothing_left(taken: Taken) -> str:
    intake = taken.intake
    why = Counter(kind for source in intake.sources for kind in source.rejected.elements())
    parts = [f"{count} {kind.replace('_', ' ')}" for kind, count in why.most_common()]
    parts += [f"{len(taken.quarantined)} quarantined"] if taken.quarantined else []
    first = next((r for r in [*intake.rejects, *(r for _, r in taken.policies.rejects)]), None)
    example = f"; the first, {first.file}:{first.line}: {first.reason}" if first else ""
    return (
        f"{intake.config.sources[0].path}: none of {intake.read} rows is left "
        f"({', '.join(parts) or 'none read'}{example}); correct the source or relax the records policies"
    )


def _write_split(path: Path, split: list[Facts], taken: Taken) -> None:
    with atomic_writer(path, "wb", private=True) as handle:
        for facts in split:
            text = taken.spool.text(facts)
            if facts.renamed:
                text = json.dumps(json.loads(text) | {"id": facts.id}, ensure_ascii=False).encode()
            handle.write(text + b"\n")
    path.chmod(0o600)


def accounts(
    taken: Taken, splits: dict[str, list[Facts]] | None = None, unused: int = 0, rule: str = "", groups: int = 0
) -> RecordsReport:
    """The report; without `splits` of all kept cases."""
    intake, config = taken.intake, taken.intake.config
    if splits is None:
        splits = {name: [] for name in SPLITS} | {"test": [kept.facts for kept in taken.policies.kept]}
    every = [facts for name in SPLITS for facts in splits[name]]
    rejected: Counter[str] = Counter()
    for source in intake.sources:
        rejected.update(source.rejected)
    reasons = Counter(reject.reason.split(" (")[0] for reject in intake.rejects)
    phi: dict[str, object] = {"policy": config.phi.policy, "off_because": config.phi.off_because}
    if config.phi.policy == "scrub":
        phi |= {
            "scrubbed": dict(sorted(taken.scrubbed.items())),
            "quarantine_reasons": dict(sorted(taken.doubts.items())),
            "ner_models": sorted(config.phi.ner_models),
        }
    return RecordsReport(
        read=intake.read,
        malformed=intake.malformed,
        reject_rate=round(intake.reject_rate, 6),
        reject_reasons=dict(reasons.most_common(50)),
        limited=intake.limited,
        dropped={kind: count for kind, count in rejected.most_common() if kind != "malformed"},
        quarantined=len(taken.quarantined),
        cases=len(every),
        unused=unused,
        splits={name: len(splits[name]) for name in SPLITS},
        split_rule=rule,
        groups=groups,
        group_by=list(config.group_by),
        without_patient=sum(not facts.patient for facts in every),
        without_site=sum(not facts.site for facts in every),
        languages=counts(facts.language for facts in every),
        specialties=counts(facts.specialty for facts in every),
        chapters=counts(icd10.chapter(facts.icd10) or "none" for facts in every),
        icd10=dict(+intake.codes),
        lost=dict(intake.lost.most_common()),
        leaks=taken.policies.leaks,
        phi=phi,
        sources=[
            {name: getattr(source, name) for name in ("name", "format", "read", "kept", "quarantined", "limited")}
            | {"rejected": dict(source.rejected.most_common())}
            | {name: getattr(source, name) for name in ("terms", "unverified", "sha256")}
            for source in intake.sources
        ],
        seed=config.seed,
        config_hash=hashlib.sha256(config.model_dump_json().encode()).hexdigest()[:16],
    )


def _item(kept: Kept, config: RecordsConfig) -> Item:
    facts = kept.facts
    stratum = {
        "specialty": facts.specialty,
        "icd10_chapter": icd10.chapter(facts.icd10),
        "language": facts.language,
        "site": facts.site,
    }
    named = {"patient": facts.patient, "site": facts.site}
    keys = [(name, named[name]) for name in config.group_by if named[name]]
    return Item(
        id=facts.id,
        stratum=tuple(stratum[name] for name in config.stratify_by),
        keys=(*keys, *kept.keys),
        test_only=facts.test_only,
    )


def preview(config: RecordsConfig, cases: int = 3) -> Iterator[str]:
    """A look at a source before anything is run: what it is taken for, some of its cases, what became of its rows.

    Lines to print. Nothing is written; where there is no patient key, hashes and shifts are of this look only.
    """
    os.environ.setdefault(config.phi.key_env, secrets.token_hex(16))
    with taken_cases(config, None, strict=False) as taken:
        report = accounts(taken)
        yield from account(report)
        for kept in taken.policies.kept[:cases]:
            yield ""
            yield from _shown(taken.case(kept.facts))
        if taken.intake.rejects:
            yield ""
            yield "first rows that were not taken:"
            yield from (f"  {reject.file}:{reject.line}: {reject.reason}" for reject in taken.intake.rejects[:5])


def _shown(case: Case) -> list[str]:
    tags = [case.language, case.specialty, case.icd10, case.sex, case.age_band, case.site, case.patient, case.recorded]
    lines = [f"{case.origin}  ({', '.join(tag for tag in tags if tag and tag != 'unknown')})"]
    lines += textwrap.wrap(case.question, 110, initial_indent="  ", subsequent_indent="  ", max_lines=12)
    lines += [f"  options: {'; '.join(case.options)}"] if case.options else []
    return [*lines, f"  -> {'; '.join(case.references)}"]
