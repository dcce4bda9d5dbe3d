"""What is wrong with a cluster, and how to mend each thing: `clinical-r1 doctor`.

Every check is one question to the cluster with one answer; a check that cannot be made says so and why. The facts that
are checked (store, images, names) stand in the chart's ConfigMap (facts.py); what belongs to Kubeflow's server and not
to this namespace is looked at in doctor_kubeflow.py.
"""

from collections.abc import Callable, Iterator
from typing import Literal

from clinical_r1.cluster import doctor_kubeflow, doctor_pods
from clinical_r1.cluster.api import INFERENCE_SERVICE, TRAINING_RUNTIME, TRAINJOB, Cluster, Refused, quantity
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.finding import Finding
from clinical_r1.cluster.inference_service import drawn_otherwise, engine_line
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
            lambda: doctor_pods.objects(cluster, facts),
            *(lambda check=check: check(cluster, facts) for check in doctor_kubeflow.CHECKS),
        ]
        if probe_store:
            checks += [lambda: _bucket(cluster, facts), lambda: _sampling(cluster, facts)]
    checks += [
        lambda: _accelerators(cluster, accelerator),
        lambda: _quota(cluster),
        lambda: doctor_pods.waiting(cluster),
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
        yield Finding(
            "rights",
            "fail",
            f"{facts.account} may not: {', '.join(missing)}",
            "helm upgrade with kubeflow.rbac.create=true and kubeflow.serviceAccountName set to the steps' account",
        )
    else:
        yield Finding("rights", "ok", f"{facts.account} may run TrainJobs and roll out models")


def _runtime(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    name = facts.training_runtime
    if cluster.lacks(TRAINING_RUNTIME):
        return
    if cluster.get(TRAINING_RUNTIME, name) is None:
        yield Finding(
            "training runtime", "warn", f"no TrainingRuntime {name}", "helm upgrade with training.runtime.enabled=true"
        )
    else:
        yield Finding("training runtime", "ok", name)


def _accelerators(cluster: Cluster, accelerator: str) -> Iterator[Finding]:
    nodes = cluster.nodes()
    counts = {node.metadata.name: int((node.status.allocatable or {}).get(accelerator, 0)) for node in nodes}
    total = sum(counts.values())
    if total:
        best = max(counts.values())
        yield Finding(
            "accelerators", "ok", f"{total} {accelerator} on {sum(map(bool, counts.values()))} node(s), {best} at most"
        )
    else:
        yield Finding(
            "accelerators",
            "warn",
            f"no node offers {accelerator} ({len(nodes)} nodes)",
            "install the vendor's device plugin or GPU operator, or name another resource with --accelerator",
        )


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
            yield Finding(
                "bucket write", "warn", f"not tried: this account may not read Secret {secret}", "run as an admin"
            )
            return
        yield Finding(
            "bucket write", "fail", str(error), f"make Secret {secret} (objectStore.existingSecrets.pipelines)"
        )
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
