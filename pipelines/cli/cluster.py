"""`clinical-r1 submit | runs | doctor | rollout`: pipelines and models on a cluster."""

import json
import os
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console
from typer import Argument, Option

from clinical_r1.errors import UserError

EndpointOption = Annotated[str, Option(envvar="CLINICAL_R1_KFP_ENDPOINT", help="URL of the Kubeflow Pipelines API.")]
TokenOption = Annotated[
    Path | None, Option(envvar="CLINICAL_R1_KFP_TOKEN_FILE", help="File with a bearer token (multi-user Kubeflow).")
]
NamespaceOption = Annotated[
    str, Option(envvar="CLINICAL_R1_NAMESPACE", help="Profile namespace; empty on standalone KFP.")
]
CaOption = Annotated[Path | None, Option(help="PEM file of the endpoint's authority.")]
ChartNamespace = Annotated[str, Option(envvar="CLINICAL_R1_NAMESPACE", help="Namespace of the chart.")]
Context = Annotated[str, Option(help="Context of the kubeconfig.")]
DEFAULT_ENDPOINT = "http://localhost:8888"


def submit(
    pipeline: Annotated[str, Argument(help="The pipeline to run.")] = "train",
    config: Annotated[str, Option(help="A shipped configuration by name, or a YAML file of yours.")] = "",
    set_: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
    ] = None,
    param: Annotated[
        list[str] | None,
        Option("--param", metavar="NAME=VALUE", help="A field of the form (--help-params lists them); repeatable."),
    ] = None,
    help_params: Annotated[
        bool, Option("--help-params", help="List the fields of the form with their defaults.")
    ] = False,
    experiment: Annotated[str, Option(help="Experiment to file the run under.")] = "clinical-r1",
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    token_file: TokenOption = None,
    namespace: NamespaceOption = "",
    ca_bundle: CaOption = None,
    context: Annotated[str, Option(help="Context of the kubeconfig: the chart there names image and Secrets.")] = "",
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print the run's parameters and what they come to; submit nothing.")
    ] = False,
) -> None:
    """Start a run on Kubeflow Pipelines, as the dashboard's form would; prints its id and its page in the dashboard.

    \b
    Examples:
      clinical-r1 submit train --param records=s3://clinical-r1/records/ward-7 --param sft_epochs=2
      clinical-r1 submit train --config my.yaml --endpoint https://kubeflow.example/pipeline --namespace team-a \\
        --token-file token --param accelerators=8 --param memory=256Gi
    """
    from pipelines.submit import Endpoint, names_of_the_installation, print_parameters, start_run, submission

    if help_params:
        print_parameters(pipeline, typer.echo)
        return
    given, resolved = submission(pipeline, config, set_ or [], param or [])
    names, note = names_of_the_installation(pipeline, namespace, context)
    asked = names | given
    if dry_run:
        told = asked | {"resolved": resolved.model_dump(mode="json")}
        typer.echo(json.dumps(told, ensure_ascii=False, indent=1))
        return
    place = Endpoint(endpoint, token_file, namespace, ca_bundle)
    run_id, url = start_run(place, pipeline, asked, experiment)
    typer.echo(f"run {run_id}")
    typer.echo(url)
    if note:
        typer.echo(note, err=True)


def runs(
    limit: Annotated[int, Option(help="The newest so many.", min=1, max=200)] = 20,
    endpoint: EndpointOption = DEFAULT_ENDPOINT,
    token_file: TokenOption = None,
    namespace: NamespaceOption = "",
    ca_bundle: CaOption = None,
) -> None:
    """The newest runs of a Kubeflow Pipelines endpoint: when, state, name, id."""
    from pipelines.submit import Endpoint, list_runs

    for line in list_runs(Endpoint(endpoint, token_file, namespace, ca_bundle), limit):
        typer.echo(line)


def doctor(
    namespace: ChartNamespace = "",
    context: Context = "",
    accelerator: Annotated[str, Option(help="Resource name of the accelerator.")] = "nvidia.com/gpu",
    endpoint: Annotated[str, Option(help="Check this Kubeflow Pipelines API too.")] = "",
    token_file: TokenOption = None,
    ca_bundle: CaOption = None,
    ner_model: Annotated[
        list[str] | None, Option(help="Check a PHI name model as records will load it: en=FOLDER; repeatable.")
    ] = None,
) -> None:
    """Look at this machine and a cluster, say what is wrong and how to mend it; exit code 1 where something must be.

    Without --namespace and --context: this machine (Python, memory, disk, GPU, port, proxy and its authority), then the
    kubeconfig's cluster where there is one. Of a cluster: resource types and their versions, rights, what steps mount,
    the launcher's configuration and Kubeflow's own server, a write to the bucket, accelerators, quota, pods that wait.
    Example: clinical-r1 doctor --namespace team-a
    """
    from clinical_r1.cluster.api import Cluster
    from clinical_r1.cluster.doctor import Finding, examine
    from clinical_r1.privacy.models import check_model
    from pipelines import machine

    console, failed = Console(soft_wrap=True, highlight=False), 0

    def show(finding: Finding) -> None:
        nonlocal failed
        failed += finding.state == "fail"
        style = {"ok": "green", "warn": "yellow", "fail": "red"}[finding.state]
        console.print(f"{finding.state:4}  {finding.check}: {finding.detail}", style=style, markup=False)
        if finding.state != "ok" and finding.fix:
            console.print(f"      fix: {finding.fix}", markup=False)

    for given in ner_model or []:
        language, _, folder = given.partition("=")
        try:
            check_model(language, folder)
            show(Finding(f"PHI name model {language}", "ok", folder))
        except UserError as error:
            show(Finding(f"PHI name model {language}", "fail", str(error), "correct phi.ner_models"))
    named = bool(namespace or context or "KUBERNETES_SERVICE_HOST" in os.environ)
    if not named:
        for finding in machine.examine():
            show(finding)
    if named or Path(os.environ.get("KUBECONFIG", "~/.kube/config").split(os.pathsep)[0]).expanduser().is_file():
        for finding in examine(Cluster(namespace, context), accelerator):
            show(finding)
    else:
        console.print("no cluster is named: --namespace looks at one", markup=False)
    if endpoint:
        from pipelines.submit import Endpoint

        try:
            show(Finding("pipelines API", "ok", Endpoint(endpoint, token_file, namespace, ca_bundle).version()))
        except UserError as error:
            show(Finding("pipelines API", "fail", str(error), "correct --endpoint and --token-file"))
    raise typer.Exit(1 if failed else 0)


def rollout(
    name: Annotated[str, Argument(help="Name of the model in the store.")] = "",
    version: Annotated[str, Argument(help="A version or an alias.")] = "production",
    store: Annotated[str, Option(envvar="CLINICAL_R1_MODELS", help="URI of the models: s3://BUCKET/models.")] = "",
    service: Annotated[str, Option(help="InferenceService; that of the chart without it.")] = "",
    mode: Annotated[str, Option(help="dark, replicas or replace; the chart's without it.")] = "",
    probes: Annotated[Path | None, Option(help="JSONL of cases to ask the new model (dark, replace).")] = None,
    replicas: Annotated[int, Option(help="Replicas of the new model while both run.", min=1)] = 1,
    min_requests: Annotated[int, Option(help="Fewer answers than this hold; the chart's without it.")] = 0,
    back: Annotated[bool, Option("--back", help="Serve again what was served before.")] = False,
    namespace: ChartNamespace = "",
    context: Context = "",
) -> None:
    """Bring a promoted model into service and watch it; a silent rollout is held, a bad one taken back.

    Runs inside the cluster (it calls the new model's own Service). The gateway's key is read from CLINICAL_R1_API_KEY.

    \b
    Examples:
      clinical-r1 rollout clinicalgpt-r1 --probes probes.jsonl
      clinical-r1 rollout --back
    """
    from clinical_r1.cluster.api import Cluster
    from clinical_r1.cluster.deploy import Live, Probe
    from clinical_r1.cluster.facts import Facts
    from clinical_r1.cluster.rollout import Mode, Observer, RolloutRules, roll_back, roll_out, tell_sampling
    from clinical_r1.objectstore import models
    from clinical_r1.objectstore.store import open_store
    from clinical_r1.schema import Case, read_jsonl

    cluster = Cluster(namespace, context)
    facts = Facts.read(cluster)
    service = service or facts.serving_name
    if back:
        roll_back(cluster, service, typer.echo)
        return
    mode = mode or facts.rollout_mode
    if mode not in ("dark", "replicas", "replace"):
        raise UserError(f"--mode {mode}: choose dark, replicas or replace")
    if not store.startswith("s3://"):
        raise UserError(f"--store '{store}': KServe reads models from s3://BUCKET/models")
    place = open_store(store)
    uri = f"{place.uri}/{name}/{models.check_served(place, name, version).version}"
    tell_sampling(cluster, service, uri, typer.echo)
    if mode == "replicas":
        watch: Observer = Live(cluster, service)
    elif probes is None or not probes.is_file():
        raise UserError(f"--probes {probes or ''}: mode {mode} asks stored cases: give a JSONL file of cases")
    else:
        questions = [case.prompt for case in read_jsonl(probes, Case)]
        watch = Probe(questions, service, os.environ.get("CLINICAL_R1_API_KEY", ""))
    rules = RolloutRules(min_requests=min_requests or facts.rollout_min_requests)
    verdict = roll_out(cluster, service, uri, watch, cast(Mode, mode), rules, replicas, typer.echo)
    typer.echo(verdict.model_dump_json(indent=1))
    raise typer.Exit(0 if verdict.decision == "promoted" else 1)
