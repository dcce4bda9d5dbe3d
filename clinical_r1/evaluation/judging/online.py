"""What served answers are worth, from the gateway's audit samples: out of band, without a test set.

Two things can be said honestly. *Accuracy* of the answers whose reference diagnosis arrived later (by request id, under
`references/` in the same store), by the verifier of evaluation. *Plausibility* of all: a judge sees
case and answer, without a reference; on its own that is an opinion, and it becomes an estimate of accuracy only where
labelled answers say how often this judge errs (Rogan and Gladen 1978, Lang and Reiczigel 2014). "Right answer,
ungrounded thinking" counts thoughts with findings that the case does not hold (`grounding`: a lower bound).
"""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, Field, ValidationError

from clinical_r1.atomic import write_text
from clinical_r1.errors import UserError
from clinical_r1.evaluation.grounding import check
from clinical_r1.evaluation.judging.audit import (
    Audit,
    LabelledJudgement,
    Labels,
    audit_judge,
    corrected_accuracy,
    judge_items,
    tally,
)
from clinical_r1.evaluation.judging.judge import judge_predictions
from clinical_r1.llm.client import LLMClient, run_calls
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.prompts import filled
from clinical_r1.llm.reply import CallFailed
from clinical_r1.objectstore.face import Store
from clinical_r1.objectstore.store import open_store
from clinical_r1.page import render
from clinical_r1.privacy.crossing import CrossingPolicy, check_crossing
from clinical_r1.reasoning import UNREADABLE, Outcome
from clinical_r1.schema import Case, Prediction, Verdict, VerdictLabel, read_jsonl
from clinical_r1.stats import wilson
from clinical_r1.strict import Strict
from clinical_r1.verifier.config import JudgeConfig
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.verifier import LLMVerifier

SAMPLES, REFERENCES = "samples/", "references/"
REPORT, SUMMARY = "audit.html", "audit.json"


class OnlineAuditConfig(Strict):
    """One audit of what was served."""

    store: str = Field(min_length=1)
    """Where the gateway writes its samples (its `sampling.store`): s3://BUCKET/PREFIX or a folder."""
    model_version: str = ""
    """Only answers of this version; empty takes all, each in a row of its own."""
    days: int = Field(default=30, ge=1)
    """Only samples of the last so many days."""
    retention_days: int = Field(default=0, ge=0)
    """Delete samples that are older; 0 leaves that to the store's own lifecycle rule."""
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    """Holds answers against references that arrived."""
    plausibility: EndpointConfig | None = None
    """A judge of answers without a reference; it must be `trusted`: samples are not de-identified."""
    labelled: str = ""
    """JSONL of graded answers (question, reference, answer, language, correct): how often the judges err."""
    concurrency: int = Field(default=32, ge=1)
    """Judgements at a time."""


class Sample(Strict):
    """One kept answer, as serving/gateway/audit.py writes it."""

    request_id: str
    recorded: date
    model_version: str
    language: Literal["en", "zh", "other"]
    messages: list[dict[str, str]]
    thinking: str
    response: str
    outcome: Outcome
    reasoning_tokens: int | None = None
    rate: float = Field(gt=0, le=1)

    def case(self, reference: str = "(none yet)") -> Case:
        """As evaluation sees it; the question is what the user said, all turns of it."""
        question = "\n\n".join(m["content"] for m in self.messages if m.get("role") == "user").strip()
        language: Literal["en", "zh"] = "zh" if self.language == "zh" else "en"
        return Case(id=self.request_id, language=language, question=question or "?", references=[reference])

    def prediction(self) -> Prediction:
        """As evaluation sees it."""
        return Prediction(
            case_id=self.request_id, output="", thinking=self.thinking, response=self.response, outcome=self.outcome
        )


class Reference(Strict):
    """A diagnosis that arrived later, by the request id that the client was given (X-Request-Id)."""

    request_id: str
    reference: str = Field(min_length=1)


class Share(Strict):
    """A share of answers with its 95% Wilson interval; where sampling rates differ, weighted, at the effective n."""

    n: int
    value: float | None
    low: float
    high: float
    effective: float = 0.0
    """Equally weighted answers that would say as much."""

    @classmethod
    def of(cls, hits: Sequence[bool], weights: Sequence[float]) -> Self:
        """From hits and the inverse sampling rates."""
        total = sum(weights)
        if not total:
            return cls(n=0, value=None, low=0.0, high=1.0)
        value = sum(w for hit, w in zip(hits, weights, strict=True) if hit) / total
        effective = total * total / sum(w * w for w in weights)
        low, high = wilson(value * effective, effective)
        return cls(n=len(hits), value=value, low=low, high=high, effective=effective)


class Row(Strict):
    """One model version and language."""

    model_version: str
    language: str
    samples: int
    outcomes: dict[str, int]
    accuracy: Share | None
    """Of answers with a reference; None where the rules left some of them undecided."""
    lower_bound: Share | None = None
    """The same where they did, none of which counts as right."""
    undecided: int = 0
    """Answers that the rules could not read and that no judge was asked about."""
    accuracy_corrected: Share | None
    """The same, corrected for the verifier's errors; None without labelled answers."""
    plausible: Share
    """Judged plausible, no reference seen."""
    accuracy_estimated: Share | None
    """Accuracy from plausibility and that judge's error rates; None without labelled answers."""
    ungrounded: Share
    """Thoughts with something that the case does not hold."""
    right_ungrounded: Share
    """The same among answers that are right."""
    plausible_ungrounded: Share
    """The same among answers that are plausible."""


class Audited(Strict):
    """audit.json."""

    samples: int
    unreadable: int
    with_reference: int
    days: int
    rows: list[Row]


class Judged(Strict):
    """One sample and what became of it."""

    sample: Sample
    right: bool | None = None
    undecided: bool = False
    plausible: bool | None = None
    flagged: bool | None = None


def read_samples(
    store: Store, today: date, days: int, retention_days: int = 0, model_version: str = ""
) -> tuple[list[Sample], int]:
    """(samples of the last days, lines that cannot be read). Deletes what is past its retention."""
    first, samples, bad = today - timedelta(days=days), [], 0
    for entry in list(store.list(SAMPLES)):
        written = _date_of(entry.key)
        if retention_days and written and written < today - timedelta(days=retention_days):
            store.delete(entry.key)
            continue
        if written and written < first:
            continue
        for line in store.get(entry.key).decode("utf-8", "replace").splitlines():
            try:
                sample = Sample.model_validate_json(line)
            except ValidationError:
                bad += 1
                continue
            if model_version in ("", sample.model_version):
                samples.append(sample)
    return samples, bad


def _date_of(key: str) -> date | None:
    """The day in `samples/VERSION/DATE/NAME`."""
    try:
        return date.fromisoformat(key.split("/")[-2])
    except (ValueError, IndexError):
        return None


def read_references(store: Store) -> dict[str, str]:
    """Reference diagnosis by request id. Raises UserError that names object and line."""
    found: dict[str, str] = {}
    for entry in store.list(REFERENCES):
        for number, line in enumerate(store.get(entry.key).decode("utf-8", "replace").splitlines(), 1):
            try:
                row = Reference.model_validate_json(line)
            except ValidationError:
                place = f"{store.uri}/{entry.key}:{number}"
                shape = '{"request_id": "req-...", "reference": "..."}'
                raise UserError(f"{place}: no reference; write {shape}") from None
            found[row.request_id] = row.reference
    return found


def judge_samples(
    config: OnlineAuditConfig, samples: Sequence[Sample], references: dict[str, str], state_dir: Path
) -> list[Judged]:
    """Right where there is a reference, plausible where there is a judge, grounded where there is a thought."""
    rows = [Judged(sample=sample) for sample in samples]
    known = [row for row in rows if row.sample.request_id in references]
    cases = [row.sample.case(references[row.sample.request_id]) for row in known]
    verdicts = judge_predictions(
        config.judge, cases, [row.sample.prediction() for row in known], state_dir, config.concurrency
    )
    for row, verdict in zip(known, verdicts, strict=True):
        row.undecided = verdict.label is VerdictLabel.UNDECIDED
        row.right = False if row.undecided else verdict.label.right
    if config.plausibility:
        readable = [row for row in rows if row.sample.outcome not in UNREADABLE]
        questions = [Judgement.of(row.sample.case(), row.sample.response) for row in readable]
        labels = plausibility(config.plausibility, questions, config.concurrency)
        for row, label in zip(readable, labels, strict=True):
            row.plausible = label
    for row in rows:
        if row.sample.thinking:
            row.flagged = bool(check(row.sample.case(), row.sample.prediction()))
    return rows


def audits(config: OnlineAuditConfig, out_dir: Path, state_dir: Path) -> tuple[Audit | None, Audit | None]:
    """How often the verifier and the plausibility judge err, on the labelled answers; the former's page is kept."""
    if not config.labelled:
        return None, None
    labelled = Path(config.labelled)
    verifier = audit_judge(config.judge, labelled, out_dir / "verifier", state_dir, concurrency=config.concurrency)
    if config.plausibility is None:
        return verifier, None
    rows = read_jsonl(labelled, LabelledJudgement)
    items = [Judgement(row.question, "", row.answer, row.language) for row in rows]  # it is shown no reference
    labels = plausibility(config.plausibility, items, config.concurrency)
    return verifier, tally(f"plausibility:{config.plausibility.model}", rows, labels, {})


def table(rows: Sequence[Judged], verifier: Audit | None, plausible: Audit | None) -> list[Row]:
    """One row a model version, all languages and each of them."""
    out = []
    for version in sorted({row.sample.model_version for row in rows}):
        mine = [row for row in rows if row.sample.model_version == version]
        languages = sorted({row.sample.language for row in mine})
        for language in ["all", *(languages if len(languages) > 1 else [])]:
            chosen = [row for row in mine if language in ("all", row.sample.language)]
            out.append(_row(version, language, chosen, verifier, plausible))
    return out


def _row(version: str, language: str, rows: Sequence[Judged], verifier: Audit | None, plausible: Audit | None) -> Row:
    def share(name: str, among: str = "") -> Share:
        chosen = [row for row in rows if getattr(row, name) is not None and (not among or getattr(row, among))]
        return Share.of([bool(getattr(row, name)) for row in chosen], [1 / row.sample.rate for row in chosen])

    def corrected(share: Share, audit: Audit | None) -> Share | None:
        if audit is None or share.value is None:
            return None
        value, (low, high), _ = corrected_accuracy(share.value * share.effective, share.effective, audit)
        return Share(n=share.n, value=value, low=low, high=high, effective=share.effective)

    undecided = sum(row.undecided for row in rows)
    return Row(
        model_version=version,
        language=language,
        samples=len(rows),
        outcomes=dict(sorted(Counter(row.sample.outcome.value for row in rows).items())),
        accuracy=None if undecided else share("right"),
        lower_bound=share("right") if undecided else None,
        undecided=undecided,
        accuracy_corrected=corrected(share("right"), verifier),
        plausible=share("plausible"),
        accuracy_estimated=corrected(share("plausible"), plausible),
        ungrounded=share("flagged"),
        right_ungrounded=share("flagged", "right"),
        plausible_ungrounded=share("flagged", "plausible"),
    )


def audit_served(config: OnlineAuditConfig, out_dir: Path, state_dir: Path) -> dict[str, object]:
    """Read, judge, estimate; writes audit.html and audit.json, which hold no text of any sample."""
    for endpoint in (config.plausibility, config.judge.endpoint):
        if endpoint is not None:
            check_crossing(endpoint, CrossingPolicy())  # samples are not de-identified: only inside the boundary
    store = open_store(config.store)
    samples, bad = read_samples(
        store, datetime.now(UTC).date(), config.days, config.retention_days, config.model_version
    )
    if not samples:
        raise UserError(f"{store.uri}/{SAMPLES}: no samples of the last {config.days} days; is sampling.rate above 0?")
    references = read_references(store)
    rows = table(judge_samples(config, samples, references, state_dir), *audits(config, out_dir, state_dir))
    audited = Audited(
        samples=len(samples),
        unreadable=bad,
        with_reference=sum(sample.request_id in references for sample in samples),
        days=config.days,
        rows=rows,
    )
    judge = config.plausibility.model if config.plausibility else ""
    page = render("online.html.j2", title="Audit of served answers", audited=audited, judge=judge, config=config)
    write_text(out_dir / REPORT, page)
    write_text(out_dir / SUMMARY, audited.model_dump_json(indent=1) + "\n")
    return audited.model_dump(mode="json")


class Opinion(BaseModel):
    """The shape of the reply."""

    verdict: Literal["plausible", "implausible"]


class PlausibilityJudge(LLMVerifier):
    """A judge that is shown no reference: CORRECT means plausible, a call that fails gives INVALID. An answer without
    text is implausible without a call."""

    shape = Opinion

    async def judge(self, item: Judgement) -> Verdict:
        """The judge's opinion."""
        name = f"plausibility:{self.client.endpoint.model}"
        if not item.answer.strip():
            return Verdict(label=VerdictLabel.INCORRECT, judge=name, reason="empty")
        file = Path(__file__).parent / "prompts" / f"plausible_{item.language}.md.j2"
        asked = filled(file, f"plausible-{item.language}", case=item.question, answer=item.answer)
        said = await self._ask(asked, item.subject)
        if isinstance(said, CallFailed):
            return Verdict(label=VerdictLabel.INVALID, judge=name, reason=said.reason)
        accepted = said.parsed.verdict == "plausible"
        return Verdict(label=VerdictLabel.CORRECT if accepted else VerdictLabel.INCORRECT, judge=name)


def plausibility(endpoint: EndpointConfig, items: Sequence[Judgement], concurrency: int) -> Labels:
    """Plausible, implausible, or None where the judgement failed; in order."""

    async def work() -> Labels:
        async with LLMClient(endpoint) as client:
            return await judge_items(PlausibilityJudge(client), items, concurrency, "plausibility")

    return run_calls(work())
