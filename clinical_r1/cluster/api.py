"""One namespace of a cluster, through the official Python client; its refusals as sentences.

Inside a pod the service account speaks, elsewhere the kubeconfig (KUBECONFIG, --context).
"""

import base64
import copy
import json
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from kubernetes import client, config, utils

from clinical_r1.errors import UserError

Object = dict[str, Any]
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Kind(NamedTuple):
    """A custom resource."""

    group: str
    version: str
    plural: str
    needs: str
    """What installs it."""


TRAINJOB = Kind("trainer.kubeflow.org", "v1alpha1", "trainjobs", "Kubeflow Trainer 2.3 or newer")
TRAINING_RUNTIME = Kind("trainer.kubeflow.org", "v1alpha1", "trainingruntimes", "Kubeflow Trainer 2.3 or newer")
INFERENCE_SERVICE = Kind("serving.kserve.io", "v1beta1", "inferenceservices", "KServe 0.20 or newer")


class Refused(UserError):  # noqa: N818
    """The API server said no; `status` is its HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """Custom objects, pods and their logs in one namespace."""

    def __init__(self, namespace: str = "", context: str = "", kubeconfig: str = "") -> None:
        """Connect. `namespace` defaults to the pod's, else to the context's. Raises UserError without any access."""
        default = "default"
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and not context and not kubeconfig:
                config.load_incluster_config()
                http, default = client.ApiClient(), (_ACCOUNT / "namespace").read_text().strip()
            else:
                http = config.new_client_from_config(kubeconfig or None, context or None)
                _, active = config.list_kube_config_contexts(kubeconfig or None)
                default = active["context"].get("namespace", default)
        except (config.ConfigException, OSError) as error:
            raise UserError(f"kubernetes: no access ({error}): set KUBECONFIG, or run inside the cluster") from None
        self.namespace = namespace or default
        self.context, self.kubeconfig = context, kubeconfig
        self.http = http
        self.core, self.apps, self.batch = client.CoreV1Api(http), client.AppsV1Api(http), client.BatchV1Api(http)
        self._custom = client.CustomObjectsApi(http)

    def at(self, namespace: str) -> "Cluster":
        """The same access to another namespace."""
        other = copy.copy(self)
        other.namespace = namespace
        return other

    def get(self, kind: Kind, name: str) -> Object | None:
        """None where there is no such object."""
        try:
            return self._call(kind, f"get {kind.plural}/{name}", self._custom.get_namespaced_custom_object, name=name)
        except Refused as error:
            if error.status == 404 and not self.lacks(kind):
                return None
            raise

    def create(self, kind: Kind, body: Object) -> Object:
        """Raises Refused (409 where it is there already)."""
        name = body["metadata"]["name"]
        return self._call(kind, f"create {kind.plural}/{name}", self._custom.create_namespaced_custom_object, body=body)

    def patch(self, kind: Kind, name: str, body: Object) -> Object:
        """JSON merge patch: null removes, lists are replaced."""
        call = self._custom.patch_namespaced_custom_object
        # The client sends a dict as a merge patch (and would send a list as a JSON patch).
        return self._call(kind, f"patch {kind.plural}/{name}", call, name=name, body=body)

    def delete(self, kind: Kind, name: str) -> None:
        """Its pods go with it; one that is not there is no error."""
        call, body = self._custom.delete_namespaced_custom_object, {"propagationPolicy": "Background"}
        try:
            self._call(kind, f"delete {kind.plural}/{name}", call, name=name, body=body)
        except Refused as error:
            if error.status != 404:
                raise

    def lacks(self, kind: Kind) -> bool:
        """Whether the cluster does not know this resource at all."""
        try:
            ask, what = self._custom.get_api_resources, f"list the resources of {kind.group}"
            found = self._guard(what, kind, lambda: ask(kind.group, kind.version, _request_timeout=20))
        except Refused as error:
            if error.status == 404:
                return True
            raise
        return kind.plural not in {resource.name for resource in found.resources}

    def spec_fields(self, kind: Kind) -> set[str]:
        """Fields of `spec` in the published schemas of the kind's API version: they tell how new an add-on is.

        Raises Refused; 404 and 503 while the API server has not published a new type's schema yet.
        """
        path = f"/openapi/v3/apis/{kind.group}/{kind.version}"
        options = {"auth_settings": ["BearerToken"], "response_type": "object", "_request_timeout": 30}
        what = f"read the schema of {kind.plural}"
        document = self._guard(what, kind, lambda: self.http.call_api(path, "GET", **options)[0])
        schemas = document.get("components", {}).get("schemas", {}).values()
        specs = [schema.get("properties", {}).get("spec", {}) for schema in schemas]
        return {field for spec in specs for field in spec.get("properties", {})}

    def pods(self, selector: str) -> list[Any]:
        """Pods by label selector, oldest first."""
        found = self._core("list pods", self.core.list_namespaced_pod, label_selector=selector)
        return sorted(found.items, key=lambda pod: pod.metadata.creation_timestamp)

    def log_lines(self, pod: str, container: str, since: int | None = None) -> Iterator[str]:
        """Follow the log of a container until it ends; `since` seconds ago, else from its beginning."""
        options = {"follow": True, "since_seconds": since, "_preload_content": False}
        read = self.core.read_namespaced_pod_log
        stream = self._core(f"read the log of pod {pod}", read, name=pod, container=container, **options)
        try:
            for line in stream:
                yield line.decode("utf-8", "replace").rstrip("\n")
        finally:
            stream.close()
            stream.release_conn()

    def config_map(self, name: str) -> dict[str, str] | None:
        """Its data; None where there is none."""
        found = self.found(self.core.read_namespaced_config_map, f"get configmap {name}", name=name)
        return None if found is None else dict(found.data or {})

    def secret(self, name: str) -> dict[str, str]:
        """The values of a Secret; raises Refused."""
        found = self._core(f"get secret {name}", self.core.read_namespaced_secret, name=name)
        return {key: base64.b64decode(value).decode() for key, value in (found.data or {}).items()}

    def found(self, call: Any, what: str, **arguments: Any) -> Any:
        """What a call of the client for this namespace gives; None where the object is not there. Raises Refused."""
        try:
            return self._core(what, call, **arguments)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def every(self, kind: Kind) -> list[Object]:
        """All objects of a kind in all namespaces; none where the cluster does not know the kind. Raises Refused."""
        try:
            call = self._custom.list_cluster_custom_object
            place = {"group": kind.group, "version": kind.version, "plural": kind.plural}
            return list(self._guard(f"list {kind.plural}", kind, lambda: call(**place, _request_timeout=30))["items"])
        except Refused as error:
            if error.status == 404:
                return []
            raise

    def create_claim(self, body: Object) -> None:
        """Make a PersistentVolumeClaim; raises Refused (409 where it is there already)."""
        name = body["metadata"]["name"]
        self._core(f"create claim {name}", self.core.create_namespaced_persistent_volume_claim, body=body)

    def namespace_labels(self) -> dict[str, str]:
        """Labels of the namespace itself; raises Refused."""
        found = self._guard(f"get namespace {self.namespace}", None, lambda: self.core.read_namespace(self.namespace))
        return dict(found.metadata.labels or {})

    def nodes(self) -> list[Any]:
        """All nodes; raises Refused for an account that may not see them."""
        return list(self._guard("list nodes", None, self.core.list_node).items)

    def allowed(self, verb: str, group: str, resource: str, user: str = "") -> bool:
        """Whether `user` (empty, or where we may not ask about others: we ourselves) may do this in the namespace.

        A subresource is written `pods/log`. Raises Refused.
        """
        name, _, sub = resource.partition("/")
        asked = client.V1ResourceAttributes(
            namespace=self.namespace, verb=verb, group=group, resource=name, subresource=sub or None
        )
        api = client.AuthorizationV1Api(self.http)
        if user:
            spec = client.V1SubjectAccessReviewSpec(user=user, resource_attributes=asked)
            call, body = api.create_subject_access_review, client.V1SubjectAccessReview(spec=spec)
        else:
            own = client.V1SelfSubjectAccessReviewSpec(resource_attributes=asked)
            call, body = api.create_self_subject_access_review, client.V1SelfSubjectAccessReview(spec=own)
        try:
            review = self._guard("review access", None, lambda: call(body))
        except Refused as error:
            if user and error.status == 403:
                return self.allowed(verb, group, resource)
            raise
        return bool(review.status.allowed)

    def quotas(self) -> list[Any]:
        """ResourceQuotas of the namespace."""
        return list(self._core("list resourcequotas", self.core.list_namespaced_resource_quota).items)

    def _core(self, what: str, call: Any, **arguments: Any) -> Any:
        return self._guard(what, None, lambda: call(namespace=self.namespace, **arguments))

    def _call(self, kind: Kind, what: str, call: Any, **arguments: Any) -> Any:
        place = {"group": kind.group, "version": kind.version, "plural": kind.plural, "namespace": self.namespace}
        return self._guard(what, kind, lambda: call(**place, _request_timeout=30, **arguments))

    def _guard(self, what: str, kind: Kind | None, call: Any) -> Any:
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except client.ApiException as error:
            raise Refused(self._sentence(what, error, kind), int(error.status or 0)) from None
        except HTTPError as error:
            raise UserError(f"kubernetes {self.http.configuration.host}: no answer ({type(error).__name__})") from None

    def _sentence(self, what: str, error: Any, kind: Kind | None) -> str:
        place = f"kubernetes, namespace {self.namespace}: {what}"
        if error.status == 403:
            return f"{place}: not allowed: give this account the chart's role (kubeflow.rbac.create=true)"
        if error.status == 401:
            return f"{place}: the credentials are not valid: renew the token or the kubeconfig"
        if error.status == 404 and kind is not None:
            return f"{place}: not found: is {kind.needs} installed?"
        return f"{place}: {message_of(error)}"


def quantity(text: str) -> Decimal:
    """A quantity such as 500m or 2Gi as a number."""
    return Decimal(utils.parse_quantity(text))


def message_of(error: Any) -> str:
    """The API server's own words in an ApiException."""
    try:
        return str(json.loads(error.body)["message"])[:500]
    except (TypeError, ValueError, KeyError):
        return f"HTTP {error.status} {error.reason}"
