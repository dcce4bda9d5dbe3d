"""What the pods of this platform need and whether it is there: claims, Secrets, images, a scraper."""

from collections.abc import Iterator
from typing import Any

from clinical_r1.cluster.api import Cluster, Kind, Object
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.finding import Finding
from clinical_r1.cluster.nodes import PATIENT_KEY

PROMETHEUS = Kind("monitoring.coreos.com", "v1", "prometheuses", "the Prometheus operator")
POD_MONITOR = Kind("monitoring.coreos.com", "v1", "podmonitors", "the Prometheus operator")
OURS = ("app.kubernetes.io/part-of=clinical-r1", "pipeline/runid")
"""Pods of the chart, and steps of pipelines: not every step carries our label."""
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def objects(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """What every step of a pipeline mounts."""
    yield _claim(cluster, facts.run_parameters["claim"])
    yield from _secrets(cluster, facts)
    yield from _scraped(cluster, facts)


def _claim(cluster: Cluster, name: str) -> Finding:
    core = cluster.core
    claim = cluster.found(core.read_namespaced_persistent_volume_claim, f"get claim {name}", name=name)
    if claim is None:
        fix = "helm upgrade (the chart makes it), or make it and set kubeflow.state.existingClaim"
        return Finding("claim", "fail", f"no PersistentVolumeClaim {name}: every step would wait for ever", fix)
    if claim.status.phase == "Bound":
        size = (claim.status.capacity or {}).get("storage", "?")
        return Finding("claim", "ok", f"{name}, {size}, {'/'.join(claim.spec.access_modes)}")
    events = cluster.found(
        core.list_namespaced_event, "list events", field_selector=f"involvedObject.name={name},type=Warning"
    )
    why = f": {events.items[-1].message[:200]}" if events and events.items else ""
    # A class that binds with its first pod leaves the claim pending until then.
    state, detail = ("fail", why) if why else ("warn", ": its storage class may wait for the first pod")
    fix = "set kubeflow.state.storageClass to one that offers kubeflow.state.accessMode (kubectl get storageclass)"
    return Finding("claim", state, f"{name} is {claim.status.phase}{detail}", fix)  # type: ignore[arg-type]


def _secrets(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    given = facts.run_parameters
    wanted = {
        given["store_secret"]: {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
        given["patient_secret"]: {PATIENT_KEY},
    }
    bad = []
    for name, keys in wanted.items():
        secret = cluster.found(cluster.core.read_namespaced_secret, f"get secret {name}", name=name)
        lacking = sorted(keys - set((secret.data or {}) if secret else {}))
        if lacking:
            bad.append(f"Secret {name} {'lacks ' + ', '.join(lacking) if secret else 'is not there'}")
    authority = given["ca_config_map"]
    if cluster.config_map(authority) is None:
        bad.append(f"ConfigMap {authority} is not there")
    if bad:
        fix = (
            "helm upgrade makes those of the chart; yours are named in objectStore.existingSecrets, .caBundle, kubeflow"
        )
        yield Finding("what steps mount", "fail", "; ".join(bad) + ": a step's pod would not start", fix)
    else:
        yield Finding("what steps mount", "ok", f"{', '.join([*wanted, authority])}")
    if cluster.found(cluster.core.read_namespaced_secret, "get secret", name=given["endpoint_secret"]) is None:
        yield Finding(
            "endpoints' keys",
            "warn",
            f"no Secret {given['endpoint_secret']}: endpoints that ask for a key will refuse",
            f"kubectl -n {cluster.namespace} create secret generic {given['endpoint_secret']} "
            "--from-literal SYNTHESIZER_API_KEY=... --from-literal JUDGE_API_KEY=... (none is needed for the demo)",
        )


def _scraped(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """Whether a Prometheus takes our monitors; kube-prometheus-stack takes only those with its release's label."""
    servers = cluster.every(PROMETHEUS)
    monitors = [
        found
        for found in cluster.every(POD_MONITOR)
        if found["metadata"]["namespace"] == cluster.namespace
        and found["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == facts.release
    ]
    if not servers or not monitors:
        return
    labels = monitors[0]["metadata"]["labels"]
    if any(_selects(server["spec"].get("podMonitorSelector"), labels) for server in servers):
        yield Finding("scraping", "ok", f"a Prometheus takes the PodMonitors of release {facts.release}")
        return
    asked = servers[0]["spec"].get("podMonitorSelector") or {}
    wanted = asked.get("matchLabels") or asked or "a podMonitorSelector, which is not set: it takes none"
    fix = (
        "set monitoring.podMonitor.labels and monitoring.rules.labels to that, such as {release: kube-prometheus-stack}"
    )
    yield Finding("scraping", "warn", f"no Prometheus takes our PodMonitors; it wants {wanted}", fix)


def _selects(selector: Object | None, labels: dict[str, str]) -> bool:
    """Kubernetes' rule for label selectors: a missing one selects nothing, an empty one everything."""
    if selector is None:
        return False
    tests = {
        "In": lambda value, values: value in values,
        "NotIn": lambda value, values: value not in values,
        "Exists": lambda value, _: value is not None,
        "DoesNotExist": lambda value, _: value is None,
    }
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
        tests[rule["operator"]](labels.get(rule["key"]), rule.get("values") or [])
        for rule in selector.get("matchExpressions") or []
    )


def waiting(cluster: Cluster) -> Iterator[Finding]:
    """Pods that do not start, and what they wait for: an image, a volume, a place."""
    pods = {pod.metadata.name: pod for selector in OURS for pod in cluster.pods(selector)}
    images: dict[str, str] = {}
    stuck: list[str] = []
    for name, pod in pods.items():
        statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
        held = [status.state.waiting for status in statuses if status.state and status.state.waiting]
        for status in statuses:
            reason = status.state.waiting.reason if status.state and status.state.waiting else ""
            if reason in _NO_IMAGE:
                images[status.image] = reason
        pulls = any(wait.reason in _NO_IMAGE for wait in held)
        if pod.status.phase == "Pending" and not pulls and (why := _last_warning(cluster, name)):
            stuck.append(f"{name}: {why}")
    if images:
        text = ", ".join(f"{image} ({reason})" for image, reason in sorted(images.items()))
        fix = "push the image to global.imageRegistry, or set global.imagePullSecrets (`make images-list` prints all)"
        yield Finding("image pull", "fail", text, fix)
    else:
        yield Finding("image pull", "ok", "no pod of this platform waits for an image")
    if stuck:
        fix = "make what is missing (the pod then starts by itself), or free the place that it asks for"
        yield Finding("pods that wait", "fail", "; ".join(stuck[:5]), fix)


def _last_warning(cluster: Cluster, pod: str) -> str:
    selector = f"involvedObject.name={pod},type=Warning"
    events: Any = cluster.found(cluster.core.list_namespaced_event, "list events", field_selector=selector)
    found = sorted(events.items, key=lambda event: str(event.last_timestamp or event.event_time)) if events else []
    return str(found[-1].message)[:200] if found else ""
