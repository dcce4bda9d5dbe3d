"""`make test-cluster`, second part: what is refused, what breaks, and what comes back by itself."""

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from clinical_r1.errors import UserError
from tests.cluster import traffic
from tests.cluster.api import Document, RefusedError
from tests.cluster.bench import ISVC, NAME, POD, RELEASE, SECRET, STEPS_ACCOUNT, TEAM, Bench, has
from tests.cluster.daemons import poll

CLIENTS = 6
KILLS = 4
THOUGHTLESS_ALERT = "ClinicalR1AnswersWithoutThinking"


def refusals(bench: Bench) -> dict[str, Any]:
    """What accounts, admission and the store's policies must refuse."""
    steps = bench.api.as_account(TEAM, STEPS_ACCOUNT)
    serving = bench.api.as_account(TEAM, f"{RELEASE}-serving")
    plain = {"containers": [{"name": "c", "image": "localhost/pause:1"}]}
    privileged = {"containers": [{"name": "c", "image": "localhost/pause:1", "securityContext": {"privileged": True}}]}
    by_rbac: dict[str, Callable[[], object]] = {
        "a step lists Secrets": lambda: steps.list(SECRET, TEAM),
        "a step reads MinIO's root Secret": lambda: steps.find(SECRET, f"{RELEASE}-minio-root", TEAM),
        "a step deletes the service": lambda: steps.delete(ISVC, NAME, TEAM),
        "a step looks into kube-system": lambda: steps.list(POD, "kube-system"),
        "the served model lists pods": lambda: serving.list(POD, TEAM),
        "the served model lists Secrets": lambda: serving.list(SECRET, TEAM),
    }
    by_admission: dict[str, Callable[[], object]] = {
        "an unrestricted pod": lambda: bench.api.dry_run(_pod("a", plain)),
        "a privileged pod": lambda: bench.api.dry_run(_pod("b", privileged)),
        "a name that KServe cannot use": lambda: bench.api.dry_run(_service("9")),
        "more replicas than the most": lambda: bench.api.dry_run(_service("bad", minReplicas=3, maxReplicas=1)),
    }
    for name, call in (by_rbac | by_admission).items():
        assert _refused(call), f"not refused: {name}"
    reader = bench.store("serving", "models")
    assert list(reader.list_folders())
    forbidden = (reader, bench.store("serving", "records"), bench.store("reports", "models"))
    for store in forbidden:
        with contextlib.suppress(UserError):
            store.put("forbidden.txt", b"x")
            raise AssertionError(f"{store.uri} was written by an account that may not")
    counts = {"refused_by_rbac": len(by_rbac), "refused_by_admission": len(by_admission)}
    return counts | {"refused_by_store": len(forbidden), "networkpolicy": _network_policies(bench)}


def _network_policies(bench: Bench) -> str:
    """The API server has the chart's policies; nothing on this node enforces them."""
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    assert len(bench.api.list(kind, TEAM)) >= 5
    return "rendered, not enforced"


def _pod(name: str, spec: Document) -> Document:
    return POD | {"metadata": {"name": name, "namespace": TEAM}, "spec": spec}


def _service(name: str, **predictor: Any) -> Document:
    model = {"modelFormat": {"name": NAME}, "runtime": f"{RELEASE}-cpu", "storageUri": "s3://b/x"}
    return ISVC | {"metadata": {"name": name, "namespace": TEAM}, "spec": {"predictor": {"model": model} | predictor}}


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except RefusedError as refused:
        assert refused.status != 404, refused
        return True
    return False


def delete_a_pod(bench: Bench) -> dict[str, Any]:
    """A pod is deleted under load: every stream that runs on it ends as it should, and nobody is refused."""
    victim = bench.pods()[0]["metadata"]["name"]
    with traffic.clients(bench.call, CLIENTS) as clients:
        time.sleep(3)
        bench.api.delete(POD, victim, TEAM)
        poll("the pod is gone", lambda: bench.api.find(POD, victim, TEAM) is None, 120, 0.5)
        bench.wait_ready()
        time.sleep(2)
    assert not clients.failed(), f"{len(clients.failed())} of {len(clients.calls)} calls failed: {clients.failed()[:3]}"
    return {"pod_deleted": {"calls": len(clients.calls), "broken": 0}}


def kill_an_engine(bench: Bench) -> dict[str, Any]:
    """SIGKILL for one engine under load."""
    return {"engine_killed": _kill(bench, "kserve-container")}


def kill_a_gateway(bench: Bench) -> dict[str, Any]:
    """SIGKILL for one gateway under load."""
    return {"gateway_killed": _kill(bench, "transformer-container")}


def _kill(bench: Bench, container: str) -> dict[str, Any]:
    """The clients of the killed process are told within 5 s, new calls succeed within 10 s.

    An answer is so short here that a kill may find none on its way: then there is another one.
    """
    for _ in range(KILLS):
        found = _kill_once(bench, container)
        bench.wait_ready()
        if found["streams_hit"]:
            return found
    raise AssertionError(f"no stream was running on the {container} in {KILLS} kills")


def _kill_once(bench: Bench, container: str) -> dict[str, Any]:
    victim = bench.pods()[0]["metadata"]["name"]
    with traffic.clients(bench.call, CLIENTS) as clients:
        time.sleep(3)
        killed = time.monotonic()
        os.kill(process_of(bench, victim, container), signal.SIGKILL)
        time.sleep(20)
    hit = [call for call in clients.failed() if call.began <= killed <= call.ended]
    late = [call for call in clients.failed() if call.began > killed]
    told = max((call.ended - killed for call in hit), default=0.0)
    again = max((call.began - killed for call in late), default=0.0)
    assert told <= 5, f"a client learned of it after {told:.1f} s only"
    assert again <= 10, f"a call that began {again:.1f} s after the kill still failed"
    return {"streams_hit": len(hit), "told_s": round(told, 1), "last_refused_s": round(again, 1)}


def process_of(bench: Bench, pod: str, container: str) -> int:
    """The first process of a container, as this process namespace numbers it."""
    found = bench.api.find(POD, pod, TEAM)
    assert found, pod
    statuses = {c["name"]: c["containerID"] for c in found["status"]["containerStatuses"]}
    wanted = statuses[container].removeprefix("containerd://")
    for line in bench.machine.node.ctr("tasks", "ls").splitlines()[1:]:
        name, process, *_ = line.split()
        if name == wanted:
            return int(process)
    raise AssertionError(f"{pod}/{container} has no process")


def restart_the_store(bench: Bench) -> dict[str, Any]:
    """MinIO is killed while objects are written: the writer goes on by itself, and nothing that it was told is lost."""
    store, pod = bench.store("reports"), f"{RELEASE}-minio-0"
    done: dict[str, bytes] = {}
    ended = [time.monotonic()]
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            key = f"restart/{len(done):05d}.txt"
            data = key.encode() * 1000
            store.put(key, data)
            done[key] = data
            ended.append(time.monotonic())

    def restarts() -> int:
        found = bench.api.find(POD, pod, TEAM) or {}
        return int(found["status"]["containerStatuses"][0]["restartCount"]) if has(found, "Ready") else 0

    before = restarts()
    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    poll("objects are written", lambda: len(done) > 2, 30)
    os.kill(process_of(bench, pod, "minio"), signal.SIGKILL)
    poll("MinIO is ready again", lambda: restarts() > before, 90, 0.5)
    so_far = len(done)
    poll("the writer goes on", lambda: len(done) > so_far + 2, 90)
    stop.set()
    writer.join(60)
    bench.remember("reports", done)
    lost = bench.lost()
    assert not lost, lost[:5]
    longest = max(later - earlier for earlier, later in itertools.pairwise(ended))
    return {"store_restarted": {"written": len(done), "longest_pause_s": round(longest, 1)}}


def stop_thinking(bench: Bench) -> dict[str, Any]:
    """The thoughtless model is forced into production; the alert on answers without thinking fires."""
    assert bench.prometheus, "no Prometheus"
    prometheus = bench.prometheus
    assert THOUGHTLESS_ALERT not in prometheus.firing()
    bench.helm.install(bench.serving("thoughtless", force=True), wait=True)
    bench.wait_ready(bench.uris["thoughtless"])
    with traffic.clients(bench.call, 8) as clients:
        poll("the alert fires", lambda: THOUGHTLESS_ALERT in prometheus.firing(), 120, 1)
    return {"alert_fired": True, "answers_before_alert": len(clients.calls)}
