"""What the simulated endpoint says: finds the task and the case in a request and lets teacher, outsider or judge write.

A reply is a function of (seed, messages, seed of the request when sampling) alone.
"""

import hashlib
import json
import random
import re
from functools import lru_cache

from clinical_r1.simulator import judge, outside, teacher
from clinical_r1.simulator.config import SimulatorConfig
from clinical_r1.simulator.protocol import Request
from clinical_r1.simulator.world import Chart, parse_question

RETRIES = ("exploring_new_paths", "backtracking", "verification", "corrections")
_ATTEMPT = re.compile(r"\[reasoning\]\s*(.*?)\s*\[answer\][ \t]*(.*?)\s*(?=\[|$)", re.DOTALL)

_chart = lru_cache(maxsize=2048)(parse_question)


class Responder:
    """The simulated clinician behind the endpoint."""

    def __init__(self, config: SimulatorConfig, key: outside.AnswerKey) -> None:
        self.config = config
        self.key = key
        self._seed = f"{config.seed}".encode()

    def reply(self, request: Request) -> str:
        """The content of the assistant's message."""
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
        task, blocks = request.task, request.blocks
        if task == "told":
            return {"told": judge.was_told(blocks.get("thinking", ""))}
        if task == "judge":
            return {"verdict": self._judge(blocks.get("reference", ""), blocks.get("answer", ""), rng)}
        if task == "rubric":
            return {"met": judge.meets(blocks.get("criterion", ""), blocks.get("answer", ""))}
        case = blocks.get("case", "")
        chart = _chart(case)
        attempts = [(found[1], found[2]) for found in _ATTEMPT.finditer(blocks.get("previous", ""))]
        if task == "natural":
            return {"thinking": self._natural(request, chart, [reasoning for reasoning, _ in attempts])}
        if task == "response":
            return {"response": self._response(request, chart, case)}
        if task not in ("initial", "guided", *RETRIES):
            return None
        if chart is None:
            return self._outside_attempt(request, case, [answer for _, answer in attempts], rng)
        written = self._world_attempt(task, chart, attempts, blocks.get("reference", ""), rng)
        return {"reasoning": written.reasoning, "answer": written.answer}

    def _judge(self, reference: str, answer: str, rng: random.Random) -> str:
        right = judge.is_right(reference, answer)
        if not right and rng.random() < self.config.judge_leniency:
            right = True
        if rng.random() < self.config.judge_error:
            right = not right
        return "correct" if right else "incorrect"

    def _care(self, mix: dict[teacher.Care, float], rng: random.Random) -> teacher.Care:
        return teacher.draw_care(rng, teacher.with_careful(mix, self.config.world_care))

    def _world_attempt(
        self, task: str, chart: Chart, attempts: list[tuple[str, str]], reference: str, rng: random.Random
    ) -> teacher.Written:
        if task == "guided":
            return teacher.guided(chart, reference, rng)
        if task == "initial" or not attempts:
            return teacher.attempt(chart, self._care(teacher.CARE_FIRST, rng), rng)
        care = self._care(teacher.CARE_RETRY, rng)
        return teacher.retry(chart, task, attempts[0][0], [answer for _, answer in attempts], care, rng)

    def _outside_attempt(self, request: Request, case: str, wrong: list[str], rng: random.Random) -> dict[str, object]:
        language = request.language
        if request.task == "guided":
            stated = request.blocks.get("reference", "")
        else:
            competence = self.config.competence if self.config.competence is not None else outside.DEFAULT_COMPETENCE
            stated = outside.answer(self.key, case, language, competence, rng)
        return {"reasoning": outside.reasoning(case, stated, language, request.task, wrong, rng), "answer": stated}

    def _natural(self, request: Request, chart: Chart | None, reasonings: list[str]) -> str:
        if not reasonings:
            return request.blocks.get("previous", "")
        if chart is None:
            return outside.rewrite(reasonings, request.language)
        return reasonings[0] if len(reasonings) == 1 else teacher.rewrite(chart.language, reasonings[0], reasonings[-1])

    def _response(self, request: Request, chart: Chart | None, case: str) -> str:
        answer = request.blocks.get("answer", "")
        if chart is None:
            return outside.response(case, answer, request.language)
        stated = answer or teacher.conclusion(chart.language, request.blocks.get("thinking", ""))
        return teacher.response(chart.language, stated or "")

    def _plain_answer(self, request: Request, rng: random.Random) -> str:
        """A question asked without a task: answered as a model would that was only asked the question."""
        case = request.blocks.get("case", request.last)
        chart = _chart(case)
        if chart is not None:
            written = teacher.attempt(chart, self._care(teacher.CARE_FIRST, rng), rng)
            return teacher.response(chart.language, written.answer)
        competence = self.config.competence if self.config.competence is not None else outside.DEFAULT_COMPETENCE
        return outside.response(
            case, outside.answer(self.key, case, request.language, competence, rng), request.language
        )
