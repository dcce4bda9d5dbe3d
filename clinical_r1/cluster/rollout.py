"""A new model into an InferenceService of KServe 0.20 (Standard mode), watched, and the old one back.

Three modes. KServe's canary in this mode counts replicas and splits no traffic:
  dark      a canary with no share of the traffic gets stored probe cases through its own Service; then it is promoted
  replicas  the canary takes part as one or more replicas; its true share is what the replica counts make it
  replace   the old model stops first: where there is no spare GPU, or no canary field in this KServe

The chart's Service selects pods by the label `clinical-r1/traffic: "on"`. A dark canary carries "off"; before it is
promoted it is switched to "on" and waited for, so that at no time nobody answers. What was served is kept in the
annotation `clinical-r1/previous-uri`.
"""

import re
import time
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from clinical_r1.cluster.api import INFERENCE_SERVICE, Cluster, Object
from clinical_r1.cluster.inference_service import (
    PREVIOUS,
    TRAFFIC,
    VERSION,
    drawn_otherwise,
    engine_line,
    model_version,
    typed,
)
from clinical_r1.errors import UserError
from clinical_r1.objectstore.store import open_store
from clinical_r1.strict import Strict

Mode = Literal["dark", "replicas", "replace"]
_POLL_SECONDS = 2.0


class RolloutRules(Strict):
    """When a new model may take over."""

    min_requests: int = Field(default=200, ge=1)
    """Fewer answers than this: hold, never promote on silence."""
    max_error_rate: float = Field(default=0.01, ge=0, le=1)
    """Share of requests without an answer; more: roll back."""
    min_reasoning_rate: float = Field(default=0.9, ge=0, le=1)
    """Share of answers with one closed thought; less: roll back."""
    ready_seconds: float = Field(default=1800, gt=0)
    """Time that a new model may take to become ready."""
    watch_seconds: float = Field(default=3600, gt=0)
    """How long to wait for `min_requests` where live traffic decides."""


class Observed(Strict):
    """What was seen of the new model."""

    requests: int = 0
    """Requests that were sent to it or that it got."""
    errors: int = 0
    """Those without an answer."""
    reasoned: int = 0
    """Answers with one closed thought."""


class Verdict(Strict):
    """Of a rollout."""

    decision: Literal["promoted", "held", "rolled back"]
    reason: str
    uri: str
    """What is served now."""
    previous: str
    """What was served before."""
    observed: Observed


Observer = Callable[[str], Observed]
"""Looks at the new model at the URL of its own Service; returns all that was seen so far."""


def judge(observed: Observed, rules: RolloutRules) -> tuple[str, str]:
    """("promoted" | "held" | "rolled back", why)."""
    if observed.requests < rules.min_requests:
        return "held", f"{observed.requests} requests, fewer than {rules.min_requests}: silence promotes nothing"
    errors = observed.errors / observed.requests
    if errors > rules.max_error_rate:
        why = f"{errors:.1%} of {observed.requests} requests failed (at most {rules.max_error_rate:.1%})"
        return "rolled back", why
    answers = observed.requests - observed.errors
    rate = observed.reasoned / answers if answers else 0.0
    if rate < rules.min_reasoning_rate:
        return "rolled back", f"{rate:.1%} of {answers} answers reasoned (at least {rules.min_reasoning_rate:.0%})"
    return "promoted", f"{observed.requests} requests, {errors:.1%} failed, {rate:.1%} of the answers reasoned"


def roll_out(
    cluster: Cluster,
    service: str,
    uri: str,
    watch: Observer,
    mode: Mode = "dark",
    rules: RolloutRules | None = None,
    replicas: int = 1,
    say: Callable[[str], None] = print,
    poll: float = _POLL_SECONDS,
) -> Verdict:
    """Bring `uri` into `service`; the same call after an interruption goes on with the canary that is there.

    Raises UserError where there is no such service, where a rollout of another model is under way, and where the new
    model does not become ready (what is served stays).
    """
    rules = rules or RolloutRules()
    live = _service(cluster, service)
    served = live["spec"]["predictor"]["model"].get("storageUri", "")
    if served == uri:
        return Verdict(decision="promoted", reason="is served already", uri=uri, previous="", observed=Observed())
    if mode == "replace":
        return _replace(cluster, service, live, uri, watch, rules, say, poll)
    name = canary_name(uri, live["spec"]["predictor"].get("name", ""))
    stable = int(live["spec"]["predictor"].get("minReplicas", 1))
    say(f"{service}: {share_text(stable, replicas, mode)}")
    others = [entry["predictor"].get("name", "") for entry in live["spec"].get("canary") or []]
    if others and others != [name]:
        raise UserError(f"{service}: a rollout of {others[0]} is under way: wait for it, or remove spec.canary")
    # KServe refuses a canary larger than the stable part, and takes its replicas out of those (at least one stays).
    if replicas > stable:
        raise UserError(
            f"{service}: {replicas} canary replicas, but the service has {stable}: use fewer, or mode replace"
        )
    canary = _canary(live, name, uri, mode, replicas)
    typed(canary, "V1beta1CanarySpec")
    cluster.patch(INFERENCE_SERVICE, service, {"spec": {"canary": [canary]}})
    say(f"{service}: {uri} starts as {name}")
    try:
        wait_pods(cluster, service, uri, "off" if mode == "dark" else "on", replicas, rules, poll)
        url = f"http://{service}-{name}-predictor.{cluster.namespace}.svc"
        observed = _look(watch, url, rules, poll) if mode == "replicas" else watch(url)
    except BaseException:
        say(f"{service}: taking {name} back; {served} stays")
        cluster.patch(INFERENCE_SERVICE, service, {"spec": {"canary": None}})
        raise
    decision, reason = judge(observed, rules)
    if decision != "promoted":
        say(f"{service}: {decision}: {reason}; {served} stays")
        cluster.patch(INFERENCE_SERVICE, service, {"spec": {"canary": None}})
        return Verdict(decision=decision, reason=reason, uri=served, previous=uri, observed=observed)  # type: ignore[arg-type]
    if mode == "dark":
        light = _canary(live, name, uri, "replicas", replicas)
        cluster.patch(INFERENCE_SERVICE, service, {"spec": {"canary": [light]}})
        wait_pods(cluster, service, uri, "on", replicas, rules, poll)
    # The canary's pods become the stable ones: same name and template, so that none restarts.
    _serve(cluster, service, name, uri, served)
    say(f"{service}: promoted: {reason}; previous: {served}")
    return Verdict(decision="promoted", reason=reason, uri=uri, previous=served, observed=observed)


def roll_back(cluster: Cluster, service: str, say: Callable[[str], None] = print) -> str:
    """Serve what was served before the last promotion; returns its URI. Raises UserError where nothing is kept."""
    live = _service(cluster, service)
    notes = live["metadata"].get("annotations", {})
    previous = notes.get(PREVIOUS, "")
    if not previous:
        raise UserError(f"{service}: no previous model is kept ({PREVIOUS} is not set): roll out a version by its URI")
    served = live["spec"]["predictor"]["model"].get("storageUri", "")
    # Under the name that it has: the pods are replaced one after the other, and somebody always answers.
    _serve(cluster, service, live["spec"]["predictor"].get("name"), previous, served)
    say(f"{service}: back to {previous}; previous: {served}")
    return previous


def tell_sampling(cluster: Cluster, service: str, uri: str, say: Callable[[str], None]) -> None:
    """Say where the model at `uri` would be drawn otherwise than it was evaluated (with this process's store keys)."""
    try:
        found = drawn_otherwise(open_store(uri), engine_line(cluster, service))
    except UserError as error:
        found = [f"how it was evaluated could not be read: {error}"]
    for one in found:
        say(f"{service}: {uri}: {one}")


def share_text(stable: int, canary: int, mode: Mode) -> str:
    """The canary's true share, as the replica counts make it."""
    left = max(stable - canary, 1)
    if mode == "dark":
        return f"dark: no share of the traffic; {left} of {stable} replica(s) keep serving, {canary} for the new model"
    share = canary / (left + canary)
    return f"true share of the new model: {canary} of {left + canary} replicas, about {share:.0%} of the requests"


def canary_name(uri: str, stable: str = "") -> str:
    """A name that KServe takes, from the last part of the URI: s3://b/models/r1/v-3f9a12 -> v-3f9a12.

    Not the name of the stable part: a model that was rolled back left its name there.
    """
    text = re.sub(r"[^a-z0-9-]+", "-", uri.rstrip("/").rpartition("/")[2].lower()).strip("-")
    name = ("m-" + text if not text[:1].isalpha() else text)[:20].rstrip("-")
    return f"{name}-b" if name == stable else name


def _canary(live: Object, name: str, uri: str, mode: Mode, replicas: int) -> Object:
    # The CRD wants the name here, which KServe's webhook fills in for the stable part.
    model = {"name": "kserve-container"} | live["spec"]["predictor"]["model"] | {"storageUri": uri}
    # The percentage stays 0: given as well, KServe would count its replicas anew.
    return {
        "trafficPercent": 0,
        "predictor": {
            "name": name,
            "minReplicas": replicas,
            "labels": {TRAFFIC: "off" if mode == "dark" else "on"},
            "annotations": {VERSION: model_version(uri)},
            "model": model,
        },
    }


def _serve(cluster: Cluster, service: str, name: str | None, uri: str, served: str) -> None:
    notes = {"annotations": {VERSION: model_version(uri)}, "labels": {TRAFFIC: "on"}}
    predictor: Object = {"model": {"storageUri": uri}, **notes} | ({"name": name} if name else {})
    body = {"metadata": {"annotations": {PREVIOUS: served}}, "spec": {"predictor": predictor, "canary": None}}
    cluster.patch(INFERENCE_SERVICE, service, body)


def _replace(
    cluster: Cluster,
    service: str,
    live: Object,
    uri: str,
    watch: Observer,
    rules: RolloutRules,
    say: Callable[[str], None],
    poll: float,
) -> Verdict:
    predictor = live["spec"]["predictor"]
    served = predictor["model"].get("storageUri", "")
    say(f"{service}: replace: {served} stops, {uri} starts; nobody answers in between")
    _serve(cluster, service, predictor.get("name"), uri, served)
    try:
        wait_pods(cluster, service, uri, "on", max(int(predictor.get("minReplicas", 1)), 1), rules, poll)
        observed = watch(f"http://{service}-predictor.{cluster.namespace}.svc")
        decision, reason = judge(observed, rules)
    except UserError as error:
        decision, reason, observed = "rolled back", str(error), Observed()
    if decision == "promoted":
        return Verdict(decision="promoted", reason=reason, uri=uri, previous=served, observed=observed)
    say(f"{service}: {decision}: {reason}; back to {served}")
    _serve(cluster, service, predictor.get("name"), served, uri)
    return Verdict(decision=decision, reason=reason, uri=served, previous=uri, observed=observed)  # type: ignore[arg-type]


def _look(watch: Observer, url: str, rules: RolloutRules, poll: float) -> Observed:
    """Live traffic: until there is enough of it, or time is over."""
    deadline = time.monotonic() + rules.watch_seconds
    while True:
        observed = watch(url)
        if observed.requests >= rules.min_requests or time.monotonic() > deadline:
            return observed
        time.sleep(poll)


def wait_pods(
    cluster: Cluster,
    service: str,
    uri: str,
    traffic: str,
    replicas: int,
    rules: RolloutRules,
    poll: float = _POLL_SECONDS,
) -> None:
    """Until so many pods that serve `uri`, with this label of traffic, are ready.

    The service's own status does not tell: KServe 0.20 writes the generation of a Deployment into `observedGeneration`,
    and a canary stays "ready" there while its pods are still those of the template before.
    """
    selector = f"serving.kserve.io/inferenceservice={service},{TRAFFIC}={traffic}"
    deadline = time.monotonic() + rules.ready_seconds
    while True:
        ready = [
            pod
            for pod in cluster.pods(selector)
            if (pod.metadata.annotations or {}).get(VERSION) == model_version(uri)
            and not pod.metadata.deletion_timestamp
            and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])
        ]
        if len(ready) >= replicas:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"{service}: {model_version(uri)} was not ready after {rules.ready_seconds:g} s: "
                f"see `kubectl describe isvc {service}`, its pods"
            )
        time.sleep(poll)


def _service(cluster: Cluster, service: str) -> Object:
    live = cluster.get(INFERENCE_SERVICE, service)
    if live is None:
        fix = "install the chart with serving.model.uri first"
        raise UserError(f"inferenceservice {service}: there is none in namespace {cluster.namespace}: {fix}")
    return live
