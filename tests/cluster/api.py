"""A small face of the Kubernetes API for tests: apply, read, wait, and see what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from tests.cluster.daemons import poll

Document = dict[str, Any]


class RefusedError(Exception):
    """The API server said no. `status` is its HTTP status (403 by RBAC or pod security), the text its reason."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """Speaks for one user; `as_account` gives the same face for a service account."""

    def __init__(self, kubeconfig: Path, impersonate: str = "") -> None:
        self.kubeconfig = kubeconfig
        self.http = config.new_client_from_config(str(kubeconfig))
        if impersonate:
            self.http.set_default_header("Impersonate-User", impersonate)
        self._dynamic: DynamicClient | None = None

    def as_account(self, namespace: str, name: str) -> "Api":
        """The API as a service account sees it, with its rights only."""
        return Api(self.kubeconfig, f"system:serviceaccount:{namespace}:{name}")

    def ready(self) -> bool:
        """Whether the API server says that it is."""
        return self.raw("/readyz") == "ok"

    def raw(self, path: str) -> str:
        """GET a path of the API server; the answer's text."""
        options = {"auth_settings": ["BearerToken"], "_preload_content": False, "_request_timeout": 10}
        return self.http.call_api(path, "GET", **options)[0].data.decode()

    def _resource(self, document: Document) -> Any:
        if self._dynamic is None:
            self._dynamic = DynamicClient(self.http)
        try:
            return self._dynamic.resources.get(api_version=document["apiVersion"], kind=document["kind"])
        except ResourceNotFoundError:
            self._dynamic = DynamicClient(self.http)  # a CRD that came later
            return self._dynamic.resources.get(api_version=document["apiVersion"], kind=document["kind"])

    def _call(self, call: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return call(_request_timeout=60, **arguments)
        except ApiException as problem:
            raise RefusedError(int(problem.status or 0), _reason(problem)) from None

    def apply(self, *documents: Document, namespace: str = "") -> None:
        """Server-side apply, in the order given; raises RefusedError."""
        for document in documents:
            where = document["metadata"].get("namespace") or namespace or None
            self._call(
                self._resource(document).server_side_apply,
                body=document,
                name=document["metadata"]["name"],
                namespace=where,
                field_manager="tests",
                force_conflicts=True,
            )

    def dry_run(self, document: Document) -> bool:
        """Create without keeping it: admission and validation run. True, or RefusedError."""
        resource = self._resource(document)
        where = document["metadata"].get("namespace")
        self._call(resource.create, body=document, namespace=where, dry_run="All")
        return True

    def find(self, kind: Document, name: str, namespace: str = "") -> Document | None:
        """One object as a dictionary, or None. `kind` names apiVersion and kind."""
        try:
            return self._call(self._resource(kind).get, name=name, namespace=namespace or None).to_dict()
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    def list(self, kind: Document, namespace: str = "", labels: str = "") -> list[Document]:
        """All objects of a kind, in a namespace or everywhere."""
        found = self._call(self._resource(kind).get, namespace=namespace or None, label_selector=labels or None)
        return found.to_dict()["items"]

    def patch(self, kind: Document, name: str, change: Document, namespace: str = "") -> None:
        """A merge patch."""
        self._call(
            self._resource(kind).patch,
            name=name,
            namespace=namespace or None,
            body=change,
            content_type="application/merge-patch+json",
        )

    def delete(self, kind: Document, name: str, namespace: str = "", grace: int | None = None) -> None:
        """Delete one object; no error where there is none. `grace` 0 kills a pod at once."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            body["gracePeriodSeconds"] = grace  # type: ignore[assignment]
        try:
            self._call(self._resource(kind).delete, name=name, namespace=namespace or None, body=body)
        except RefusedError as refused:
            if refused.status != 404:
                raise

    def wait(self, what: str, check: Callable[[], object], seconds: float) -> None:
        """Until `check` returns something true; `what` is named when the time runs out."""
        poll(what, check, seconds, pause=0.5)

    def logs(self, namespace: str, pod: str, container: str, lines: int = 20) -> str:
        """The end of a container's log."""
        try:
            core = client.CoreV1Api(self.http)
            return core.read_namespaced_pod_log(pod, namespace, container=container, tail_lines=lines)
        except ApiException as problem:
            return f"no log: {_reason(problem)}"


def _reason(problem: ApiException) -> str:
    try:
        return str(json.loads(problem.body)["message"])
    except (KeyError, TypeError, ValueError):
        return str(problem.reason)
