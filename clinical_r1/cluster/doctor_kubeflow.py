"""The settings of Kubeflow's own server that a run needs: each one that is missing, with the file that makes it.

They belong to the namespace of Kubeflow Pipelines, not to ours; docs/install.md, step 6, goes through them.
"""

from collections.abc import Callable, Iterator
from typing import Any

from clinical_r1.cluster.api import Cluster
from clinical_r1.cluster.facts import Facts
from clinical_r1.cluster.finding import Finding

LAUNCHER = "kfp-launcher"
SERVER, UI, ARGO = "ml-pipeline", "ml-pipeline-ui", "workflow-controller-configmap"


def launcher(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """Where steps put their artifacts."""
    fix = "helm upgrade with kubeflow.launcher.create=true, or put defaultPipelineRoot and providers.minio into it"
    data = cluster.config_map(LAUNCHER)
    if data is None:
        yield Finding("launcher config", "fail", f"no ConfigMap {LAUNCHER}: artifacts go to KFP's own store", fix)
        return
    root, provider = data.get("defaultPipelineRoot", ""), _yaml(data.get("providers", ""))
    default = (provider.get("minio") or provider.get("s3") or {}).get("default") or {}
    endpoint, expected = _host(str(default.get("endpoint", ""))), _host(facts.endpoint)
    secret = ((default.get("credentials") or {}).get("secretRef") or {}).get("secretName", "")
    if not root.startswith((f"minio://{facts.bucket}/", f"s3://{facts.bucket}/")):
        yield Finding("launcher config", "fail", f"defaultPipelineRoot '{root}' is not in bucket '{facts.bucket}'", fix)
    elif not default.get("credentials"):
        yield Finding("launcher config", "fail", "the provider has an endpoint without credentials", fix)
    elif endpoint != expected:
        yield Finding("launcher config", "fail", f"endpoint {endpoint} is not the chart's {expected}", fix)
    elif secret and cluster.found(cluster.core.read_namespaced_secret, f"get secret {secret}", name=secret) is None:
        yield Finding("launcher config", "fail", f"it names Secret {secret}, which is not there", fix)
    else:
        yield Finding("launcher config", "ok", f"artifacts go to {root} at {endpoint}")


def registered(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """Whether the pipelines are in the dashboard."""
    name = "pipelines in the dashboard"
    if facts.registered == "none":
        upgrade = f"helm upgrade {facts.release} helm/clinical-r1 --namespace {cluster.namespace} --reuse-values"
        fix = f"{upgrade} --set kubeflow.register.mode=job"
        yield Finding(name, "warn", "nobody registered them", fix)
        return
    if facts.registered != "job":
        yield Finding(name, "ok", "registered as resources")
        return
    jobs = cluster.found(
        cluster.batch.list_namespaced_job, "list jobs", label_selector=f"app.kubernetes.io/instance={facts.release}"
    )
    found = [job for job in jobs.items if job.metadata.name.endswith("-pipelines-register")]
    if not found:
        yield Finding(name, "warn", "the registration job is gone", "helm upgrade runs it again")
    elif found[0].status.succeeded:
        yield Finding(name, "ok", f"job {found[0].metadata.name} ended well (`kubectl logs` tells what it did)")
    else:
        fix = f"kubectl -n {cluster.namespace} logs job/{found[0].metadata.name}"
        yield Finding(name, "warn", f"job {found[0].metadata.name} has not ended well", fix)


def non_root(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """In a restricted namespace step pods must say that they are not root; our pipelines do, other people's may not."""
    if cluster.namespace_labels().get("pod-security.kubernetes.io/enforce") != "restricted":
        return
    server = cluster.at(facts.kubeflow_namespace)
    if _variable(server, SERVER, "DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT").lower() == "true":
        yield Finding("steps as non-root", "ok", "Kubeflow's server says so for every pipeline")
    else:
        yield Finding(
            "steps as non-root",
            "warn",
            f"namespace {cluster.namespace} is restricted, the server has no DEFAULT_SECURITY_CONTEXT_RUN_AS_NON_ROOT: "
            "our pipelines ask for it themselves, a server before 2.17 and other pipelines do not",
            "manifests/kubeflow/non-root.yaml (docs/install.md, step 6)",
        )


def authority(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """A certificate of our own authority must be known to the launcher in each step, and to the dashboard."""
    ours = facts.run_parameters["ca_config_map"]
    if not facts.endpoint.startswith("https://") or not cluster.config_map(ours):
        return
    server = cluster.at(facts.kubeflow_namespace)
    given = {name: _variable(server, SERVER, name) for name in ("CABUNDLE_CONFIGMAP_NAME", "CABUNDLE_KEY_NAME")}
    fix = "manifests/kubeflow/server.sh (docs/install.md, step 6)"
    if _variable(server, SERVER, "CABUNDLE_SECRET_NAME"):
        text = "the server names a Secret, CABUNDLE_SECRET_NAME: not compared"
        yield Finding("authority in steps", "warn", text, fix)
    elif given["CABUNDLE_CONFIGMAP_NAME"] != ours or (given["CABUNDLE_KEY_NAME"] or "ca.crt") != facts.ca_key:
        told = given["CABUNDLE_CONFIGMAP_NAME"] or "none"
        text = f"the server gives steps the authorities of ConfigMap {told}, the store's are in {ours} ({facts.ca_key})"
        yield Finding("authority in steps", "fail", f"{text}: every run fails in its first pod (x509)", fix)
    else:
        yield Finding("authority in steps", "ok", f"{ours}, {facts.ca_key}")
    if not _variable(server, UI, "NODE_EXTRA_CA_CERTS"):
        yield Finding("authority in the dashboard", "warn", "reports and pictures cannot be shown (x509)", fix)


def log_archive(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """Argo archives the logs of each pod before it ends: what it cannot write fails the step."""
    server = cluster.at(facts.kubeflow_namespace)
    data = server.config_map(ARGO)
    if data is None:
        fix = "is Argo elsewhere?"
        yield Finding("log archive", "warn", f"no ConfigMap {ARGO} in namespace {server.namespace}", fix)
        return
    archive = _yaml(data.get("artifactRepository", ""))
    s3 = archive.get("s3") or {}
    if not archive.get("archiveLogs") or not s3:
        yield Finding("log archive", "ok", "Argo archives no logs")
        return
    secret = str((s3.get("accessKeySecret") or {}).get("name", ""))
    keys = _secret(cluster, secret)
    endpoint, ours = _host(str(s3.get("endpoint", ""))), _host(facts.endpoint)
    place = f"{endpoint}, bucket {s3.get('bucket')}, Secret {secret}"
    fix = "manifests/kubeflow/log-archive.yaml (docs/install.md, step 6)"
    if keys is None:
        text = f"Argo writes logs to {place}, which namespace {cluster.namespace} lacks: every step fails at its end"
        yield Finding("log archive", "fail", text, fix)
    elif endpoint != ours and _same_keys(keys, _secret(cluster, facts.run_parameters["store_secret"])):
        text = f"Secret {secret} holds the keys of our store, Argo writes logs with it to {endpoint}: every step fails"
        yield Finding("log archive", "fail", text, "give it back the keys of Kubeflow's own store")
    elif endpoint == ours and not str(s3.get("keyFormat", "")).startswith("pipelines/"):
        text = f"keyFormat '{s3.get('keyFormat')}' is not below pipelines/: the store's policy refuses it"
        yield Finding("log archive", "fail", text, fix)
    elif endpoint == ours and bool(s3.get("insecure")) == facts.endpoint.startswith("https://"):
        yield Finding("log archive", "fail", f"insecure: {s3.get('insecure')} does not fit {facts.endpoint}", fix)
    else:
        yield Finding("log archive", "ok", f"Argo writes logs to {place}")


def dashboard(cluster: Cluster, facts: Facts) -> Iterator[Finding]:
    """The dashboard reads artifacts with the namespace's Secret only where that is its own namespace."""
    if facts.kubeflow_namespace == cluster.namespace:
        return
    server = cluster.at(facts.kubeflow_namespace)
    host, port = _variable(server, UI, "MINIO_HOST"), _variable(server, UI, "MINIO_PORT")
    proxied = _variable(server, UI, "ARTIFACTS_SERVICE_PROXY_ENABLED").lower() == "true"
    if not proxied and _host(facts.endpoint) not in (host, f"{host}:{port}"):
        text = f"the dashboard reads artifacts from {host or 'its own store'}: ours are not shown"
        fix = "manifests/kubeflow/server.sh (docs/install.md, step 6)"
        yield Finding("artifacts in the dashboard", "warn", text, fix)


CHECKS: tuple[Callable[[Cluster, Facts], Iterator[Finding]], ...] = (
    launcher,
    registered,
    non_root,
    authority,
    log_archive,
    dashboard,
)


def _yaml(text: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _host(endpoint: str) -> str:
    return endpoint.partition("://")[2] or endpoint


def _secret(cluster: Cluster, name: str) -> dict[str, str] | None:
    found = cluster.found(cluster.core.read_namespaced_secret, f"get secret {name}", name=name) if name else None
    return None if found is None else dict(found.data or {})


def _same_keys(one: dict[str, str], other: dict[str, str] | None) -> bool:
    return bool(other) and bool(set(one.values()) & set((other or {}).values()))


def _variable(cluster: Cluster, deployment: str, name: str) -> str:
    """A variable of a deployment's first container, through a ConfigMap if need be; empty where it is not set."""
    found = cluster.found(cluster.apps.read_namespaced_deployment, f"get deployment {deployment}", name=deployment)
    for entry in (found.spec.template.spec.containers[0].env or []) if found else []:
        if entry.name != name:
            continue
        if entry.value_from and entry.value_from.config_map_key_ref:
            place = entry.value_from.config_map_key_ref
            return (cluster.config_map(place.name) or {}).get(place.key, "")
        return str(entry.value or "")
    return ""
