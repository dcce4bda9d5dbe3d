"""`clinical-r1 models ...` (what is published, what is in production, who let it in), `import-model`, `serve`."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from clinical_r1.errors import UserError

StoreOption = Annotated[
    str,
    Option(
        "--store",
        envvar="CLINICAL_R1_MODELS",
        help="URI of the models: s3://BUCKET/models (endpoint and keys from AWS_ENDPOINT_URL, ...) or a folder.",
    ),
]
NameArgument = Annotated[str, Argument(help="Name of the model in the store.")]
VersionArgument = Annotated[str, Argument(help="A version, or candidate, production, previous.")]
DEFAULT_STORE = "runs/models"

app = typer.Typer(
    help="Published models: list, show, promote, roll back.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.command("list")
def list_models(
    name: Annotated[str, Argument(help="Only this model; all without it.")] = "",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """One line a version: aliases, size, gate, when it was published, by which run.

    What cannot be read is named after the list, and the exit code is 2.

    Example: clinical-r1 models list --store s3://clinical-r1/models
    """
    from rich.console import Console
    from rich.table import Table

    from clinical_r1.objectstore import models
    from clinical_r1.objectstore.face import Unreadable
    from clinical_r1.objectstore.manifest import Aliases
    from clinical_r1.objectstore.store import open_store
    from clinical_r1.objectstore.transfer import size_text

    place = open_store(store)
    if store != DEFAULT_STORE and "://" not in store and not Path(store).is_dir():
        raise UserError(f"--store {store}: no such folder: give the one that runs publish to, or s3://BUCKET/models")
    known = place.list_folders()
    if name and name not in known:
        raise UserError(f"{place.uri}: no model '{name}': there is {', '.join(known) or 'none yet'}")
    found = (name,) if name else known
    table = Table("model", "version", "alias", "size", "gate", "published", "run", box=None, pad_edge=False)
    bad: list[UserError] = []
    for each in found:
        aliases = Aliases()
        try:
            aliases, _ = models.read_aliases(place, each)
        except Unreadable as error:
            bad.append(error)
        for version, manifest in models.versions(place, each):
            label = ", ".join(aliases.of(version))
            if manifest is None or isinstance(manifest, UserError):
                bad += [manifest] if manifest else []
                table.add_row(each, version, label, "", "", "unreadable" if manifest else "unfinished upload", "")
                continue
            gate = manifest.gate.decision if manifest.gate else "none"
            row = (each, version, label, size_text(manifest.size), gate, manifest.created, manifest.run_id)
            table.add_row(*row)
    if not table.row_count:
        typer.echo(f"{place.uri}: no models yet: a run of the train pipeline publishes one, or import-model")
        return
    Console(width=160).print(table)
    if bad:
        raise UserError("; ".join(str(error) for error in bad))


@app.command("show")
def show(name: NameArgument, version: VersionArgument = "candidate", store: StoreOption = DEFAULT_STORE) -> None:
    """The manifest of one version as JSON, with its URI and aliases: origin, data, evaluation, gate, approval, files.

    Example: clinical-r1 models show clinicalgpt-r1 production
    """
    from clinical_r1.objectstore import models
    from clinical_r1.objectstore.store import open_store

    place = open_store(store)
    manifest = models.read_manifest(place, name, version)
    aliases, _ = models.read_aliases(place, name)
    record: dict[str, Any] = {"uri": f"{place.uri}/{name}/{manifest.version}", "aliases": aliases.of(manifest.version)}
    record |= manifest.model_dump(mode="json")
    record["history"] = [
        m.model_dump(mode="json") for m in aliases.history if manifest.version in (m.version, m.before)
    ]
    typer.echo(json.dumps(record, ensure_ascii=False, indent=1))


@app.command("promote")
def promote(
    name: NameArgument,
    version: VersionArgument = "candidate",
    approved_by: Annotated[str, Option(help="The person who answers for it.")] = "",
    reason: Annotated[str, Option(help="Why; stands in the manifest for good.")] = "",
    gate: Annotated[Path | None, Option(help="A newer gate.json than that of the manifest.")] = None,
    override_hold: Annotated[bool, Option("--override-hold", help="Promote although the gate says hold.")] = False,
    override_refusal: Annotated[
        bool, Option("--override-refusal", help="Promote a refused model; stands in manifest and card for ever.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Take a version into production. The gate must say promote; a refused model is never promoted.

    Example: clinical-r1 models promote clinicalgpt-r1 candidate --approved-by "Dr. Li" --reason "better in cardiology"
    """
    from pydantic import ValidationError

    from clinical_r1.objectstore import models
    from clinical_r1.objectstore.manifest import Gate
    from clinical_r1.objectstore.store import open_store
    from clinical_r1.schema import first_problem

    place = open_store(store)
    newer = None
    if gate:
        if not gate.is_file():
            raise UserError(f"--gate {gate}: no such file: give the gate.json that the gate wrote")
        try:
            newer = Gate.model_validate_json(gate.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise UserError(f"--gate {gate}: not a gate result: {first_problem(error)}") from None
    aliases = models.promote(place, name, version, approved_by, reason, newer, override_hold, override_refusal)
    typer.echo(f"production: {place.uri}/{name}/{aliases.production}")
    typer.echo(f"previous: {aliases.previous or 'none'}")
    typer.echo("serve it with `clinical-r1 rollout`, or set this URI in the chart's serving values")


@app.command("register")
def register(
    name: NameArgument,
    version: VersionArgument = "candidate",
    registry: Annotated[str, Option(help="URL of the Kubeflow Model Registry, with its port.")] = "",
    mlflow: Annotated[str, Option(help="URI of an MLflow server, in its place or beside it.")] = "",
    by: Annotated[str, Option(help="Who registers.")] = "",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Tell a Kubeflow Model Registry, or MLflow's, of a version: its URI, weights' hash, gate, approval, accuracy.

    The manifest in the store stays the truth; give the command again after a promotion. Needs the extra `registry`
    (`tracking` for MLflow). Kubeflow's token is the service account's, or that of the file in
    KF_PIPELINES_SA_TOKEN_PATH; MLflow's is in MLFLOW_TRACKING_TOKEN.

    Example: clinical-r1 models register r1 production --registry URL --by "Dr. Li" --store s3://b/models
    """
    from clinical_r1.objectstore import publication
    from clinical_r1.objectstore.store import open_store

    if (registry or not mlflow) and (not registry.startswith(("http://", "https://")) or not by):
        raise UserError("models register: give --registry http(s)://HOST:PORT and --by NAME, or --mlflow URI")
    place = open_store(store)
    if registry:
        typer.echo(f"registered: {publication.register(place, name, version, registry, by)} in {registry}")
    if mlflow:
        typer.echo(f"registered: {publication.register_in_mlflow(place, name, version, mlflow)} in {mlflow}")


@app.command("rollback")
def rollback(
    name: NameArgument,
    by: Annotated[str, Option(help="Who rolls back.")] = "",
    reason: Annotated[str, Option(help="Why.")] = "",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Swap production and previous.

    Example: clinical-r1 models rollback clinicalgpt-r1 --by "Dr. Li" --reason "slow on long records"
    """
    from clinical_r1.objectstore import models
    from clinical_r1.objectstore.store import open_store

    place = open_store(store)
    aliases = models.rollback(place, name, by, reason)
    typer.echo(f"production: {place.uri}/{name}/{aliases.production}")
    typer.echo(f"previous: {aliases.previous}")


def import_model(
    folder: Annotated[Path, Argument(help="A Hugging Face checkpoint on disk, with safetensors.")],
    name: Annotated[str, Option(help="Name in the store, such as qwen2-5-7b-instruct.")],
    base_model: Annotated[str, Option(help="Where it came from, such as Qwen/Qwen2.5-7B-Instruct.")] = "",
    revision: Annotated[str, Option(help="Its commit; read from the folder's name in a Hub cache.")] = "",
    licence: Annotated[str, Option(help="Licence of the weights, such as apache-2.0.")] = "",
    version: Annotated[str, Option(help="Version; the hash of the files without it.")] = "",
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Bring a base model into the store of an air-gapped cluster; interrupted, the same command goes on.

    On a machine with internet: `hf download Qwen/Qwen2.5-7B-Instruct --local-dir qwen`; carry the folder; then here:
    clinical-r1 import-model qwen --name qwen2-5-7b-instruct --base-model Qwen/Qwen2.5-7B-Instruct --licence apache-2.0

    Runs start from the URI that is printed: --set base_model.folder=s3://clinical-r1/models/NAME/VERSION
    """
    from clinical_r1.folders import PICKLED
    from clinical_r1.objectstore import models
    from clinical_r1.objectstore.manifest import Facts
    from clinical_r1.objectstore.store import open_store

    code = sorted(path.relative_to(folder).as_posix() for kind in ("*.py", *PICKLED) for path in folder.rglob(kind))
    if code:
        raise UserError(
            f"{folder}: {code[0]} is code, or pickled, which can run some: a model folder may not bring it; "
            "take it out and import again"
        )
    commit = folder.resolve().name
    known = revision or (commit if re.fullmatch(r"[0-9a-f]{40}", commit) else "")
    place = open_store(store)
    facts = Facts(origin="imported", base_model=base_model, base_revision=known, licence=licence)
    manifest = models.publish(place, name, folder, facts, version=version, by="import-model", say=typer.echo)
    typer.echo(f"imported: {place.uri}/{name}/{manifest.version}")


def serve(
    model: Annotated[Path, Argument(help="A model folder, such as runs/latest/model.")],
    host: Annotated[str, Option(help="Address to listen on; loopback unless you say otherwise.")] = "127.0.0.1",
    port: Annotated[int, Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8000,
    open_browser: Annotated[bool, Option("--open", help="Open the chat page in a browser.")] = False,
) -> None:
    """Serve a checkpoint on the CPU behind the OpenAI chat protocol (POST /v1/chat/completions, streaming or not).

    Production uses vLLM behind the gateway; this is for laptops and tests.
    """
    from clinical_r1.objectstore.manifest import check_beside
    from serving.engine.main import serve as serve_model

    if model.is_dir():
        check_beside(model)
    serve_model(model, host=host, port=port, open_browser=open_browser)
