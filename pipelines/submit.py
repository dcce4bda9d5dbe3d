"""Runs on a Kubeflow Pipelines endpoint: the arguments of a configuration, start, list.

A run's arguments are the sections of a run configuration as JSON (those that `clinical-r1 run` computes) and the run
parameters of the cluster (image, accelerators, claim, ...). The pipeline is compiled from the code at hand, so that the
code version in the arguments is that of the pipeline; the image must hold the same code.
"""

import hashlib
import inspect
import io
import json
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.records.config import RecordsConfig
from clinical_r1.runs.arms import ARGUMENTS, Local
from clinical_r1.runs.config import RunConfig, as_argument, load_as, load_config
from clinical_r1.runs.experiments import CONFIGS, AuditVerifierConfig, CrossLanguageConfig
from clinical_r1.settings import Document
from clinical_r1.version import code_version
from pipelines.registry import cluster_form, load_pipeline

STATE_MOUNT = "/state"
"""Where the steps of a cluster see the claim with journals, checkpoints and data."""


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


def run_arguments(pipeline: str, config_name: str, overrides: list[str], params: list[str]) -> dict[str, Any]:
    """Arguments of a run: configuration sections, code version, and `NAME=VALUE` run parameters.

    Without a `config_name` the shipped configuration of that pipeline is read.
    """
    known = parameters(pipeline)
    build = _experiment_arguments if pipeline in CONFIGS else _train_arguments
    arguments = build(pipeline, config_name, overrides, known)
    _check_endpoints(arguments)
    document = Document()
    for param in params:
        document.set(param)
    given = document.data
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UserError(f"--param {unknown[0]}: {pipeline} has no such parameter: --help-params lists them")
    arguments |= given
    missing = [name for name, default in known.items() if default is inspect.Parameter.empty and name not in arguments]
    if missing:
        raise UserError(f"{pipeline}: run parameter '{missing[0]}' has no value: give --param {missing[0]}=VALUE")
    return arguments


def _train_arguments(pipeline: str, config_name: str, overrides: list[str], known: dict[str, Any]) -> dict[str, Any]:
    config = load_config(config_name or "demo", overrides)
    arguments: dict[str, Any] = {
        name: as_argument(getattr(config, name))
        for name in known
        if name in RunConfig.model_fields and name != "shards"
    }
    if "shards" in known:
        arguments["shards"] = [f"{index}/{config.shards}" for index in range(config.shards)]
    sources = _sources_hash(config.records)
    derived = {
        "code_version": code_version(),
        "sources_sha256": sources,
        "state_dir": _state_dir(pipeline, config, sources),
        "datasets_dir": f"{STATE_MOUNT}/datasets",
    }
    return arguments | {name: value for name, value in derived.items() if name in known}


def _experiment_arguments(pipeline: str, config_name: str, overrides: list[str], _: dict[str, Any]) -> dict[str, Any]:
    """Each experiment has a state folder of its own here: nothing keeps two runs on a cluster from being at once."""
    config = load_as(CONFIGS[pipeline], config_name or f"experiments/{pipeline}", overrides)
    sources, twins, labelled = _sources_hash(config.records), "", ""
    if isinstance(config, CrossLanguageConfig):
        twins = _sources_hash(config.experiment.records)
    if isinstance(config, AuditVerifierConfig):
        if not config.experiment.labelled:
            raise UserError(
                f"experiment.labelled: empty: give JSONL of graded answers on the claim ({STATE_MOUNT}/...)"
            )
        labelled = _files_hash([Path(config.experiment.labelled)])
    state = Path(_state_dir(pipeline, config, sources))
    return ARGUMENTS[pipeline](config, Local(state, state, sources, code_version(), twins, labelled))


def _state_dir(pipeline: str, config: RunConfig, sources: str) -> str:
    name = hashlib.sha256(f"{as_argument(config.records)} {sources}".encode()).hexdigest()[:12]
    return f"{STATE_MOUNT}/{pipeline}-{name}"


def parameters(pipeline: str) -> dict[str, Any]:
    """Run parameters of a pipeline with their defaults (inspect.Parameter.empty where there is none)."""
    function = load_pipeline(pipeline).pipeline_func
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def print_parameters(pipeline: str, say: Callable[[str], None]) -> None:
    """One line a run parameter."""
    for name, default in parameters(pipeline).items():
        if default is inspect.Parameter.empty:
            say(f"{name}: required{' (a section of the configuration)' if name in RunConfig.model_fields else ''}")
        else:
            say(f"{name}: {default!r}")


def start_run(place: Endpoint, pipeline: str, arguments: dict[str, Any], experiment: str) -> tuple[str, str]:
    """Start a run; returns its id and its page in the dashboard."""
    client = place.client()
    with redirect_stdout(io.StringIO()):  # the client prints addresses of its own
        run = place.asked(
            lambda: client.create_run_from_pipeline_func(
                cluster_form(pipeline),
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


def _sources_hash(records: RecordsConfig) -> str:
    return _files_hash([Path(source.path) for source in records.sources])


def _files_hash(paths: list[Path]) -> str:
    """Of the files where they lie on this machine too; else of the moment, so that no old result is reused."""
    if not all(path.is_file() for path in paths):
        return f"unseen-{time.time_ns()}"
    return hashlib.sha256("".join(file_sha256(path) for path in paths).encode()).hexdigest()


def _check_endpoints(arguments: dict[str, Any]) -> None:
    if "${CLINICAL_R1_SIMULATOR" in json.dumps(arguments):
        raise UserError(
            "submit: this configuration talks to the simulated endpoint, which only `clinical-r1 run` starts: "
            "give --config with your endpoints"
        )
