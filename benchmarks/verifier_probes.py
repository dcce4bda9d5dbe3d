"""Does a verifier accept what it must not, and does it pay what is right? English and Chinese, grades known.

    python -m benchmarks.verifier_probes                 # rules, simulated judge and their ensemble
    python -m benchmarks.verifier_probes --base-url https://h/v1 --model m --api-key-env JUDGE_KEY

Answers come from templates (verifier_probes.yaml: every kind that must be refused and the plain ones), from cases
written by hand (verifier_cases.tsv), and from ../shared where it lies beside the repository: answers by category,
HuatuoGPT-o1's 198 replies, MedQA's 1,273 items in many forms of a right choice, judge replies. A false accept pays a
wrong answer during training; an answer that rules leave undecided costs a call of the judge. The last line is one JSON
object:

false_accepts         wrong, denied, doubted or listed answers that the rules accept (0 is right)
formal_accepted       share of formal replies with a conclusion line that the rules alone accept
synonyms_accepted, detail_accepted, affirmed_accepted   the same of synonyms, fitting detail, plain affirmations
huatuo_accepted       of all 198 replies; huatuo_accepted_of_named of those that are right and name the reference in a
                      sentence that answers. Each was read (verifier_huatuo.yaml): huatuo_read counts what they are
huatuo_not_named      replies that the rules accept though the reading does not call them named (0 is right)
huatuo_false          replies accepted against another problem's reference, all pairs
open_accepted         share of MedQA's right options that are accepted as an open answer in the question's words
open_false            wrong options that are (0 is right)
choice_accuracy       right letters of the worst form of a choice
judge_replies_right   share of judge replies read as they are meant
stub_judge_right      share of all right answers that end as correct with a judge that is right
"""

import argparse
import asyncio
import json
import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_r1.atomic import read_table
from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import parse_reply
from clinical_r1.reasoning import with_conclusion
from clinical_r1.schema import Verdict, VerdictLabel
from clinical_r1.simulator.beside import simulated_endpoint
from clinical_r1.verifier.choice import read_choice
from clinical_r1.verifier.judgement import Judgement, Verifier
from clinical_r1.verifier.rule import RuleVerifier
from clinical_r1.verifier.verifier import EnsembleVerifier, Judged, VerifierConfig, build_verifier

REFUSED = ("negated", "hedged", "list_everything", "empty", "wrong", "unusual", "disguised", "elsewhere")
ACCEPTED = ("right", "plain", "paraphrase", "affirmed", "detail", "synonym", "formal")
HANDED = {
    "affirmed_after_contrast": "affirmed", "more_detail": "detail", "near_miss": "near_miss", "synonym": "synonym",
    "negated_hedged_list": "negated", "formal": "formal",
}  # fmt: skip
"""Categories of the handed answers, as kinds."""

TABLE = read_table(Path(__file__).with_suffix(".yaml"))
WRITTEN = Path(__file__).with_name("verifier_cases.tsv")
READ = read_table(Path(__file__).with_name("verifier_huatuo.yaml"))
CHOICES = read_table(Path(__file__).with_name("verifier_choices.yaml"))
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
HUATUO, MEDQA = "data/huatuogpt_o1_demo_198.json", "data/medqa_test_1273.jsonl"


@dataclass(frozen=True)
class Probe:
    """A judgement with the grade that it deserves."""

    kind: str
    item: Judgement

    @property
    def acceptable(self) -> bool:
        return self.kind in ACCEPTED


def generate(per_kind: int = 60, seed: int = 0) -> Iterator[Probe]:
    """Distinct probes: at most `per_kind` of each kind and language, drawn by seed from all combinations."""
    for language, table in TABLE.items():
        for kind, templates in table["templates"].items():
            made = {
                (x, template.format(x=x, p=p, y=y, z=z))
                for template in templates
                for x, p, y, z in (row.split("|") for row in table["diseases"])
            }
            chosen = sorted(made)
            random.Random(f"{seed}-{language}-{kind}").shuffle(chosen)
            for reference, answer in chosen[:per_kind]:
                yield Probe(kind, Judgement(table["question"], reference, answer, language))


def written_cases() -> list[Probe]:
    """The cases of verifier_cases.tsv."""
    lines = WRITTEN.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [
        Probe(kind, Judgement("", reference, answer.replace("\\n", "\n"), "en" if reference.isascii() else "zh"))
        for kind, reference, answer in rows
    ]


def _handed(name: str) -> list[Any]:
    """The rows of a file below ../shared; none where it is absent."""
    path = SHARED / name
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return json.loads(text) if path.suffix == ".json" and text else [json.loads(line) for line in text.splitlines()]


def handed_cases() -> list[Probe]:
    """The answers of ../shared/cases/verdicts.jsonl; none where the folder is absent."""
    return [
        Probe(HANDED.get(row["category"], "right" if row["expected"] else "wrong"),
              Judgement("", row["reference"], row["answer"], row["language"]))
        for row in _handed("cases/verdicts.jsonl")
    ]  # fmt: skip


def formal_replies() -> list[Probe]:
    """Formal replies that end with their conclusion line: handed ones, and generated ones whose body says of other
    diseases what the line must not be judged by."""
    handed = [probe.item for probe in handed_cases() if probe.kind == "formal"]
    made = [(item.reference, item.reference.partition("(")[0].strip(), item.answer, item.language) for item in handed]
    for language, table in TABLE.items():
        for x, p, y, z in (row.split("|") for row in table["diseases"]):
            made += [(x, name, body.format(y=y, z=z), language) for name in (x, p) for body in table["bodies"]]
    return [
        Probe("formal", Judgement("", reference, with_conclusion(body, name, language), language))
        for reference, name, body, language in made
    ]


class RightJudge:
    """A judge that is right about the probes it was made for: what is left to the judge ends as it should."""

    name = "llm:right"

    def __init__(self, probes: list[Probe]) -> None:
        self._right = {(probe.item.reference, probe.item.answer): probe.acceptable for probe in probes}

    async def judge(self, item: Judgement) -> Verdict:
        """The known grade."""
        right = self._right[item.reference, item.answer]
        return Verdict(label=VerdictLabel.CORRECT if right else VerdictLabel.INCORRECT, judge=self.name)


def rules(show: bool = False) -> dict[str, object]:
    """What the rules alone make of every kind, and what is left with a judge that is right."""
    rule = RuleVerifier()
    probes = [*generate(10**6), *written_cases(), *handed_cases(), *formal_replies()]
    total = Counter(probe.kind for probe in probes)
    accepted: Counter[str] = Counter()
    false = refused_right = 0
    for probe in probes:
        verdict = rule.judge_sync(probe.item)
        right = verdict.label is VerdictLabel.CORRECT
        accepted[probe.kind] += right
        false += right and not probe.acceptable
        refused_right += probe.acceptable and verdict.label is VerdictLabel.INCORRECT
        if show and right is not probe.acceptable and not (probe.item.answer == "" and not right):
            said = f"{probe.item.reference!r} <- {probe.item.answer!r}"
            print(f"  {probe.kind}: {verdict.label.value} ({verdict.reason}) {said}")
    ensemble = EnsembleVerifier(rule, RightJudge(probes))
    ends = asyncio.run(_ends(ensemble, [probe for probe in probes if probe.acceptable]))
    share = {kind: accepted[kind] / total[kind] if total[kind] else None for kind in ACCEPTED}
    return {
        "rule_probes": len(probes), "false_accepts": false, "refused_right": refused_right,
        "formal_accepted": share["formal"], "synonyms_accepted": share["synonym"], "detail_accepted": share["detail"],
        "affirmed_accepted": share["affirmed"], "stub_judge_right": ends,
        "accepted_by_kind": {kind: f"{accepted[kind]}/{total[kind]}" for kind in sorted(total)},
    }  # fmt: skip


async def _ends(verifier: Verifier, probes: list[Probe]) -> float:
    verdicts = [await verifier.judge(probe.item) for probe in probes]
    return sum(verdict.label is VerdictLabel.CORRECT for verdict in verdicts) / len(verdicts)


def huatuo() -> dict[str, object]:
    """Real replies against their own and against every other problem's reference."""
    rule = RuleVerifier()
    rows = [
        (r["Open-ended Verifiable Question"], r["Ground-True Answer"].strip(" ."), r["Response"])
        for r in _handed(HUATUO)
    ]
    if not rows:
        return {"huatuo_accepted": None, "huatuo_false": None, "skipped": f"no {Path(HUATUO).name}"}

    def accepts(question: str, reference: str, reply: str) -> bool:
        item = Judgement(question, reference, reply, "en", references=(reference,))
        return rule.judge_sync(item).label is VerdictLabel.CORRECT

    right = {place for place, row in enumerate(rows) if accepts(*row)}
    named = set(READ["named"])
    false = sum(
        accepts(question, other, reply)
        for question, own, reply in rows
        for _, other, _ in rows
        if not rule.names.match(other, own)
    )
    counts = {reason: len(places) for reason, places in READ.items()}
    return {
        "huatuo_accepted": len(right) / len(rows), "huatuo_accepted_of_named": len(right & named) / len(named),
        "huatuo_not_named": len(right - named), "huatuo_false": false,
        "huatuo_read": {**counts, "another answer": len(rows) - sum(counts.values())},
    }  # fmt: skip


def choices() -> dict[str, object]:
    """MedQA's right letters in every form of verifier_choices.yaml; no form may be read as another option."""
    rows = _handed(MEDQA)
    if not rows:
        return {"choice_accuracy": None, "choice_wrong": None, "skipped_choices": f"no {Path(MEDQA).name}"}
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for row in rows:
        options = [row["options"][letter] for letter in sorted(row["options"])]
        place = ord(row["answer_idx"]) - ord("A")
        other = chr(ord("A") + (place + 1) % len(options))
        for form in CHOICES:
            answer = form.format(L=row["answer_idx"], l=row["answer_idx"].lower(), T=options[place], W=other)
            index = read_choice(answer, options).index
            right[form] += index == place
            wrong[form] += index not in (place, None)
    worst = min(CHOICES, key=lambda form: right[form])
    return {
        "choice_forms": len(CHOICES), "choice_accuracy": right[worst] / len(rows), "choice_worst": worst,
        "choice_wrong": sum(wrong.values()),
    }  # fmt: skip


OPEN = (
    "{asked} {is_} {option}.",
    "The signs were weighed. Therefore, {asked} {is_} {option}.",
    "{option} {is_} {asked}.",
)


def opened() -> dict[str, object]:
    """MedQA's questions without their choices (`which of the following is the X` as `what is the X`), answered in their
    own words with each option: the right one is to be accepted, the others never."""
    rows = _handed(MEDQA)
    if not rows:
        return {"open_accepted": None, "open_false": None, "skipped_open": f"no {Path(MEDQA).name}"}
    rule = RuleVerifier()
    right = accepted = false = 0
    for row in rows:
        asks = re.search(
            r"which (?:one )?of the following (is|are|would be) ((?:the|an?) [^?]*)\?\s*$", row["question"], re.I
        )
        if not asks:
            continue
        question = f"{row['question'][: asks.start()]}what {asks[1]} {asks[2]}?"
        reference = row["options"][row["answer_idx"]]
        for letter, option in row["options"].items():
            for form in OPEN:
                answer = form.format(asked=asks[2], is_=asks[1], option=option)
                item = Judgement(question, reference, answer[0].upper() + answer[1:], "en", references=(reference,))
                correct = rule.judge_sync(item).label is VerdictLabel.CORRECT
                right += letter == row["answer_idx"]
                accepted += correct and letter == row["answer_idx"]
                false += correct and letter != row["answer_idx"]
    return {"open_statements": right, "open_accepted": accepted / right, "open_false": false}


def judge_replies() -> dict[str, object]:
    """The handed judge replies."""
    rows = _handed("cases/judge_replies.jsonl")
    if not rows:
        return {"judge_replies_right": None, "skipped_replies": "no judge_replies.jsonl"}
    read = [(parse_reply(row["reply"], Judged), row["right"]) for row in rows]
    right = [parsed.verdict == wanted.split()[0] if parsed else "invalid" in wanted for parsed, wanted in read]
    return {"judge_replies_right": sum(right) / len(right)}


async def grade(verifier: Verifier, probes: list[Probe], show: bool = False) -> dict[str, object]:
    """Counts of one verifier over the probes."""
    verdicts = await asyncio.gather(*(verifier.judge(probe.item) for probe in probes))
    wrong: dict[str, Counter[str]] = {"accepts": Counter(), "rejects": Counter()}
    for probe, verdict in zip(probes, verdicts, strict=True):
        accepted, refused = (verdict.label is label for label in (VerdictLabel.CORRECT, VerdictLabel.INCORRECT))
        if not (refused if probe.acceptable else accepted):
            continue
        wrong["rejects" if refused else "accepts"][f"{probe.item.language}/{probe.kind}"] += 1
        if show:
            said = " ".join(probe.item.answer.split())
            print(f"  {verifier.name}: {verdict.label.value} ({verdict.reason}) {probe.item.reference!r} <- {said!r}")
    return {
        "false_accepts": wrong["accepts"].total(),
        "false_rejects": wrong["rejects"].total(),
        "invalid": sum(verdict.label is VerdictLabel.INVALID for verdict in verdicts),
        "false_accepts_by_kind": dict(sorted(wrong["accepts"].items())),
        "false_rejects_by_kind": dict(sorted(wrong["rejects"].items())),
    }


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Grade all probes with each verifier."""
    probes = list(generate(arguments.per_kind, arguments.seed))
    with ExitStack() as stack:
        base_url = arguments.base_url
        if not base_url:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            base_url = stack.enter_context(simulated_endpoint([], folder / "endpoint.log", folder / "ready.json"))
        endpoint = EndpointConfig(
            name="judge",
            base_url=base_url,
            model=arguments.model,
            api_key_env=arguments.api_key_env,
            max_concurrency=arguments.concurrency,
        )
        async with LLMClient(endpoint) as client:
            await client.check()
            results: dict[str, object] = {
                kind: await grade(build_verifier(VerifierConfig(kind=kind), client), probes, arguments.show)
                for kind in ("rule", "llm", "ensemble")
            }
    refusable = sum(not probe.acceptable for probe in probes)
    return {"probes": len(probes), "must_refuse": refusable, "model": arguments.model, "verifiers": results}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="", help="an endpoint; the simulated judge without it")
    parser.add_argument("--model", default="simulated-clinician")
    parser.add_argument("--api-key-env", default="")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--per-kind", type=int, default=60, help="probes of each kind and language at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print the misjudged probes (they contain no records)")
    try:
        arguments = parser.parse_args()
        result = {
            **asyncio.run(run(arguments)),
            **rules(arguments.show),
            **huatuo(),
            **choices(),
            **opened(),
            **judge_replies(),
        }
    except UserError as error:
        print(error)
        return 2
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
