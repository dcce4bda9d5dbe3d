"""The records of a run: the user's, or a sample of the simulated world; and the hash that keys the cache to them.

A source is a file, a folder (FHIR), or the s3:// URI of one. What lies in a store is fetched by the records step.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.objectstore.face import Entry, Store
from clinical_r1.objectstore.store import open_store
from clinical_r1.records.config import RecordsConfig, Source
from clinical_r1.records.readers.files import files_of
from clinical_r1.runs.config import RunConfig, SimulatedWorldConfig
from clinical_r1.runs.experiments import ExperimentConfig
from clinical_r1.schema import write_jsonl
from clinical_r1.simulator.beside import ADDRESS_VARIABLE
from clinical_r1.simulator.config import SimulatorConfig

ConfigT = TypeVar("ConfigT", bound=RunConfig)
WORLD = "simulated-world.jsonl"
"""What configurations write for records that are to be sampled from the simulated world."""


def with_cases(config: ConfigT, paths: Sequence[str], columns: dict[str, str]) -> ConfigT:
    """The user's records in place of the configuration's. What a shipped configuration says of its simulated patients
    (the gate is off, because they are synthetic) does not hold for them: the PHI gate is on."""
    sources = [{"path": path, "map": columns} for path in paths]
    phi = config.records.phi
    if phi.policy == "off" and phi.off_because == "synthetic":
        phi = phi.model_copy(update={"policy": "scrub", "off_because": ""})
    update = {"sources": sources, "phi": phi.model_dump()}
    records = RecordsConfig.model_validate(config.records.model_dump() | update)
    return config.model_copy(update={"records": records})


def own_cases(config: RunConfig) -> bool:
    """Whether the records are the user's, and not a sample of the simulated world."""
    return any(source.path != WORLD for source in config.records.sources)


def simulated(config: RunConfig) -> dict[str, SimulatorConfig]:
    """The endpoints that a run asks for and that are to be simulated, by the variable with their address."""
    if config.simulator is None:
        return {}
    found: dict[str, SimulatorConfig] = {ADDRESS_VARIABLE: config.simulator.endpoint}
    if isinstance(config, ExperimentConfig):
        found |= {f"{ADDRESS_VARIABLE}_{name.upper()}": one for name, one in config.endpoints.items()}
    text = config.model_dump_json()
    return {variable: one for variable, one in found.items() if f"${{{variable}}}" in text}


def with_world(config: ConfigT, folder: Path) -> ConfigT:
    """Sample the simulated world into `folder` where the run has no cases of its own, and tell the report so."""
    sample = config.simulator is not None and not own_cases(config)
    base = config.base_model.folder or "a tiny Qwen2 made from scratch"
    facts = {"simulated": sample, "simulated_teacher": bool(simulated(config)), "base_model": base}
    update: dict[str, object] = {
        "report": config.report.model_copy(update=facts | {"ceiling": _ceiling() if sample else None})
    }
    if sample and config.simulator is not None:
        source = Source(path=str(_sampled(config.simulator, folder)), terms="simulated, no patient")
        update["records"] = config.records.model_copy(update={"sources": [source]})
    return config.model_copy(update=update)


def _sampled(simulator: SimulatedWorldConfig, folder: Path) -> Path:
    from clinical_r1.simulator.world import sample_records

    knobs = ("-twins" if simulator.twins else "") + (f"-{simulator.dialect_site}" if simulator.dialect_site else "")
    path = folder / f"world-{simulator.cases}-{simulator.zh_share:g}-{simulator.seed}{knobs}.jsonl"
    if not path.is_file():
        settings = simulator.model_dump(include={"seed", "zh_share", "twins", "dialect_site"})
        write_jsonl(path, sample_records(simulator.cases, **settings))
    return path


def _ceiling() -> float:
    from clinical_r1.simulator.world import bayes_ceiling

    return round(bayes_ceiling(), 3)


def fingerprint(sources: Sequence[Source], setting: str = "records.sources") -> str:
    """SHA-256 over the contents of all sources; of an s3:// one over names, sizes and etags. UserError for none."""
    digest = hashlib.sha256()
    for source in sources:
        for part in _parts(source.path, setting):
            digest.update(part.encode())
    return digest.hexdigest()


def _parts(place: str, setting: str) -> list[str]:
    if "://" in place:
        store, entries = _stored(place, setting)
        stats = [store.stat(entry.key) for entry in entries]
        return [f"{stat.key} {stat.size} {stat.etag}" for stat in stats if stat]
    if Path(place).is_file():
        return [file_sha256(place)]
    if Path(place).is_dir():
        files = [file for file in sorted(Path(place).rglob("*")) if file.is_file()]
        if not files:
            raise UserError(f"{setting}: {place}: no file in this folder: give one that holds some")
        return [file_sha256(file) for file in files]
    try:
        return [file_sha256(file.path) for file in files_of(place)]
    except UserError as error:
        raise UserError(f"{setting}: {error}") from None


def with_traces(config: ConfigT) -> ConfigT:
    """The hash of finished traces beside their place, so that other contents are other traces. UserError for none."""
    told = config.synthesis.traces
    if told is None:
        return config
    if "://" not in told.path and not Path(told.path).is_file():
        raise UserError(f"synthesis.traces.path: {told.path}: no such file; give JSON, JSONL, Parquet, or an s3:// URI")
    source = Source(path=told.path)
    path = told.path if "://" in told.path else str(Path(told.path).resolve())
    known = told.model_copy(update={"path": path, "sha256": fingerprint([source], "synthesis.traces.path")})
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"traces": known})})


def fetched(config: RecordsConfig, folder: Path) -> RecordsConfig:
    """Copies of the s3:// sources in `folder`; sources on disk stay where they are."""
    sources = [_fetched(source, folder / str(number)) for number, source in enumerate(config.sources)]
    return config.model_copy(update={"sources": sources})


def _fetched(source: Source, folder: Path) -> Source:
    if "://" not in source.path:
        return source
    store, entries = _stored(source.path, "records.sources")
    name = source.path.rstrip("/").rsplit("/", 1)[1]
    whole = [entry.key for entry in entries] == [name]
    for entry in entries:
        store.get_file(entry.key, folder / entry.key)
    place = folder / name if whole else folder
    return source.model_copy(update={"path": str(place), "source": source.source or Path(name).stem})


def _stored(uri: str, setting: str) -> tuple[Store, list[Entry]]:
    """The object of that URI in its folder's store, or all objects below it in a store of their own."""
    above, _, name = uri.rstrip("/").rpartition("/")
    if above.endswith("/"):
        raise UserError(f"{setting}: {uri}: names a bucket: write s3://BUCKET/records/NAME")
    store = open_store(above)
    if found := store.stat(name):
        return store, [found]
    below = open_store(uri)
    entries = list(below.list())
    if not entries:
        raise UserError(f"{setting}: {uri}: nothing there: `clinical-r1 import-records` prints the URI to give")
    return below, entries
