"""Reasoning data of others as our traces (medical-o1's columns, chat messages, ShareGPT, our own), and ours as theirs.

Each row is read by its form, its thought by the dialect it is written in, and judged where it names a reference; what
names none, or what the verifier can say nothing of, is marked unverified. What cannot be read is a reject with a
reason; nothing is made up. Ours go out in Hugging Face's form: chat messages with `reasoning_content`, JSONL and
Parquet, a card, as TRL, NeMo Automodel, slime and LLaMA-Factory read them. Identifiers of patients and cases stay
behind.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from clinical_r1.atomic import write_text
from clinical_r1.containment import ContainmentIndex
from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient, run_calls
from clinical_r1.llm.journal import open_journal
from clinical_r1.llm.limits import Budget
from clinical_r1.objectstore.store import open_store
from clinical_r1.privacy.crossing import check_crossing, check_gate
from clinical_r1.privacy.gate import scrub
from clinical_r1.privacy.known import Known, KnownFinder
from clinical_r1.reasoning import Outcome, conclusion_line
from clinical_r1.recognise import Answer, read
from clinical_r1.schema import Attempt, Case, Strategy, Trace, TraceOutcome, VerdictLabel, iter_jsonl, write_jsonl
from clinical_r1.synthesis.config import SynthesisConfig, TraceSource
from clinical_r1.synthesis.dataset import CARD, TRACES
from clinical_r1.synthesis.filters import first_objection
from clinical_r1.synthesis.search import concluded
from clinical_r1.synthesis.text import cjk_share
from clinical_r1.verifier.judgement import Judgement, Verifier
from clinical_r1.verifier.verifier import build_verifier

COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("case_id", "id"),
    "question": ("Question", "Open-ended Verifiable Question", "question", "prompt", "problem", "instruction", "query"),
    "thinking": ("Complex_CoT", "thinking", "reasoning_content", "reasoning", "chain_of_thought", "cot", "thought"),
    "response": ("Response", "response", "output", "completion", "final_response", "answer"),
    "reference": ("Ground-True Answer", "ground_truth", "references", "reference", "gold", "answer"),
    "language": ("language", "lang"),
}
"""What the columns of known data sets are called, the better name first: medical-o1-reasoning-SFT, HuatuoGPT-o1's demo,
our own, and the common ones."""
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant"}
"""Who speaks, in messages and in ShareGPT; others (system) say nothing to a case."""
HELD_OUT = ("rl", "validation", "test")
_PROBLEMS = {Outcome.OK: "", Outcome.NO_THINK: "no_thought", Outcome.EMPTY_THINK: "no_thought"}


class Row(NamedTuple):
    """One row, read."""

    form: str  # `columns`, `messages`, `sharegpt`, `traces`, or `unknown`
    case: str
    question: str
    thinking: str
    response: str
    references: list[str]
    language: str
    problem: str  # why it is no trace; empty for one


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON list, of JSON lines or of a Parquet file; UserError names the line that is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; give reasoning data as JSON, JSONL or Parquet")
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            for batch in pq.ParquetFile(path).iter_batches():
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no Parquet file ({type(error).__name__}); give JSON, JSONL or Parquet") from None
        return
    with open(path, "rb") as file:
        listed = file.read(64).decode("utf-8-sig", "ignore").lstrip().startswith("[")
        file.seek(0)
        place = str(path)
        try:
            for number, one in enumerate(json.load(file) if listed else file, 1):
                if not listed:
                    place = f"{path}:{number}"
                    if not one.strip():
                        continue
                found = one if listed else json.loads(one.decode("utf-8-sig"))
                if not isinstance(found, dict):
                    raise UserError(f"{path}:{number}: not a JSON object; give one object a row")
                yield found
        except ValueError:
            raise UserError(f"{place}: not JSON in UTF-8; give a JSON list, JSON lines or Parquet") from None


def read_row(row: dict[str, Any], columns: Mapping[str, str]) -> Row:
    """A row of any known form; `columns` are the user's names, which come first."""
    taken: dict[str, Any] = {}
    for field, names in COLUMNS.items():
        used = {*columns.values(), *(name for name, _ in taken.values())}
        wanted = [columns[field]] if field in columns else [name for name in names if name not in used]
        name = next((name for name in wanted if row.get(name) not in (None, "", [])), None)
        if name is not None:
            taken[field] = (name, row[name])
    values = {field: value for field, (_, value) in taken.items()}
    form, problem = "traces" if {"case_id", "outcome", "thinking", "question"} <= row.keys() else "columns", ""
    turns = row.get("messages") or row.get("conversations") or row.get("conversation")
    if isinstance(turns, list) and "question" not in columns:
        form = "messages" if "messages" in row else "sharegpt"
        said, problem = _turns(turns)
        values |= said
    question, thinking, response = (_text(values.get(name)) for name in ("question", "thinking", "response"))
    parts = read(Answer(response, thinking or None))
    if form == "columns" and "question" not in taken and "response" not in taken:
        form, problem = "unknown", "unknown_form"
    elif not problem:
        problem = _PROBLEMS.get(parts.outcome, parts.outcome.value) if question else "no_question"
    given = values.get("reference")
    references = [_text(one) for one in (given if isinstance(given, list) else [given]) if _text(one)]
    language = _text(values.get("language")) or ("zh" if cjk_share(question + parts.response) > 0.3 else "en")
    case = _text(values.get("id")) or "t-" + hashlib.sha256(question.encode()).hexdigest()[:16]
    return Row(form, case, question, parts.thinking, parts.response, references, language, problem)


def _turns(turns: list[Any]) -> tuple[dict[str, Any], str]:
    """Question, thought and answer of a conversation of one question; more of them are another task."""
    said: dict[str, list[dict[str, Any]]] = {"user": [], "assistant": []}
    for turn in turns:
        role = ROLES.get(str(turn.get("role") or turn.get("from"))) if isinstance(turn, dict) else None
        if role:
            said[role].append(turn)
    if len(said["user"]) != 1 or len(said["assistant"]) != 1:
        return {}, "several_turns" if said["user"] and said["assistant"] else "no_answer"
    asked, answered = said["user"][0], said["assistant"][0]
    return {
        "question": asked.get("content") or asked.get("value"),
        "thinking": answered.get("reasoning_content") or answered.get("reasoning") or answered.get("thinking"),
        "response": answered.get("content") or answered.get("value"),
    }, ""


def _text(value: Any) -> str:
    if isinstance(value, list):
        value = "\n".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in value)
    return str(value).strip() if value is not None else ""


class Importer:
    """Rows in, traces out."""

    def __init__(self, config: SynthesisConfig, source: TraceSource, held_out: list[str], label: str) -> None:
        """`held_out` are the questions that no model may be taught; `label` is the traces' synthesizer."""
        self.config, self.source, self.label = config, source, label
        self.forms: Counter[str] = Counter()
        self._held = ContainmentIndex(held_out, 8, 8) if held_out else None
        self._samples: Counter[str] = Counter()
        self._known = KnownFinder(Known())

    def prepare(self, row: dict[str, Any]) -> tuple[Trace, Case | None]:
        """The trace of a row, not judged yet, and what it is to be judged by; a reject is final."""
        found = read_row(row, {str(field): name for field, name in self.source.map.items()})
        self.forms[found.form] += 1
        problem = found.problem
        texts = [found.question, found.thinking, found.response]
        if not problem and self._held and self._held.highest(found.question) >= self.source.most_containment:
            problem = "held_out"
        if not problem and self.source.scrub:
            clean = [scrub(text, self._known, None) for text in texts]
            texts = [one.text for one in clean]
            problem = "phi_doubt" if any(one.doubts for one in clean) else ""
        if not problem and found.language not in ("en", "zh"):
            problem = "other_language"
        question, thinking, response = texts
        trace = Trace(
            case_id=found.case,
            sample=self._samples[found.case],
            language="zh" if found.language == "zh" else "en",
            question=question,
            thinking=thinking,
            response=response,
            references=found.references,
            outcome=TraceOutcome.REJECTED if problem else TraceOutcome.UNVERIFIED,
            reason=problem,
            synthesizer=self.label,
        )
        self._samples[found.case] += 1
        if problem or not found.references:
            return trace, None
        return trace, Case(id=found.case, language=trace.language, question=question, references=found.references)

    async def settle(self, trace: Trace, case: Case | None, verifier: Verifier) -> Trace:
        if trace.accepted and case is not None:
            verdict = await verifier.judge(Judgement.of(case, trace.response))
            if verdict.label is VerdictLabel.INCORRECT:
                trace.outcome, trace.reason = TraceOutcome.REJECTED, "incorrect"
            elif verdict.label is VerdictLabel.CORRECT:
                trace.outcome = TraceOutcome.DIRECT
                said = {"reasoning": trace.thinking, "answer": conclusion_line(trace.response) or case.reference}
                trace.attempts = [Attempt(strategy=Strategy.INITIAL, verdict=verdict, **said)]
                # Asked and answered as our own are: what was found right is stated in a line of its own.
                if case.prompt.removeprefix(case.problem).strip() not in trace.question:
                    trace.question = case.prompt
                trace.response = concluded(case, trace.response, case.reference)
        if trace.accepted and (objection := first_objection(trace, self.config.filters)):
            trace.outcome, trace.reason = TraceOutcome.REJECTED, objection
        if trace.outcome is TraceOutcome.UNVERIFIED and self.source.unverified == "reject":
            trace.outcome, trace.reason = TraceOutcome.REJECTED, "unverified"
        return trace


def import_traces(
    config: SynthesisConfig, source: TraceSource, cases: Path | None, state_dir: Path
) -> tuple[list[Trace], Path, dict[str, int], list[dict[str, object]]]:
    """All rows of the source as traces, in its order; (traces, the file that was read, rows by form, what the judge's
    client did).

    Args:
        cases: sft.jsonl of the records step, beside which the splits lie that no trace may come from; None for none.
        state_dir: gets the journal of the judge's calls.

    Raises:
        UserError: an unreadable source, or a judge that may not have it.
    """
    path = fetched(source.path, state_dir)
    held = [cases.with_name(f"{name}.jsonl") for name in HELD_OUT] if cases else []
    questions = [case.question for file in held if file.is_file() for case in iter_jsonl(file, Case)]
    importer = Importer(config, source, questions, f"imported/{path.stem}")
    if config.verifier.kind != "rule":
        check_crossing(config.judge_endpoint, config.crossing)
        if not source.scrub:
            check_gate(config.judge_endpoint, config.crossing, path)
    prepared = [importer.prepare(row) for row in rows_of(path)]
    if not prepared:
        raise UserError(f"{path}: no rows in it; give reasoning data as JSON, JSONL or Parquet")
    if set(importer.forms) == {"unknown"}:
        raise UserError(
            f"{path}: no row is in a known form; name its columns (question, thinking, response, reference) in `map`"
        )
    traces, endpoints = run_calls(_judge(config, importer, prepared, state_dir))
    return traces, path, dict(importer.forms), endpoints


async def _judge(
    config: SynthesisConfig, importer: Importer, prepared: list[tuple[Trace, Case | None]], state_dir: Path
) -> tuple[list[Trace], list[dict[str, object]]]:
    async with AsyncExitStack() as stack:
        client = None
        if config.verifier.kind != "rule":
            journal = stack.enter_context(open_journal(state_dir))
            client = LLMClient(config.judge_endpoint, journal, Budget(config.budget))
            await stack.enter_async_context(client)
            await client.check()
        verifier = build_verifier(config.verifier, client)
        gate = asyncio.Semaphore(config.concurrency)

        async def one(trace: Trace, case: Case | None) -> Trace:
            async with gate:
                return await importer.settle(trace, case, verifier)

        done = await asyncio.gather(*(one(trace, case) for trace, case in prepared))
        return list(done), [client.statistics.summary()] if client else []


def fetched(place: str, folder: Path) -> Path:
    """The file itself, or a copy of the object of an s3:// URI in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if "://" not in place:
        return Path(place)
    above, _, name = place.rpartition("/")
    store = open_store(above)
    if not store.stat(name):
        raise UserError(f"{place}: nothing there; give the s3:// URI of a JSON, JSONL or Parquet file")
    store.get_file(name, folder / name)
    return folder / name


# --- out

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
        f"`messages` with `reasoning_content` (`{example}`); `verified` says whether a verifier found the answer right."
    )
    return f"---\n{told}---\n\n{card}\n## Form\n\n{form}\n"
