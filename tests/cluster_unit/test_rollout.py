"""Rollouts on a real API server with KServe's CRDs; the pods are written by the test."""

import threading
import time
from typing import Any

import pytest
from ground import Ground

from clinical_r1.cluster.api import INFERENCE_SERVICE
from clinical_r1.cluster.deploy import observed_in
from clinical_r1.cluster.rollout import (
    PREVIOUS,
    TRAFFIC,
    VERSION,
    Observed,
    RolloutRules,
    canary_name,
    judge,
    roll_back,
    roll_out,
    share_text,
)
from clinical_r1.errors import UserError

OLD, NEW = "s3://clinical-r1/models/r1/v-old", "s3://clinical-r1/models/r1/v-new"
RULES = RolloutRules(min_requests=10, ready_seconds=120, watch_seconds=1)


def service(ground: Ground, replicas: int = 1) -> None:
    model = {"modelFormat": {"name": "clinical-r1"}, "runtime": "clinical-r1-cpu", "storageUri": OLD}
    ground.cluster.create(
        INFERENCE_SERVICE,
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "r1", "annotations": {"serving.kserve.io/deploymentMode": "Standard"}},
            "spec": {"predictor": {"minReplicas": replicas, "labels": {TRAFFIC: "on"}, "model": model}},
        },
    )


class Controller:
    """Has a ready pod for every canary and for the service, as KServe's controller would; remembers what it saw."""

    def __init__(self, ground: Ground) -> None:
        self.ground, self.seen, self._stop = ground, [], threading.Event()  # type: ignore[var-annotated]
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        made: set[tuple[str, str]] = set()
        while not self._stop.is_set():
            live = self.ground.cluster.get(INFERENCE_SERVICE, "r1")
            if live is not None:
                self.seen.append(live["spec"])
                for part in [live["spec"], *(live["spec"].get("canary") or [])]:
                    predictor = part["predictor"]
                    pod = (predictor.get("annotations", {}).get(VERSION, ""), predictor["labels"][TRAFFIC])
                    if pod not in made:
                        self.ground.make_pod(
                            f"r1-{len(made)}",
                            {"serving.kserve.io/inferenceservice": "r1", TRAFFIC: pod[1]},
                            {VERSION: pod[0]},
                        )
                        made.add(pod)
            time.sleep(0.1)

    def __enter__(self) -> "Controller":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def labels(self) -> list[str]:
        """Traffic labels that canaries had, in the order in which they were seen."""
        found = [spec["canary"][0]["predictor"]["labels"][TRAFFIC] for spec in self.seen if spec.get("canary")]
        return [label for index, label in enumerate(found) if index == 0 or found[index - 1] != label]


def live(ground: Ground) -> dict[str, Any]:
    found = ground.cluster.get(INFERENCE_SERVICE, "r1")
    assert found is not None
    return found


def watching(requests: int, errors: int = 0, reasoned: int | None = None, urls: list[str] | None = None) -> Any:
    def watch(url: str) -> Observed:
        if urls is not None:
            urls.append(url)
        answers = requests - errors
        return Observed(requests=requests, errors=errors, reasoned=answers if reasoned is None else reasoned)

    return watch


def test_dark_asks_the_canary_in_the_dark_and_promotes_it_in_the_light(ground: Ground) -> None:
    service(ground)
    urls: list[str] = []
    with Controller(ground) as controller:
        verdict = roll_out(ground.cluster, "r1", NEW, watching(12, urls=urls), rules=RULES, poll=0.3)
    assert verdict.decision == "promoted" and (verdict.uri, verdict.previous) == (NEW, OLD)
    assert urls == [f"http://r1-v-new-predictor.{ground.cluster.namespace}.svc"]
    assert controller.labels() == ["off", "on"]
    spec = live(ground)["spec"]
    assert spec["predictor"]["name"] == "v-new" and spec["predictor"]["model"]["storageUri"] == NEW
    assert not spec.get("canary") and spec["predictor"]["labels"][TRAFFIC] == "on"
    assert live(ground)["metadata"]["annotations"][PREVIOUS] == OLD


@pytest.mark.parametrize(
    ("watch", "decision", "words"),
    [
        (watching(9), "held", "silence promotes nothing"),
        (watching(0), "held", "silence promotes nothing"),
        (watching(20, errors=2), "rolled back", "requests failed"),
        (watching(20, reasoned=5), "rolled back", "answers reasoned"),
    ],
)
def test_silence_holds_and_harm_rolls_back(ground: Ground, watch: Any, decision: str, words: str) -> None:
    service(ground)
    with Controller(ground):
        verdict = roll_out(ground.cluster, "r1", NEW, watch, rules=RULES, poll=0.3)
    assert verdict.decision == decision and words in verdict.reason and verdict.uri == OLD
    spec = live(ground)["spec"]
    assert spec["predictor"]["model"]["storageUri"] == OLD and not spec.get("canary")


def test_replicas_tells_the_true_share_and_takes_part(ground: Ground) -> None:
    service(ground, replicas=4)
    said: list[str] = []
    with Controller(ground) as controller:
        verdict = roll_out(ground.cluster, "r1", NEW, watching(50), "replicas", RULES, 1, said.append, poll=0.3)
    assert verdict.decision == "promoted" and controller.labels() == ["on"]
    assert "1 of 4 replicas, about 25% of the requests" in said[0]
    with pytest.raises(UserError, match="use fewer"):
        roll_out(ground.cluster, "r1", OLD, watching(50), "replicas", RULES, 5, said.append)


def test_replace_goes_back_where_the_new_model_is_silent(ground: Ground) -> None:
    service(ground)
    with Controller(ground):
        held = roll_out(ground.cluster, "r1", NEW, watching(1), "replace", RULES, poll=0.3)
        assert held.decision == "held" and live(ground)["spec"]["predictor"]["model"]["storageUri"] == OLD
        good = roll_out(ground.cluster, "r1", NEW, watching(20), "replace", RULES, poll=0.3)
    assert good.decision == "promoted" and live(ground)["spec"]["predictor"]["model"]["storageUri"] == NEW


def test_a_model_that_never_gets_ready_leaves_the_old_one(ground: Ground) -> None:
    service(ground)
    rules = RolloutRules(min_requests=1, ready_seconds=0.5)
    with pytest.raises(UserError, match=r"r1/v-new was not ready after 0\.5 s"):
        roll_out(ground.cluster, "r1", NEW, watching(1), rules=rules, poll=0.1)
    assert not live(ground)["spec"].get("canary")


def test_rollback_serves_the_previous_one_and_can_go_forth_again(ground: Ground) -> None:
    service(ground)
    with pytest.raises(UserError, match="no previous model is kept"):
        roll_back(ground.cluster, "r1")
    with Controller(ground):
        roll_out(ground.cluster, "r1", NEW, watching(12), rules=RULES, poll=0.3)
        assert roll_back(ground.cluster, "r1") == OLD
        assert live(ground)["spec"]["predictor"]["model"]["storageUri"] == OLD
        assert live(ground)["metadata"]["annotations"][PREVIOUS] == NEW
        assert roll_out(ground.cluster, "r1", NEW, watching(12), rules=RULES, poll=0.3).decision == "promoted"


def test_no_service_and_another_rollout_under_way(ground: Ground) -> None:
    with pytest.raises(UserError, match=r"install the chart with serving\.model\.uri first"):
        roll_out(ground.cluster, "r1", NEW, watching(1))
    service(ground)
    model = live(ground)["spec"]["predictor"]["model"] | {"name": "kserve-container"}
    other = [{"trafficPercent": 0, "predictor": {"name": "other", "model": model}}]
    ground.cluster.patch(INFERENCE_SERVICE, "r1", {"spec": {"canary": other}})
    with pytest.raises(UserError, match="a rollout of other is under way"):
        roll_out(ground.cluster, "r1", NEW, watching(1))


def test_names_shares_and_verdicts() -> None:
    assert canary_name("s3://b/models/r1/v-3f9a12c04b7d/") == "v-3f9a12c04b7d"
    assert canary_name("s3://b/models/r1/2026_11") == "m-2026-11"
    assert canary_name("s3://b/models/r1/v-new", stable="v-new") == "v-new-b"
    assert "no share of the traffic" in share_text(1, 1, "dark")
    assert "1 of 2 replicas, about 50%" in share_text(1, 1, "replicas")
    assert judge(Observed(requests=200, reasoned=200), RolloutRules())[0] == "promoted"


def test_counts_come_from_the_gateways_own_metrics() -> None:
    from prometheus_client import generate_latest

    from clinical_r1.reasoning import Outcome
    from serving.metrics import GatewayMetrics

    metrics = GatewayMetrics("r1/v-new")
    page = generate_latest(metrics.registry).decode()
    assert observed_in(page) == Observed()
    metrics.answers.labels("r1/v-new", "en", Outcome.OK.value).inc(7)
    metrics.answers.labels("r1/v-new", "zh", Outcome.ABORTED.value).inc(2)
    metrics.answers.labels("r1/v-new", "zh", Outcome.NO_THINK.value).inc()
    assert observed_in(generate_latest(metrics.registry).decode()) == Observed(requests=10, errors=2, reasoned=7)
    metrics.answers.labels("r1/v-new", "en", Outcome.CUT_THOUGHT.value).inc()  # closed at its budget: it did think
    assert observed_in(generate_latest(metrics.registry).decode()) == Observed(requests=11, errors=2, reasoned=8)
