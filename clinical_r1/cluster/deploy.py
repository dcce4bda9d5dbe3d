"""The end of a pipeline: a model that passed the gate into service, the first one as well as every later one.

The first model makes the InferenceService, through KServe's SDK, kept from clients until it has answered the probe
cases; later ones are rolled out beside the one that is served (rollout.py).
"""

from collections.abc import Callable, Iterable

from clinical_r1.cluster.api import INFERENCE_SERVICE, Cluster, Object, Refused
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.inference_service import TRAFFIC, KServe, manifest
from clinical_r1.cluster.probes import Live, Probe
from clinical_r1.cluster.rollout import Mode, RolloutRules, Verdict, Watch, judge, roll_out, tell_sampling, wait_pods
from clinical_r1.errors import UserError


def deploy_model(
    uri: str,
    mode: Mode,
    questions: Iterable[str],
    key: str = "",
    cluster: Cluster | None = None,
    say: Callable[[str], None] = print,
    watch: Watch | None = None,
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
    if live is None or _is_ours_in_the_dark(live, uri):
        return _first(cluster, facts, uri, probe, rules, say)
    seen = watch or (Live(cluster, name) if mode == "replicas" else probe)
    return roll_out(cluster, name, uri, seen, mode, rules, say=say)


def _is_ours_in_the_dark(live: Object, uri: str) -> bool:
    """An earlier attempt of the same step made it and did not come to its end."""
    predictor = live["spec"]["predictor"]
    return predictor["model"].get("storageUri") == uri and predictor.get("labels", {}).get(TRAFFIC) == "off"


def _first(
    cluster: Cluster, facts: Facts, uri: str, watch: Watch, rules: RolloutRules, say: Callable[[str], None]
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
