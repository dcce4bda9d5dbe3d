"""Puts compiled pipelines into Kubeflow's dashboard; one that is there already with the same content is left alone.

python register.py FOLDER, with KFP_ENDPOINT and, on a multi-user Kubeflow, KFP_NAMESPACE. A version's name ends with
the hash of its content, so that running this again adds nothing and a changed pipeline becomes a new version.
`plan.json` in the folder says the tags, when `audit` runs by itself, and whether a Kubeflow that does not answer is an
error.
"""

import difflib
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api
import urllib3
import yaml

PATIENCE_SECONDS = float(os.environ.get("PATIENCE_SECONDS", "240"))
AUDIT, EXPERIMENT = "audit", "clinical-r1 audit"
KINDS: dict[str, Any] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "LIST": list,
    "STRUCT": dict,
}
"""Kubeflow's types of parameters, and what JSON has for them."""


def main(folder: Path) -> int:
    """The exit code."""
    endpoint, namespace = os.environ["KFP_ENDPOINT"], os.environ.get("KFP_NAMESPACE", "")
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    client = connected(endpoint)
    if client is None:
        sentence = (
            f"Kubeflow Pipelines at {endpoint} did not answer within {PATIENCE_SECONDS:g} s: nothing registered; "
        )
        print(f"{sentence}set kubeflow.register.endpoint and run `helm upgrade` again", file=sys.stderr)
        return 2 if plan["must"] else 0
    check_parameters(folder / f"{AUDIT}.yaml", plan["audit"]["parameters"])
    latest = {path.stem: registered(client, path, namespace, plan["tags"]) for path in sorted(folder.glob("*.yaml"))}
    schedule_audit(client, latest[AUDIT], namespace, plan["audit"])
    return 0


def check_parameters(path: Path, given: dict[str, Any]) -> None:
    """Refuse parameters of the audit's runs that Kubeflow would refuse each time; raises ValueError."""
    known = next(yaml.safe_load_all(path.read_text(encoding="utf-8")))["root"]["inputDefinitions"]["parameters"]
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1) or sorted(known)
            raise ValueError(f"kubeflow.audit.parameters.{name}: audit has no such parameter: {', '.join(close)}?")
        kind = known[name]["parameterType"]
        if not isinstance(value, KINDS[kind]) or isinstance(value, bool) != (kind == "BOOLEAN"):
            raise ValueError(f"kubeflow.audit.parameters.{name}: {value!r} is no {kind}: write one")


def connected(endpoint: str) -> Any:
    """A client, once the API answers; None where it does not."""
    http = urllib3.PoolManager(timeout=10, retries=False)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            if http.request("GET", f"{endpoint.rstrip('/')}/apis/v2beta1/healthz").status < 500:
                return kfp.Client(host=endpoint)
        except urllib3.exceptions.HTTPError:
            pass
        if time.monotonic() > deadline:
            return None
        time.sleep(3)


def registered(client: Any, path: Path, namespace: str, tags: dict[str, str]) -> tuple[str, str]:
    """(pipeline id, version id) of this content, both made where they are missing."""
    text = path.read_text(encoding="utf-8")
    name, version = f"clinical-r1-{path.stem}", f"{path.stem}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    description = next(yaml.safe_load_all(text))["pipelineInfo"].get("description", "")
    pipeline = pipeline_id_by_name(client, name, namespace)
    if pipeline is None:  # not by uploading: that would make a version of its own name beside ours
        body = kfp_server_api.V2beta1Pipeline(
            display_name=name, name=name, description=description, namespace=namespace or None, tags=tags
        )
        pipeline = client._pipelines_api.pipeline_service_create_pipeline(body).pipeline_id
    known = versions(client, pipeline)
    if version in known:
        print(f"{name}: version {version} is there", flush=True)
        return pipeline, known[version]
    made = client._upload_api.upload_pipeline_version(
        str(path), name=version, pipelineid=pipeline, description=description, tags=json.dumps(tags)
    )
    print(f"{name}: new version {version}", flush=True)
    return pipeline, made.pipeline_version_id


def pipeline_id_by_name(client: Any, name: str, namespace: str) -> str | None:
    """The id of the pipeline of that name in that namespace, or None."""
    where = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]})
    found = client.list_pipelines(filter=where, namespace=namespace or None).pipelines or []
    return found[0].pipeline_id if found else None


def versions(client: Any, pipeline_id: str) -> dict[str, str]:
    """Name -> id of all versions of a pipeline."""
    found: dict[str, str] = {}
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100)
        found |= {entry.display_name: entry.pipeline_version_id for entry in page.pipeline_versions or []}
        token = page.next_page_token or ""
        if not token:
            return found


def schedule_audit(client: Any, audit: tuple[str, str], namespace: str, wanted: dict[str, Any]) -> None:
    """One recurring run of the newest version as `wanted` says, none where it says no time; older ones of ours go."""
    pipeline, version = audit
    experiment = client.create_experiment(EXPERIMENT, namespace=namespace or None).experiment_id
    key = hashlib.sha256(json.dumps([version, wanted], sort_keys=True).encode()).hexdigest()[:12]
    name = f"clinical-r1-audit-{key}" if wanted["schedule"] else ""
    found = client.list_recurring_runs(experiment_id=experiment, page_size=100).recurring_runs or []
    for run in found:
        if run.display_name.startswith("clinical-r1-audit-") and run.display_name != name:
            client.delete_recurring_run(run.recurring_run_id)
            print(f"{run.display_name}: replaced, deleted", flush=True)
    if name and name not in {run.display_name for run in found}:
        client.create_recurring_run(
            experiment,
            name,
            description="Sampled answers of the served model, judged out of band.",
            cron_expression=wanted["schedule"],
            no_catchup=True,
            params=wanted["parameters"],
            pipeline_id=pipeline,
            version_id=version,
            service_account=wanted["account"],
        )
        print(f"{name}: audit at {wanted['schedule']}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ValueError as problem:
        print(f"error: {problem}", file=sys.stderr)
    except kfp_server_api.ApiException as problem:
        said = f"{problem.status}: {problem.reason} {str(problem.body or '')[:500]}"
        print(f"error: Kubeflow Pipelines at {os.environ['KFP_ENDPOINT']} says {said}", file=sys.stderr)
    sys.exit(2)
