"""What is seen of a new model: answers to stored probe cases, or what its gateways counted. Counts only, no text."""

import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import urllib3

from clinical_r1.cluster.api import Cluster
from clinical_r1.cluster.rollout import Observed
from clinical_r1.llm.reply import AttemptError, read_reply
from clinical_r1.reasoning import REASONED, Outcome
from clinical_r1.recognise import read

_PATH = "/v1/chat/completions"
_PORT = 8080
_ANSWERS = re.compile(r'^clinical_r1_answers_total\{[^}]*outcome="(\w+)"[^}]*\} ([0-9.e+]+)', re.M)


class Probe:
    """Sends each question once; a Watch of `roll_out`."""

    def __init__(
        self, questions: Iterable[str], model: str, key: str = "", workers: int = 4, timeout: float = 120.0
    ) -> None:
        self._questions, self._model, self._workers = list(questions), model, workers
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._http = urllib3.PoolManager(timeout=timeout, retries=False, maxsize=workers)

    def __call__(self, url: str) -> Observed:
        with ThreadPoolExecutor(self._workers) as pool:
            outcomes = list(pool.map(lambda question: self._ask(url, question), self._questions))
        return Observed(
            requests=len(outcomes),
            errors=sum(outcome is None for outcome in outcomes),
            reasoned=sum(outcome in REASONED for outcome in outcomes),
        )

    def _ask(self, url: str, question: str) -> Outcome | None:
        """How the model answered; None where it did not."""
        # Nothing of sampling: the gateway draws as the model was evaluated, and so it is looked at.
        body = {"model": self._model, "messages": [{"role": "user", "content": question}]}
        try:
            reply = self._http.request("POST", url + _PATH, body=json.dumps(body), headers=self._headers)
            if reply.status != 200:
                return None
            return read(read_reply(reply.data).answer).outcome
        except (urllib3.exceptions.HTTPError, AttemptError):
            return None


class Live:
    """Counts what a canary's pods answered, from their gateways' /metrics; a Watch of `roll_out`."""

    def __init__(self, cluster: Cluster, service: str) -> None:
        self._cluster, self._service = cluster, service
        self._http = urllib3.PoolManager(timeout=10.0, retries=False)

    def __call__(self, url: str) -> Observed:
        canary = url.partition("://")[2].partition(".")[0]
        seen = Observed()
        for pod in self._cluster.pods(f"serving.kserve.io/inferenceservice={self._service},app=isvc.{canary}"):
            if not pod.status.pod_ip:
                continue
            try:
                reply = self._http.request("GET", f"http://{pod.status.pod_ip}:{_PORT}/metrics")
            except urllib3.exceptions.HTTPError:
                continue
            seen = _plus(seen, observed_in(reply.data.decode("utf-8", "replace")))
        return seen


def observed_in(metrics: str) -> Observed:
    """Counts of one gateway's metrics page (Prometheus text)."""
    answers = {str(outcome): 0.0 for outcome in Outcome}
    for outcome, value in _ANSWERS.findall(metrics):
        answers[outcome] = answers.get(outcome, 0.0) + float(value)
    return Observed(
        requests=int(sum(answers.values())),
        errors=int(answers[Outcome.ABORTED]),
        reasoned=int(sum(answers[outcome] for outcome in REASONED)),
    )


def _plus(a: Observed, b: Observed) -> Observed:
    return Observed(requests=a.requests + b.requests, errors=a.errors + b.errors, reasoned=a.reasoned + b.reasoned)
