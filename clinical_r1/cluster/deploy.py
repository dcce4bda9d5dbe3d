"""The end of a pipeline: a model that passed the gate into service, the first one as well as every later one.

The first model makes the InferenceService, through KServe's SDK, kept from clients until it has answered the probe
cases; later ones are rolled out beside the one that is served (rollout.py). What is seen of a new model are answers
to stored probe cases (`Probe`), or what its gateways counted (`Live`): counts only, no text.
"""

import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import urllib3

from clinical_r1.cluster.api import INFERENCE_SERVICE, Cluster, Refused
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.inference_service import TRAFFIC, KServe, manifest
from clinical_r1.cluster.rollout import (
    Mode,
    Observed,
    Observer,
    RolloutRules,
    Verdict,
    judge,
    roll_out,
    tell_sampling,
    wait_pods,
)
from clinical_r1.errors import UserError
from clinical_r1.llm.reply import AttemptError, read_reply
from clinical_r1.reasoning import REASONED, Outcome
from clinical_r1.recognise import read

_PATH = "/v1/chat/completions"
_PORT = 8080
_ANSWERS = re.compile(r'^clinical_r1_answers_total\{[^}]*outcome="(\w+)"[^}]*\} ([0-9.e+]+)', re.M)


def deploy_model(
    uri: str,
    mode: Mode,
    questions: Iterable[str],
    key: str = "",
    cluster: Cluster | None = None,
    say: Callable[[str], None] = print,
    watch: Observer | None = None,
    ready_seconds: float = 1800,
) -> Verdict:
    """Serve the model at `uri` (s3://BUCKET/models/NAME/VERSION) in this namespace, as the chart says.

    `questions` are the probe cases, `key` a client's API key where the gateway asks for one. The chart's
    `serving.rollout.minRequests` decides how many answers promote: fewer hold. Raises UserError where nothing can be
    served, and where the model does not become ready.
    """
    cluster = cluster or Cluster()
    facts = Facts.read(cluster)
    prefix = f"s3://{facts.bucket}/models/"
    if not uri.startswith(prefix):
        raise UserError(
            f"deploy: {uri} is not below {prefix}: only what the store's user `serving` reads can be served"
        )
    rules = RolloutRules(min_requests=facts.rollout_min_requests, ready_seconds=ready_seconds)
    name = facts.serving_name
    probe = watch or Probe(questions, name, key)
    tell_sampling(cluster, name, uri, say)
    live = cluster.get(INFERENCE_SERVICE, name)
    predictor = live["spec"]["predictor"] if live else {"model": {"storageUri": uri}, "labels": {TRAFFIC: "off"}}
    # In the dark: an earlier attempt of the same step made it and did not come to its end.
    if predictor["model"].get("storageUri") == uri and predictor.get("labels", {}).get(TRAFFIC) == "off":
        return _first(cluster, facts, uri, probe, rules, say)
    seen = watch or (Live(cluster, name) if mode == "replicas" else probe)
    return roll_out(cluster, name, uri, seen, mode, rules, say=say)


def _first(
    cluster: Cluster, facts: Facts, uri: str, watch: Observer, rules: RolloutRules, say: Callable[[str], None]
) -> Verdict:
    name, client = facts.serving_name, KServe(cluster)
    try:
        client.create(manifest(facts, uri, traffic="off"))
        say(f"{name}: made with {uri}, kept from clients until it has answered")
    except Refused as error:
        if error.status != 409:
            raise
        say(f"{name}: found from an earlier attempt")
    client.wait_ready(name, rules.ready_seconds)
    observed = watch(f"http://{name}-predictor.{cluster.namespace}.svc")
    decision, reason = judge(observed, rules)
    if decision == "promoted":
        body = {"spec": {"predictor": {"labels": {TRAFFIC: "on"}}}}
        live = cluster.patch(INFERENCE_SERVICE, name, body)
        wait_pods(cluster, name, uri, "on", int(live["spec"]["predictor"].get("minReplicas", 1)), rules)
        say(f"{name}: open to clients at {facts.serving_url}: {reason}")
    else:
        decision = "held"  # nothing was served before: there is nothing to roll back to
        say(f"{name}: held, clients do not reach it: {reason}")
    return Verdict(decision=decision, reason=reason, uri=uri, previous="", observed=observed)  # type: ignore[arg-type]


class Probe:
    """Sends each question once; an Observer of `roll_out`."""

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
    """Counts what a canary's pods answered, from their gateways' /metrics; an Observer of `roll_out`."""

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
            more = observed_in(reply.data.decode("utf-8", "replace")).model_dump()
            seen = Observed(**{name: count + more[name] for name, count in seen.model_dump().items()})
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
