"""What is wrong with a cluster, and how to mend each thing: `clinical-r1 doctor`.

Every check is one question to the cluster with one answer; a check that cannot be made says so and why. The facts that
are checked (store, images, names) stand in the chart's ConfigMap (facts.py); what belongs to Kubeflow's server and not
to this namespace is looked at in doctor_kubeflow.py.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from clinical_r1.cluster import doctor_kubeflow
from clinical_r1.cluster.api import (
    INFERENCE_SERVICE,
    TRAINING_RUNTIME,
    TRAINJOB,
    Cluster,
    Kind,
    Object,
    Refused,
    quantity,
)
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.finding import Finding
from clinical_r1.cluster.inference_service import drawn_otherwise, engine_line
from clinical_r1.cluster.nodes import PATIENT_KEY
from clinical_r1.errors import UserError
from clinical_r1.objectstore.settings import StoreSettings
from clinical_r1.objectstore.store import open_store

RIGHTS: tuple[tuple[str, str, str], ...] = (
    ("trainer.kubeflow.org", "trainjobs", "create get list watch patch delete"),
    ("trainer.kubeflow.org", "trainingruntimes", "get"),
    ("serving.kserve.io", "inferenceservices", "create get list watch patch"),
    ("", "pods", "get list watch"),
    ("", "pods/log", "get"),
    ("", "events", "list"),
)
"""What pipeline steps need in their namespace (group, resource, verbs)."""
PROMETHEUS = Kind("monitoring.coreos.com", "v1", "prometheuses", "the Prometheus operator")
POD_MONITOR = Kind("monitoring.coreos.com", "v1", "podmonitors", "the Prometheus operator")
OURS = ("app.kubernetes.io/part-of=clinical-r1", "pipeline/runid")
"""Pods of the chart, and steps of pipelines: not every step carries our label."""
_NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def examine(cluster: Cluster, accelerator: str = "nvidia.com/gpu", probe_store: bool = True) -> Iterator[Finding]:
    """Yield findings one by one; never raises for what is wrong with the cluster."""
    checks: list[Callable[[], Iterator[Finding]]] = [lambda: _resource_types(cluster)]
    try:
        facts = Facts.read(cluster)
    except UserError as error:
        fix = f"helm install r1 helm/clinical-r1 --namespace {cluster.namespace}, or check KUBECONFIG and --namespace"
        yield Finding("chart", "fail", str(error), fix)
    else:
        yield Finding("chart", "ok", f"release {facts.release} in namespace {cluster.namespace}")
        checks += [
            lambda: _rights(cluster, facts),
            lambda: _runtime(cluster, facts),
            lambda: _objects(cluster, facts),
            *(lambda check=check: check(cluster, facts) for check in doctor_kubeflow.CHECKS),
        ]
        if probe_store:
            checks += [lambda: _bucket(cluster, facts), lambda: _sampling(cluster, facts)]
    checks += [
        lambda: _accelerators(cluster, accelerator),
        lambda: _quota(cluster),
        lambda: _waiting(cluster),
    ]
    for check in checks:
        try:
            yield from check()
        except UserError as error:
            yield Finding("access", "warn", str(error), "run doctor with an account that may look, such as an admin's")


def _resource_types(cluster: Cluster) -> Iterator[Finding]:
    for kind, field in ((TRAINJOB, "runtimePatches"), (TRAINING_RUNTIME, ""), (INFERENCE_SERVICE, "canary")):
        name = f"resource type {kind.plural}"
        if cluster.lacks(kind):
            severity: Literal["warn", "fail"] = "fail" if kind is INFERENCE_SERVICE else "warn"
            yield Finding(name, severity, f"{kind.group}/{kind.version} is not there", f"install {kind.needs}")
            continue
        try:
            old = bool(field) and field not in cluster.spec_fields(kind)
        except Refused as error:
            if error.status not in (404, 503):
                raise
            yield Finding(name, "warn", "is new: its schema is not published yet", "run doctor again in a minute")
            continue
        if old:
            yield Finding(name, "warn", f"is too old: it has no spec.{field}", f"install {kind.needs}")
        else:
            yield Finding(name, "ok", f"{kind.group}/{kind.version}")


def _rights(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    user = f"system:serviceaccount:{cluster.namespace}:{facts.account}"
    missing = [
        f"{verb} {resource}"
        for group, resource, verbs in RIGHTS
        for verb in verbs.split()
        if not cluster.allowed(verb, group, resource, user)
    ]
    if missing:
        fix = "helm upgrade with kubeflow.rbac.create=true and kubeflow.serviceAccountName set to the steps' account"
        yield Finding("rights", "fail", f"{facts.account} may not: {', '.join(missing)}", fix)
    else:
        yield Finding("rights", "ok", f"{facts.account} may run TrainJobs and roll out models")


def _runtime(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    name = facts.training_runtime
    if cluster.lacks(TRAINING_RUNTIME):
        return
    if cluster.get(TRAINING_RUNTIME, name) is None:
        fix = "helm upgrade with training.runtime.enabled=true"
        yield Finding("training runtime", "warn", f"no TrainingRuntime {name}", fix)
    else:
        yield Finding("training runtime", "ok", name)


def _accelerators(cluster: Cluster, accelerator: str) -> Iterator[Finding]:
    nodes = cluster.nodes()
    counts = {node.metadata.name: int((node.status.allocatable or {}).get(accelerator, 0)) for node in nodes}
    total = sum(counts.values())
    if total:
        best = max(counts.values())
        text = f"{total} {accelerator} on {sum(map(bool, counts.values()))} node(s), {best} at most"
        yield Finding("accelerators", "ok", text)
    else:
        fix = "install the vendor's device plugin or GPU operator, or name another resource with --accelerator"
        yield Finding("accelerators", "warn", f"no node offers {accelerator} ({len(nodes)} nodes)", fix)


def _quota(cluster: Cluster) -> Iterator[Finding]:
    used_up = []
    quotas = cluster.quotas()
    for quota in quotas:
        hard, used = quota.status.hard or {}, quota.status.used or {}
        for name, limit in hard.items():
            if quantity(used.get(name, "0")) >= quantity(limit):
                used_up.append(f"{quota.metadata.name}: {name} {used.get(name, '0')} of {limit}")
    if used_up:
        yield Finding("quota", "fail", "; ".join(used_up), "raise the ResourceQuota, or end what holds it")
    else:
        yield Finding("quota", "ok", f"{len(quotas)} ResourceQuota(s), none used up" if quotas else "no ResourceQuota")


def _bucket(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """Write, read and delete a small object with the steps' own credentials."""
    secret = facts.run_parameters["store_secret"]
    try:
        keys = cluster.secret(secret)
    except Refused as error:
        if error.status == 403:
            fix = "run as an admin"
            yield Finding("bucket write", "warn", f"not tried: this account may not read Secret {secret}", fix)
            return
        fix = f"make Secret {secret} (objectStore.existingSecrets.pipelines)"
        yield Finding("bucket write", "fail", str(error), fix)
        return
    store, key = open_store(f"s3://{facts.bucket}/pipelines", _settings(facts, keys)), "doctor-probe"
    try:
        store.put(key, b"written by clinical-r1 doctor")
        store.get(key)
        store.delete(key)
    except UserError as error:
        fix = "correct endpoint, Secret or policy; from outside of the cluster the endpoint may be unreachable"
        yield Finding("bucket write", "fail", str(error), fix)
    else:
        yield Finding("bucket write", "ok", f"{store.uri} takes and gives back an object")


def _settings(facts: Facts, keys: dict[str, str]) -> StoreSettings:
    return StoreSettings(
        endpoint=facts.endpoint,
        access_key=keys.get("AWS_ACCESS_KEY_ID", ""),
        secret_key=keys.get("AWS_SECRET_ACCESS_KEY", ""),
        region=facts.region or "us-east-1",
        patience=3,
    )


def _sampling(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """Is the served model's sampling that of its evaluation?"""
    live = cluster.get(INFERENCE_SERVICE, facts.serving_name) if facts.serving_name else None
    if live is None:
        return
    uri = live["spec"]["predictor"]["model"].get("storageUri", "")
    try:
        keys = cluster.secret(facts.run_parameters["store_secret"])
        found = drawn_otherwise(open_store(uri, _settings(facts, keys)), engine_line(cluster, facts.serving_name))
    except UserError as error:
        yield Finding("sampling", "warn", f"{uri} was not looked at: {error}", "see the check of the bucket")
        return
    for one in found:
        yield Finding("sampling", "warn", f"{uri}: {one}", "else what is served is not what was evaluated")
    if not found:
        yield Finding("sampling", "ok", f"{uri} is drawn as it was evaluated")


def _objects(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
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


def _waiting(cluster: Cluster) -> Iterator[Finding]:
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
