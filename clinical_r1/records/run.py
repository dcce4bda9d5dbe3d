"""The records step: sources in, four disjoint splits of de-identified cases out.

    prepare(RecordsConfig(sources=[Source(path="cases.jsonl")]), Path("out"))

writes out/{sft,rl,validation,test}.jsonl (`schema.Case`), rejects.jsonl and quarantine.jsonl (file, line, reason; no
text), report.json and card.md. Order: read, check, PHI gate, duplicates, contamination, leakage, split, write; texts
wait on disk in between. Nothing is written when a step fails, but for rejects.jsonl where there were too many malformed
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
from clinical_r1.records.config import LaterConfig, RecordsConfig
from clinical_r1.records.intake import Intake, enforce_reject_rate
from clinical_r1.records.policies import Boilerplate, apply_policies
from clinical_r1.records.report import RecordsReport, account, card
from clinical_r1.records.row import Facts, Quarantined, Reject, Spool, spool_beside
from clinical_r1.records.split import UNUSED, assign
from clinical_r1.records.treat import treated
from clinical_r1.rewards import signals_of
from clinical_r1.schema import SPLITS, Case, write_jsonl


@dataclass
class Taken:
    """Everything that was read and treated, up to the splits."""

    intake: Intake
    spool: Spool
    kept: list[Facts] = field(default_factory=list)
    dropped: list[Reject] = field(default_factory=list)
    """By a policy."""
    leaks: int = 0
    quarantined: list[Quarantined] = field(default_factory=list)
    scrubbed: Counter[str] = field(default_factory=Counter)
    doubts: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    """Tokens of the longest question that was too long for the window."""

    def text(self, facts: Facts) -> bytes:
        """A kept case as one JSON object."""
        text = self.spool.text(facts)
        return json.dumps(json.loads(text) | {"id": facts.id}, ensure_ascii=False).encode() if facts.renamed else text

    def case(self, facts: Facts) -> Case:
        """A kept case with its text."""
        return Case.model_validate_json(self.text(facts))


def read_cases(config: RecordsConfig) -> list[Case]:
    """Gated, cleaned cases without splitting them: for evaluation sets and other single-pool uses."""
    with taken_cases(config, None) as taken:
        return [taken.case(facts) for facts in taken.kept]


def prepare(config: RecordsConfig, out_dir: Path) -> RecordsReport:
    """Run the step; see the module's docstring. UserError for input that a user can correct."""
    with taken_cases(config, out_dir) as taken:
        rejects = [*taken.intake.rejects, *taken.dropped]
        if not taken.kept:
            why = Counter(reject.kind.replace("_", " ") for reject in rejects).most_common()
            why += [("quarantined", len(taken.quarantined))] if taken.quarantined else []
            parts = ", ".join(f"{count} {kind}" for kind, count in why)
            example = f"; the first, {rejects[0].file}:{rejects[0].line}: {rejects[0].reason}" if rejects else ""
            raise UserError(
                f"{config.sources[0].path}: none of {taken.intake.read} rows is left "
                f"({parts or 'none read'}{example}); correct the source or relax the records policies"
            )
        splits, rule, groups = assign(taken.kept, config)
        _check_later(config.later, taken, splits)
        for name in SPLITS:
            with atomic_writer(out_dir / f"{name}.jsonl", "wb", private=True) as handle:
                handle.writelines(taken.text(facts) + b"\n" for facts in splits[name])
        write_jsonl(out_dir / "rejects.jsonl", rejects)
        write_jsonl(out_dir / "quarantine.jsonl", taken.quarantined)
        report = _report(taken, splits, rule, groups)
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
    tested = map(taken.case, splits["test"] if later.probe else ())
    diagnoses = {(case.language, case.reference) for case in tested if case.references}
    if later.probe and len(diagnoses) == len({language for language, _ in diagnoses}):
        raise UserError(
            "records: the split test holds fewer than two different diagnoses of a language, so that the gate can make "
            "no probe of forgetting: give more cases, or name a benchmark in MedQA's form in gate.forgetting"
        )


@contextmanager
def taken_cases(config: RecordsConfig, out_dir: Path | None, strict: bool = True) -> Iterator[Taken]:
    """Read and treat every row, and apply the policies; the texts lie in a spool until the block ends.

    `strict` raises UserError for too many malformed rows, and for questions that the window cannot hold where the
    configuration refuses them.
    """
    with spool_beside(out_dir) as spool:
        taken = Taken(Intake(config), spool)
        cases, common = _treat(taken)
        intake, window = taken.intake, config.window
        if strict:
            try:
                enforce_reject_rate(intake)
            except UserError:
                if out_dir is not None:
                    write_jsonl(out_dir / "rejects.jsonl", intake.rejects)
                raise
            long = [reject for reject in intake.rejects if reject.kind == "too_long"]
            if long and window.longer == "refuse":
                first, advice = long[0], window.advice or "raise records.window.tokens"
                raise UserError(
                    f"{first.file}:{first.line}: {len(long)} of {intake.read} questions are longer than the "
                    f"{window.tokens} tokens that the model's window leaves for them (the longest has "
                    f"{taken.longest}): {advice}, or set records.window.longer to drop to leave them out"
                )
        taken.kept, rejects, taken.leaks = apply_policies(cases, spool, common, config)
        for source, reject in rejects:
            taken.dropped.append(reject)
            intake.sources[source].rejected[reject.kind] += 1
        for facts in taken.kept:
            intake.sources[facts.source].kept += 1
        yield taken


def _treat(taken: Taken) -> tuple[list[Facts], Boilerplate]:
    intake, cases, common = taken.intake, [], Boilerplate()
    with progress("records", 0) as advance:
        for row in treated(intake.rows(), intake.config):
            if isinstance(row.result, Reject):
                intake.reject(row.result, row.source)
                taken.longest = max(taken.longest, row.length)
            elif isinstance(row.result, Quarantined):
                taken.quarantined.append(row.result)
                intake.sources[row.source].quarantined += 1
                taken.doubts.update(row.result.types)
            else:
                facts = row.result
                facts.text_at, facts.shingles_at = taken.spool.add(row.text), taken.spool.add(row.shingles)
                common.add(taken.spool.shingles(facts))
                taken.scrubbed.update(row.scrubbed)
                for name in ("file", "site", "patient", "specialty", "icd10"):
                    setattr(facts, name, intern(getattr(facts, name)))
                cases.append(facts)
            advance(1)
    return cases, common


def _report(taken: Taken, splits: dict[str, list[Facts]], rule: str = "", groups: int = 0) -> RecordsReport:
    intake, config = taken.intake, taken.intake.config
    every = [facts for name in SPLITS for facts in splits.get(name, ())]
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
        limited=sum(source.limited for source in intake.sources),
        dropped={kind: count for kind, count in rejected.most_common() if kind != "malformed"},
        quarantined=len(taken.quarantined),
        cases=len(every),
        unused=len(splits.get(UNUSED, ())),
        splits={name: len(splits.get(name, ())) for name in SPLITS},
        split_rule=rule,
        groups=groups,
        group_by=list(config.group_by),
        without_patient=sum(not facts.patient for facts in every),
        without_site=sum(not facts.site for facts in every),
        languages=dict(Counter(facts.language for facts in every).most_common()),
        specialties=dict(Counter(facts.specialty for facts in every).most_common()),
        chapters=dict(Counter(facts.icd10_chapter or "none" for facts in every).most_common()),
        icd10=dict(+intake.codes),
        lost=dict(intake.lost.most_common()),
        leaks=taken.leaks,
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


def preview(config: RecordsConfig, cases: int = 3) -> Iterator[str]:
    """A look at a source before anything is run: what it is taken for, some of its cases, what became of its rows.

    Lines to print. Nothing is written; where there is no patient key, hashes and shifts are of this look only.
    """
    os.environ.setdefault(config.phi.key_env, secrets.token_hex(16))
    with taken_cases(config, None, strict=False) as taken:
        kept, rejects = taken.kept, taken.intake.rejects
        yield from account(_report(taken, {"test": kept}))
        for case in map(taken.case, kept[:cases]):
            tags = (case.language, case.specialty, case.icd10, case.sex, case.age_band, case.site, case.patient)
            told = ", ".join(tag for tag in (*tags, case.recorded) if tag and tag != "unknown")
            yield from ("", f"{case.origin}  ({told})")
            yield from textwrap.wrap(case.question, 110, initial_indent="  ", subsequent_indent="  ", max_lines=12)
            if case.options:
                yield f"  options: {'; '.join(case.options)}"
            yield f"  -> {'; '.join(case.references)}"
        if rejects:
            yield from ("", "first rows that were not taken:")
            yield from (f"  {reject.file}:{reject.line}: {reject.reason}" for reject in rejects[:5])
