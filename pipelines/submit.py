"""Runs on a Kubeflow Pipelines endpoint: the parameters of a run, start, list.

What is sent is what the dashboard's form would hold: preset, parameters, overrides, and where the steps run. The
pipeline is compiled from the code at hand; its first step resolves the configuration as `clinical-r1 run` does.
"""

import inspect
import io
import json
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import docstring_parser
from pydantic import BaseModel

from clinical_r1.cluster.nodes import ENDPOINT_KEYS
from clinical_r1.errors import UserError, near_miss
from clinical_r1.runs.audit import audit_document, settle_audit
from clinical_r1.runs.config import CONFIG_FOLDER
from clinical_r1.runs.form import WHOLE, assembled, default_preset, model_of, overrides_of, settle
from clinical_r1.runs.placed import check_placed
from clinical_r1.runs.resolve import check_keys, check_state_dir, check_teacher, state_dir_of
from clinical_r1.settings import Document
from pipelines.form import converted
from pipelines.placement import Placement
from pipelines.registry import EXPERIMENTS, cluster_form, pipeline_of


@dataclass
class Endpoint:
    """Where Kubeflow Pipelines answers, and who asks."""

    url: str
    token_file: Path | None = None
    namespace: str = ""
    ca_bundle: Path | None = None

    def client(self) -> Any:
        """A kfp client. Raises UserError for a missing token file, and for an endpoint that does not answer.

        The health is asked here first: the client asks five times, five seconds apart, and logs a traceback each time.
        """
        import kfp

        if self._health().get("multi_user") and not self.namespace:
            raise UserError(f"{self.url}: multi-user Kubeflow: give --namespace with your profile")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.asked(
                lambda: kfp.Client(
                    host=self.url,
                    existing_token=self._token(),
                    namespace=self.namespace or "kubeflow",
                    ssl_ca_cert=str(self.ca_bundle) if self.ca_bundle else None,
                )
            )

    def version(self) -> str:
        """A sentence about the endpoint."""
        mode = "multi-user" if self._health().get("multi_user") else "single-user"
        return f"{self.url} answers ({mode})"

    def _health(self) -> dict[str, Any]:
        import urllib3

        token = self._token()
        ca = str(self.ca_bundle) if self.ca_bundle else None
        http = urllib3.PoolManager(timeout=20, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca)
        url = f"{self.url.rstrip('/')}/apis/v2beta1/healthz"
        try:
            response = http.request("GET", url, headers={"authorization": f"Bearer {token}"} if token else {})
            if response.status >= 300:
                # A redirection goes to a login page.
                raise self._refused(401 if response.status < 400 else response.status, str(response.reason))
            health = response.json()
        except urllib3.exceptions.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" not in str(error):
                raise UserError(
                    f"{self.url}: no TLS there: write http://, or give the port that speaks https"
                ) from None
            raise UserError(
                f"{self.url}: its certificate is not trusted: give --ca-bundle with its authority"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            name = type(error).__name__
            raise UserError(f"{self.url}: no answer ({name}): give --endpoint, or port-forward ml-pipeline") from None
        except ValueError:
            health = None
        if not isinstance(health, dict):
            raise UserError(f"{self.url}: the answer is not that of the Pipelines API: give --endpoint with its path")
        return health

    def asked(self, call: Callable[[], Any]) -> Any:
        """Run a call of the client; what goes wrong becomes one sentence."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            raise self._refused(error.status, _words_of(error)) from None
        except (HTTPError, TimeoutError, ConnectionError) as error:
            raise UserError(f"{self.url}: no answer ({type(error).__name__}): try again") from None

    def _refused(self, status: int, words: str) -> UserError:
        if status in (401, 403):
            hint = "give --token-file with a valid token and --namespace with your profile"
            return UserError(f"{self.url}: not allowed (HTTP {status}): {hint}")
        if status == 404:
            return UserError(f"{self.url}: not found (HTTP 404): is this the Pipelines API, with its path?")
        return UserError(f"{self.url}: HTTP {status}: {words}")

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        try:
            return self.token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UserError(f"--token-file {self.token_file}: {error.strerror}") from None


class Knob(NamedTuple):
    """A run parameter."""

    kind: Any
    default: Any
    words: str


def parameters(pipeline: str) -> dict[str, Knob]:
    """The run parameters of a pipeline as its form shows them."""
    function = cluster_form(pipeline_of(pipeline)).pipeline_func
    words = {one.arg_name: one.description or "" for one in docstring_parser.parse(function.__doc__ or "").params}
    signature = inspect.signature(function).parameters
    return {name: Knob(one.annotation, one.default, words.get(name, "")) for name, one in signature.items()}


def print_parameters(pipeline: str, say: Callable[[str], None]) -> None:
    """One line a run parameter."""
    for name, knob in parameters(pipeline).items():
        say(f"{name} ({knob.default!r}): {knob.words}")


class Submission(NamedTuple):
    """A run whose parameters are in order."""

    parameters: dict[str, Any]
    """What the form would hold."""
    config: BaseModel
    """What they come to."""


def submission(pipeline: str, config: str, options: list[str], params: list[str]) -> Submission:
    """Parameters of a run; a mistake in them is found here. Raises UserError.

    A shipped configuration goes as the preset and `--set` as overrides; a file of the user's goes whole as overrides.
    """
    given = _converted(pipeline, params)
    check_placed(given)
    if pipeline == "audit":
        store = {} if "store" in given or config or options else {"store": "s3://BUCKET/audit"}
        settled = settle_audit(config, store | given, options)
        check_keys(settled, ENDPOINT_KEYS)
        document = audit_document(config, given, options)
        return Submission(given | {"overrides": _plain(document.data)}, settled)
    kind = pipeline_of(pipeline)
    pipeline = subject(pipeline, given)
    if config and "preset" in given:
        raise UserError(f"--param preset={given['preset']}: --config {config} is given too: keep one of them")
    preset, option = config or given.pop("preset", "") or default_preset(pipeline), "--config" if config else "preset"
    run = settle(pipeline, preset, given, options, option)
    check_state_dir(given.get("state_dir", ""))
    check_teacher(run)
    check_keys(run, ENDPOINT_KEYS)
    if (CONFIG_FOLDER / f"{preset}.yaml").is_file():
        document = Document().join(overrides_of(given.get("overrides", {})), "overrides")
        for option in options:
            document.set(option)
    else:
        document, preset = assembled(pipeline, preset, given, options, option), WHOLE
    told = {"preset": preset, "state_dir": state_dir_of(pipeline, run)}
    told |= {"experiment": pipeline} if kind == EXPERIMENTS else {}
    return Submission(told | given | {"overrides": _plain(document.data)}, run)


def subject(pipeline: str, given: dict[str, Any]) -> str:
    """What is configured: `train`, or an experiment, named in the pipeline's place or by the form's field (which is
    taken out of `given`). Raises UserError where the two differ, and for an unknown one."""
    if pipeline_of(pipeline) != EXPERIMENTS:
        return pipeline
    named = "" if pipeline == EXPERIMENTS else pipeline
    asked = given.pop("experiment", "") or named or parameters(EXPERIMENTS)["experiment"].default
    if named and asked != named:
        raise UserError(f"--param experiment={asked}: {named} is named already: keep one of them")
    model_of(asked)
    return str(asked)


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """What YAML read (dates too) as JSON has it."""
    return dict(json.loads(json.dumps(data, default=str)))


def _converted(pipeline: str, params: list[str]) -> dict[str, Any]:
    known, given = parameters(pipeline), {}
    for param in params:
        name, separator, text = param.partition("=")
        if not separator:
            raise UserError(f"--param {param}: write it as NAME=VALUE, such as --param accelerators=8")
        if name not in known:
            hint = " ".join(filter(None, (near_miss(name, known), "--help-params lists them")))
            raise UserError(f"--param {name}: {pipeline} has no such parameter: {hint}")
        given[name] = converted(name, text, known[name].kind)
    return given


def local_parameters(pipeline: str, params: list[str]) -> tuple[str, dict[str, Any]]:
    """What is run, and the form's fields for a run here, where nothing has to be placed. Raises UserError."""
    given = _converted(pipeline, params)
    elsewhere = [name for name in given if name in {*Placement._fields, "preset", "state_dir", "nodes", "deploy"}]
    if elsewhere:
        raise UserError(f"--param {elsewhere[0]}: says how a cluster runs it: leave it out, or use `submit`")
    check_placed(given)
    return subject(pipeline, given), given


def names_of_the_installation(pipeline: str, namespace: str, context: str) -> tuple[dict[str, str], str]:
    """Image, claim, Secrets and authority as the chart in that namespace names them, and a note where there is none."""
    from clinical_r1.cluster.api import Cluster
    from clinical_r1.cluster.facts import Facts

    try:
        facts = Facts.read(Cluster(namespace, context))
    except UserError as error:
        return {}, f"the names of Secrets and image are the defaults of a release clinical-r1 ({error})"
    known = parameters(pipeline)
    return {name: value for name, value in facts.run_parameters.items() if name in known}, ""


def start_run(place: Endpoint, pipeline: str, arguments: dict[str, Any], experiment: str) -> tuple[str, str]:
    """Start a run; returns its id and its page in the dashboard."""
    client = place.client()
    with redirect_stdout(io.StringIO()):  # the client prints addresses of its own
        run = place.asked(
            lambda: client.create_run_from_pipeline_func(
                cluster_form(pipeline_of(pipeline)),
                arguments=arguments,
                experiment_name=experiment,
                namespace=place.namespace or None,
            )
        )
    return run.run_id, f"{place.url.rstrip('/')}/#/runs/details/{run.run_id}"


def list_runs(place: Endpoint, limit: int) -> list[str]:
    """The newest runs, one line each."""
    client = place.client()
    found = place.asked(
        lambda: client.list_runs(page_size=limit, sort_by="created_at desc", namespace=place.namespace or None)
    )
    return [
        f"{run.created_at:%Y-%m-%d %H:%M}  {run.state:<10}  {run.display_name}  {run.run_id}"
        for run in found.runs or []
    ]


def _words_of(error: Any) -> str:
    """The server's own sentence in an ApiException."""
    try:
        body = json.loads(error.body)
        return str(body.get("message") or body["error"])[:300]
    except (TypeError, ValueError, KeyError, AttributeError):
        return str(error.reason)
