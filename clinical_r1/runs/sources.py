"""What a run reads from outside: the user's records or a sample of the simulated world, and every file that a setting
names; and the hashes that key the cache to their contents.

A source is a file, a folder (FHIR), or the s3:// URI of one. What lies in a store is fetched by the records step;
`store_records` puts it there, and `preview` says first what the PHI gate would do.
A setting that names a file says so by its type (`clinical_r1.settings.Names`): other contents are another step. Their
digests travel beside the settings in the same argument; `clinical_r1.step.load_settings` leaves them out.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from pydantic import BaseModel

from clinical_r1.atomic import file_sha256
from clinical_r1.errors import UserError
from clinical_r1.folders import identity
from clinical_r1.objectstore.face import Entry, Store
from clinical_r1.objectstore.store import open_store
from clinical_r1.objectstore.transfer import size_text
from clinical_r1.records.config import PhiConfig, RecordsConfig, Source, SplitConfig
from clinical_r1.records.readers.files import files_of
from clinical_r1.records.report import RecordsReport
from clinical_r1.runs.config import ExperimentConfig, RunConfig
from clinical_r1.schema import write_jsonl
from clinical_r1.settings import VARIABLE, Names
from clinical_r1.simulator.beside import ADDRESS_VARIABLE, SimulatorConfig
from clinical_r1.step import CONTENTS

ConfigT = TypeVar("ConfigT", bound=RunConfig)
WORLD = "simulated-world.jsonl"
"""What configurations write for records that are to be sampled from the simulated world."""
_PREVIEW_KEY = "a key for a preview alone: nothing that it hashes is kept"


def with_cases(config: ConfigT, paths: Sequence[str], columns: dict[str, str]) -> ConfigT:
    """The user's records in place of the configuration's. What a shipped configuration says of its simulated patients
    (the gate is off, because they are synthetic) does not hold for them: the PHI gate is on."""
    phi = config.records.phi
    if phi.policy == "off" and phi.off_because == "synthetic":
        phi = phi.model_copy(update={"policy": "scrub", "off_because": ""})
    update = {"sources": [{"path": path, "map": columns} for path in paths], "phi": phi.model_dump()}
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
    base, world = config.base_model.folder or "a tiny Qwen2 made from scratch", config.simulator
    told: dict[str, Any] = {"simulated_teacher": bool(simulated(config)), "base_model": base}
    told |= {"simulated": False, "ceiling": None}
    update: dict[str, object] = {}
    if world is not None and not own_cases(config):
        from clinical_r1.simulator.world import bayes_ceiling, sample_records

        knobs = ("-twins" if world.twins else "") + (f"-{world.dialect_site}" if world.dialect_site else "")
        path = folder / f"world-{world.cases}-{world.zh_share:g}-{world.seed}{knobs}.jsonl"
        if not path.is_file():
            settings = world.model_dump(include={"seed", "zh_share", "twins", "dialect_site"})
            write_jsonl(path, sample_records(world.cases, **settings))
        source = Source(path=str(path), terms="simulated, no patient")
        update["records"] = config.records.model_copy(update={"sources": [source]})
        told |= {"simulated": True, "ceiling": round(bayes_ceiling(), 3)}
    return config.model_copy(update=update | {"report": config.report.model_copy(update=told)})


def with_traces(config: ConfigT) -> ConfigT:
    """The hash of finished traces beside their place, so that other contents are other traces. UserError for none."""
    told = config.synthesis.traces
    if told is None:
        return config
    stored = "://" in told.path
    if not stored and not Path(told.path).is_file():
        raise UserError(f"synthesis.traces.path: {told.path}: no such file; give JSON, JSONL, Parquet, or an s3:// URI")
    digest = fingerprint([Source(path=told.path)], "synthesis.traces.path")
    path = told.path if stored else str(Path(told.path).resolve())
    known = told.model_copy(update={"path": path, "sha256": digest})
    return config.model_copy(update={"synthesis": config.synthesis.model_copy(update={"traces": known})})


def fingerprint(sources: Sequence[Source], setting: str = "records.sources") -> str:
    """SHA-256 over the contents of all sources; of an s3:// one over names, sizes and etags. UserError for none."""
    parts = (part for source in sources for part in _parts(source.path, setting))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _parts(place: str, setting: str) -> list[str]:
    if "://" in place:
        store, entries = _stored(place, setting)
        stats = [store.stat(entry.key) for entry in entries]
        return [f"{stat.key} {stat.size} {stat.etag}" for stat in stats if stat]
    if Path(place).is_file():  # an empty one too
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


def fetched(config: RecordsConfig, folder: Path) -> RecordsConfig:
    """Copies of the s3:// sources in `folder`; sources on disk stay where they are."""
    sources = []
    for number, source in enumerate(config.sources):
        if "://" in source.path:
            store, entries = _stored(source.path, "records.sources")
            name, place = source.path.rstrip("/").rsplit("/", 1)[1], folder / str(number)
            for entry in entries:
                store.get_file(entry.key, place / entry.key)
            if [entry.key for entry in entries] == [name]:
                place = place / name
            source = source.model_copy(update={"path": str(place), "source": source.source or Path(name).stem})
        sources.append(source)
    return config.model_copy(update={"sources": sources})


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


def as_argument(section: BaseModel, beside: BaseModel | None = None, name: str = "") -> str:
    """A section as the JSON string that a component takes; sorted, so that equal settings give equal cache keys.

    `beside` are settings that the step is not told and whose files it reads. Raises UserError for one that is missing;
    `name` is what it calls the section.
    """
    told = section.model_dump(mode="json")
    named = [*(named_files(beside) if beside else ()), *named_files(section, place=name)]
    named = [one for one in named if one[1]]  # the others name none
    if contents := {setting: digest for setting, path, kind in named if (digest := _digest(setting, path, kind))}:
        told[CONTENTS] = contents
    return json.dumps(told, sort_keys=True, ensure_ascii=False)


def named_files(value: Any, names: Names | None = None, place: str = "") -> Iterator[tuple[str, str, Names]]:
    """(setting, path, kind) of all settings in `value` that name a file; the path is empty where none is named."""
    if isinstance(value, BaseModel) and not (names and hasattr(value, "path")):
        for name, field in type(value).model_fields.items():
            kind = next((one for one in field.metadata if isinstance(one, Names)), None)
            yield from named_files(getattr(value, name), kind, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list | dict):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from named_files(one, names, f"{place}.{key}")
    elif names:
        yield place, str(getattr(value, "path", value) or ""), names


def _digest(setting: str, path: str, kind: Names) -> str:
    """Of the file, the files or the model that a setting names; empty for what only the step can find."""
    path = VARIABLE.sub(lambda match: os.environ.get(match[1], match[0]), path)
    if VARIABLE.search(path):  # the step says so where it does not know the variable
        return ""
    if kind is Names.MODEL:  # one of a name or at an address is another under another name
        return identity(Path(path)) if Path(path).is_dir() else ""
    place = str(Path(path) / "tokenizer.json") if kind is Names.TOKENIZER else path
    if not re.search(r"://|[*?[]", place) and not os.path.exists(place):
        raise UserError(f"{setting}: {place}: no such file: mend the path")
    return fingerprint([Source(path=place)], setting)


def preview(path: Path, columns: dict[str, str]) -> RecordsReport:
    """What the records step would make of a file, with the PHI gate on; nothing of it stays. Raises UserError."""
    from clinical_r1.records.run import prepare

    with TemporaryDirectory() as folder:
        key = Path(folder, "key")
        key.write_text(_PREVIEW_KEY, encoding="utf-8")
        config = RecordsConfig(
            sources=[Source(path=str(path), map=columns)],
            splits=SplitConfig(fractions={"sft": 1.0, "rl": 0.0, "validation": 0.0, "test": 0.0}),
            group_by=["patient"],
            max_reject_rate=1.0,
            phi=PhiConfig(policy="scrub", key_file=str(key)),
        )
        return prepare(config, Path(folder, "out"))


def store_records(path: Path, name: str, store: str, say: Callable[[str], None]) -> str:
    """Put a file, or the files of a folder, under `store`/`name`; returns the URI to give to a run.

    Interrupted, the same call goes on. Raises UserError where other records have that name.
    """
    if "/" in name:
        raise UserError(f"--name {name}: a name has no '/': write one such as ward-7")
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", name):
        raise UserError(f"--name '{name}': use letters, digits, dots and dashes, at most 63, such as ward-7")
    place = open_store(store)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    root = path.parent if path.is_file() else path
    wanted = {f"{name}/{file.relative_to(root).as_posix()}": file for file in files}
    there = {entry.key for entry in place.list(f"{name}/")}
    if strange := sorted(there - set(wanted)):
        raise UserError(
            f"{place.uri}/{name}: holds {strange[0].partition('/')[2]}, another import: give another --name"
        )
    for key, file in wanted.items():
        digest = file_sha256(file)
        known = place.stat(key) if key in there else None
        if known and known.sha256 != digest:
            raise UserError(f"{place.uri}/{key}: other content is there under this name: give another --name")
        if not known:
            place.put_file(key, file, sha256=digest)
    size = sum(file.stat().st_size for file in files)
    uri = f"{place.uri}/{name}" + (f"/{path.name}" if path.is_file() else "")
    say(f"stored: {uri} ({len(files)} file(s), {size_text(size)})")
    return uri
