"""What the simulated endpoint says: finds the task and the case in a request and lets teacher or judge write.

A reply is a function of (seed, messages, seed of the request when sampling) alone. About cases from outside of the
simulated world it knows nothing except an answer key that it may have been handed. With it, it plays a teacher of a
stated competence whose reasoning is made of the case's own sentences: enough to run real records through the pipeline
and to measure the machinery, useless as medicine. Without a key it says that it does not know.
"""

import hashlib
import json
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from clinical_r1.asking import asks_for
from clinical_r1.reasoning import CONCLUSION_LABELS, ConclusionKind, with_conclusion
from clinical_r1.schema import Case
from clinical_r1.simulator import judge, teacher
from clinical_r1.simulator.beside import SimulatorConfig
from clinical_r1.simulator.world import Chart, parse_question
from clinical_r1.text import Language

BLOCKS = ("case", "previous", "reference", "thinking", "answer", "criterion")
RETRIES = ("exploring_new_paths", "backtracking", "verification", "corrections")
DEFAULT_COMPETENCE = 0.6
_ATTEMPT = re.compile(r"\[reasoning\]\s*(.*?)\s*\[answer\][ \t]*(.*?)\s*(?=\[|$)", re.DOTALL)
_SENTENCES = re.compile(r"(?<=[a-z0-9)%])[.?!]\s+|[。！？；\n]+")
_ASKS = re.compile(
    r"(?i)[?？]|^(?:what|which|who|whom|whose|where|when|why|how|is|are|does|do|can|could|would|should|given|based)\b"
    r".*\b(?:diagnos\w*|cause|treatment|management|mechanism|step|condition|disease|explain\w*)\b"
    r"|什么|哪[一种个项]|如何|请问|请(?:给出|诊断|判断|说明|分析)|吗$|是否"
)
"""A sentence that asks is no finding."""
_PHRASES = teacher.PHRASES["outside"]

_chart = lru_cache(maxsize=2048)(parse_question)


class Request(NamedTuple):
    """One chat request, read."""

    task: str  # empty for a plain question
    language: Language
    blocks: dict[str, str]  # by the names of BLOCKS; empty where there is none
    last: str  # the last user message as it stands
    fingerprint: bytes  # the messages and, when sampling, the seed: what the reply is a function of
    response_format: str
    prompt_characters: int


def _plain(text: str) -> str:
    return "".join(text.split())


@dataclass(frozen=True)
class AnswerKey:
    """References by case text, and the pool that wrong answers are drawn from."""

    references: dict[str, str]
    pool: dict[Language, list[str]]

    @classmethod
    def of(cls, cases: Iterable[Case]) -> "AnswerKey":
        references: dict[str, str] = {}
        pool: dict[Language, set[str]] = {"en": set(), "zh": set()}
        for case in cases:
            references[_plain(case.question)] = case.reference
            pool[case.language].add(case.reference)
        return cls(references, {language: sorted(names) for language, names in pool.items()})

    def answer(self, case_text: str, language: Language, competence: float, rng: random.Random) -> str:
        """Right with chance `competence`, else another case's answer (plausible in form, wrong in fact); not known
        where the key does not hold the case."""
        unknown, reference = _PHRASES[language]["unknown"][0], None
        while case_text and (reference := self.references.get(_plain(case_text))) is None:
            case_text = case_text.rpartition("\n\n")[0]  # without the request for a line, the list of choices
        if reference is None:
            return unknown
        if rng.random() < competence:
            return reference
        drawn = rng.choices(self.pool[language], k=8)
        return next((name for name in drawn if _plain(name) != _plain(reference)), unknown)


class Responder:
    """The simulated clinician behind the endpoint."""

    def __init__(self, config: SimulatorConfig, key: AnswerKey) -> None:
        self.config = config
        self.key = key
        self._seed = f"{config.seed}".encode()

    def reply(self, request: Request) -> str:
        digest = hashlib.blake2b(request.fingerprint, digest_size=8, key=self._seed)
        rng = random.Random(int.from_bytes(digest.digest(), "big"))
        fields = self._fields(request, rng)
        if fields is None:
            return self._plain_answer(request, rng)
        text = json.dumps(fields, ensure_ascii=False)
        if request.response_format == "text" and rng.random() < 0.3:  # as models do that were not held to JSON
            return f"Here is the result:\n```json\n{text}\n```"
        return text

    def _fields(self, request: Request, rng: random.Random) -> dict[str, object] | None:
        task, blocks, language = request.task, request.blocks, request.language
        if task == "told":
            return {"told": judge.was_told(blocks["thinking"])}
        if task == "judge":
            return {"verdict": self._verdict(blocks["reference"], blocks["answer"], rng)}
        if task == "rubric":
            return {"met": judge.meets(blocks["criterion"], blocks["answer"])}
        chart = _chart(blocks["case"])
        attempts = _ATTEMPT.findall(blocks["previous"])
        if task == "natural":
            thoughts = [reasoning for reasoning, _ in attempts]
            if chart is not None and len(thoughts) > 1:
                return {"thinking": teacher.rewrite(chart.language, thoughts[0], thoughts[-1])}
            ends = [thoughts[0], thoughts[-1]] if len(thoughts) > 1 else thoughts or [blocks["previous"]]
            return {"thinking": _join(ends, language)}  # the first try, then the last one, each as it was
        if task == "response":
            answer = blocks["answer"]
            if chart is None:
                return {"response": outside_response(blocks["case"], answer, language)}
            stated = answer or teacher.conclusion(chart.language, blocks["thinking"])
            return {"response": teacher.response(chart.language, stated or "")}
        if task not in ("initial", "guided", *RETRIES):
            return None
        wrong = [answer for _, answer in attempts]
        if chart is None:
            stated = blocks["reference"] if task == "guided" else self._answer(blocks["case"], language, rng)
            return {"reasoning": _reasoning(request, stated, wrong, rng), "answer": stated}
        if task == "guided":
            written = teacher.guided(chart, blocks["reference"], rng)
        elif task == "initial" or not attempts:
            written = self._first_attempt(chart, rng)
        else:
            care = self._care(teacher.CARE_RETRY, rng)
            written = teacher.retry(chart, task, attempts[0][0], wrong, care, rng)
        return {"reasoning": written.reasoning, "answer": written.answer}

    def _verdict(self, reference: str, answer: str, rng: random.Random) -> str:
        right = judge.is_right(reference, answer) or rng.random() < self.config.judge_leniency
        if rng.random() < self.config.judge_error:
            right = not right
        return "correct" if right else "incorrect"

    def _care(self, mix: dict[teacher.Care, float], rng: random.Random) -> teacher.Care:
        return teacher.draw_care(rng, teacher.with_careful(mix, self.config.world_care))

    def _first_attempt(self, chart: Chart, rng: random.Random) -> teacher.Written:
        return teacher.attempt(chart, self._care(teacher.CARE_FIRST, rng), rng)

    def _answer(self, case: str, language: Language, rng: random.Random) -> str:
        competence = self.config.competence
        return self.key.answer(case, language, DEFAULT_COMPETENCE if competence is None else competence, rng)

    def _plain_answer(self, request: Request, rng: random.Random) -> str:
        """A question asked without a task: answered as a model would that was only asked the question."""
        case = request.blocks["case"] or request.last
        chart = _chart(case)
        if chart is not None:
            return teacher.response(chart.language, self._first_attempt(chart, rng).answer)
        return outside_response(case, self._answer(case, request.language, rng), request.language)


def outside_response(case_text: str, stated: str, language: Language) -> str:
    """The formal answer to a case from outside, with its conclusion line."""
    asked_an_answer = CONCLUSION_LABELS[language, "answer"].rstrip() in case_text
    kind: ConclusionKind = "answer" if asked_an_answer else asks_for(case_text)
    stated = stated.strip(" .。")
    return with_conclusion(_PHRASES[language][kind][0].format(a=stated), stated, language, kind)


def _reasoning(request: Request, stated: str, wrong: list[str], rng: random.Random) -> str:
    """A chain of thought over the case's own sentences that ends at `stated`."""
    phrases = _PHRASES[request.language]

    def pick(name: str) -> str:
        return phrases[name][rng.randrange(len(phrases[name]))]

    parts = [pick(request.task if request.task in phrases else "open")]
    if wrong:
        parts.append(pick("not").format(w=wrong[-1]))
    stripped = (sentence.strip(" .。") for sentence in _SENTENCES.split(request.blocks["case"]))
    sentences = [sentence for sentence in stripped if sentence]
    sentences = [sentence for sentence in sentences if not _ASKS.search(sentence)] or sentences
    if len(sentences) > 6:
        sentences = [sentences[index] for index in sorted(rng.sample(range(len(sentences)), 6))]
    for number, sentence in enumerate(sentences):
        form = phrases["next"][0 if number == 0 else 1 + rng.randrange(len(phrases["next"]) - 1)]
        parts.append(form.format(s=sentence))
    return _join([*parts, pick("turn"), pick("end").format(a=stated)], request.language)


def _join(parts: list[str], language: Language) -> str:
    return (" " if language == "en" else "").join(parts)
