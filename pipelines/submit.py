"""Runs on a Kubeflow Pipelines endpoint: the parameters of a run, start, list.

What is sent is what the dashboard's form would hold: preset, parameters, overrides, and where the steps run. The
pipeline is compiled from the code at hand; its first step resolves the configuration as `clinical-r1 run` does.
"""

import inspect
import io
import json
import warnings
from collections.abc import Callable, Collection
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_origin

import docstring_parser
import yaml
from pydantic import BaseModel

from clinical_r1.cluster.nodes import ENDPOINT_KEYS
from clinical_r1.errors import UserError, near_miss
from clinical_r1.runs import resolve
from clinical_r1.runs.config import CONFIG_FOLDER
from clinical_r1.runs.form import WHOLE, assembled, check_placed, default_preset, model_of, overrides_of, settle
from clinical_r1.settings import Document, read_value
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

        if self._multi_user() and not self.namespace:
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
        return f"{self.url} answers ({'multi-user' if self._multi_user() else 'single-user'})"

    def _multi_user(self) -> bool:
        """Asks for the endpoint's health; UserError where it is not well."""
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
            trust = "its certificate is not trusted: give --ca-bundle with its authority"
            no_tls = "no TLS there: write http://, or give the port that speaks https"
            hint = trust if "CERTIFICATE_VERIFY_FAILED" in str(error) else no_tls
            raise UserError(f"{self.url}: {hint}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            name = type(error).__name__
            raise UserError(f"{self.url}: no answer ({name}): give --endpoint, or port-forward ml-pipeline") from None
        except ValueError:
            health = None
        if not isinstance(health, dict):
            raise UserError(f"{self.url}: the answer is not that of the Pipelines API: give --endpoint with its path")
        return bool(health.get("multi_user"))

    def asked(self, call: Callable[[], Any]) -> Any:
        """Run a call of the client; what goes wrong becomes one sentence."""
        from kfp_server_api.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            return call()
        except ApiException as error:
            words = str(error.reason)
            with suppress(TypeError, ValueError, KeyError, AttributeError):  # the server's own sentence
                body = json.loads(error.body)
                words = str(body.get("message") or body["error"])[:300]
            raise self._refused(error.status, words) from None
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


def parameters(pipeline: str) -> dict[str, inspect.Parameter]:
    """The run parameters of a pipeline by name."""
    return dict(inspect.signature(cluster_form(pipeline_of(pipeline)).pipeline_func).parameters)


def print_parameters(pipeline: str, say: Callable[[str], None]) -> None:
    """One line a run parameter, as the form shows it."""
    told = docstring_parser.parse(cluster_form(pipeline_of(pipeline)).pipeline_func.__doc__ or "").params
    words = {one.arg_name: one.description or "" for one in told}
    for name, one in parameters(pipeline).items():
        say(f"{name} ({one.default!r}): {words.get(name, '')}")


def submission(pipeline: str, config: str, options: list[str], params: list[str]) -> tuple[dict[str, Any], BaseModel]:
    """Parameters of a run as the form would hold them, and what they come to; a mistake is found here (UserError).

    A shipped configuration goes as the preset and `--set` as overrides; a file of the user's goes whole as overrides.
    """
    given = _converted(pipeline, params)
    if pipeline == "audit":
        store = {} if "store" in given or config or options else {"store": "s3://BUCKET/audit"}
        audit = resolve.settle_audit(config, store | given, options)
        resolve.check_keys(audit, ENDPOINT_KEYS)
        return given | {"overrides": _plain(resolve.audit_document(config, given, options))}, audit
    kind = pipeline_of(pipeline)
    pipeline = subject(pipeline, given)
    if config and "preset" in given:
        raise UserError(f"--param preset={given['preset']}: --config {config} is given too: keep one of them")
    preset, option = config or given.pop("preset", "") or default_preset(pipeline), "--config" if config else "preset"
    run = settle(pipeline, preset, given, options, option)
    resolve.check_state_dir(given.get("state_dir", ""))
    resolve.check_teacher(run)
    resolve.check_keys(run, ENDPOINT_KEYS)
    if (CONFIG_FOLDER / f"{preset}.yaml").is_file():
        document = Document().join(overrides_of(given.get("overrides", {})), "overrides").set(*options)
    else:
        document, preset = assembled(pipeline, preset, given, options, option), WHOLE
    told = {"preset": preset, "state_dir": resolve.state_dir_of(pipeline, run)}
    told |= {"experiment": pipeline} if kind == EXPERIMENTS else {}
    return told | given | {"overrides": _plain(document)}, run


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


def _plain(document: Document) -> dict[str, Any]:
    """What YAML read (dates too) as JSON has it."""
    return dict(json.loads(json.dumps(document.data, default=str)))


def local_parameters(pipeline: str, params: list[str]) -> tuple[str, dict[str, Any]]:
    """What is run, and the form's fields for a run here, where nothing has to be placed. Raises UserError."""
    elsewhere = {*Placement._fields, "preset", "state_dir", "nodes", "deploy"}
    given = _converted(pipeline, params, elsewhere)
    return subject(pipeline, given), given


def _converted(pipeline: str, params: list[str], elsewhere: Collection[str] = ()) -> dict[str, Any]:
    """`--param NAME=TEXT` by name as the declared types; the server refuses others. Raises UserError."""
    known, given = parameters(pipeline), {}
    for param in params:
        name, separator, text = param.partition("=")
        if not separator:
            raise UserError(f"--param {param}: write it as NAME=VALUE, such as --param accelerators=8")
        if name not in known:
            hint = " ".join(filter(None, (near_miss(name, known), "--help-params lists them")))
            raise UserError(f"--param {name}: {pipeline} has no such parameter: {hint}")
        given[name] = _value(name, text, known[name].annotation)
    if cluster := [name for name in given if name in elsewhere]:
        raise UserError(f"--param {cluster[0]}: says how a cluster runs it: leave it out, or use `submit`")
    check_placed(given)
    return given


def _value(name: str, text: str, kind: Any) -> Any:
    if kind is str:
        return text
    try:
        value = yaml.safe_load(text) if kind is bool else read_value(text)  # `off` is a word, but where a bool is asked
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"--param {name}={text}: the value is not valid JSON or YAML: close its brackets") from None
    kind = get_origin(kind) or kind
    if kind is float and isinstance(value, str):
        with suppress(ValueError):  # YAML 1.1 takes 5e-6 for a word
            value = float(value)
    good = isinstance(value, (int, float) if kind is float else kind)
    if not good or (isinstance(value, bool) and kind is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false", dict: "a mapping", list: "a list"}
        raise UserError(f"--param {name}={text}: wants {words[kind]}: write one")
    return float(value) if kind is float else value


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
    client, namespace = place.client(), place.namespace or None
    found = place.asked(lambda: client.list_runs(page_size=limit, sort_by="created_at desc", namespace=namespace))
    return [
        f"{run.created_at:%Y-%m-%d %H:%M}  {run.state:<10}  {run.display_name}  {run.run_id}"
        for run in found.runs or []
    ]
