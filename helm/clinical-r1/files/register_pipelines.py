"""Puts compiled pipelines into Kubeflow's dashboard; one that is there already with the same content is left alone.

python register.py FOLDER, with KFP_ENDPOINT and, on a multi-user Kubeflow, KFP_NAMESPACE. A version's name ends with
the hash of its content, so that running this again adds nothing and a changed pipeline becomes a new version.
"""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import kfp
import kfp_server_api


def versions(client: Any, pipeline_id: str) -> set[str]:
    """Names of all versions of a pipeline."""
    names: set[str] = set()
    token = ""
    while True:
        page = client.list_pipeline_versions(pipeline_id, page_token=token, page_size=100)
        names |= {version.display_name for version in page.pipeline_versions or []}
        token = page.next_page_token or ""
        if not token:
            return names


def pipeline_id_by_name(client: Any, name: str, namespace: str) -> str | None:
    """The id of the pipeline of that name in that namespace, or None."""
    where = json.dumps({"predicates": [{"operation": "EQUALS", "key": "name", "stringValue": name}]})
    found = client.list_pipelines(filter=where, namespace=namespace or None).pipelines or []
    return found[0].pipeline_id if found else None


def main(folder: Path) -> int:
    """The exit code."""
    endpoint, namespace = os.environ["KFP_ENDPOINT"], os.environ.get("KFP_NAMESPACE", "")
    client = kfp.Client(host=endpoint)
    for path in sorted(folder.glob("*.yaml")):
        name = f"clinical-r1-{path.stem}"
        version = f"{path.stem}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
        known = pipeline_id_by_name(client, name, namespace)
        if known is None:
            made = client.upload_pipeline(str(path), pipeline_name=name, namespace=namespace or None)
            client.upload_pipeline_version(str(path), version, pipeline_id=made.pipeline_id)
            print(f"{name}: new, version {version}", flush=True)
        elif version in versions(client, known):
            print(f"{name}: version {version} is there", flush=True)
        else:
            client.upload_pipeline_version(str(path), version, pipeline_id=known)
            print(f"{name}: new version {version}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except kfp_server_api.ApiException as problem:
        print(
            f"error: Kubeflow Pipelines at {os.environ['KFP_ENDPOINT']} says {problem.status}: {problem.reason}",
            file=sys.stderr,
        )
        sys.exit(2)
