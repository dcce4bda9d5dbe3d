"""The one loader of configurations. Later wins: defaults, what a file `extends`, the file itself, options.

    document = Document.read("mine.yaml", catalogue)     # or a shipped one by its name
    document.set("sft.epochs=2")
    config = document.validate(RunConfig)                # UserError: `mine.yaml:7: ...`, `--set sft.epochs: ...`

A section may be the name of a shipped file (`sft: sft-paper-7b-1x80-lora`); it comes whole, in place of one that is
extended. `${NAME}` in a value is the environment's variable. An error names the place (file and line, or the option),
the key and the near miss.
"""

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from clinical_r1.errors import UserError, near_miss

Key = tuple[str, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: `off` is a policy's name and `no` a language; a setting that is a boolean takes them too."""

    yaml_implicit_resolvers = {
        first: [row for row in rows if row[0] != "tag:yaml.org,2002:bool"]
        for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:[tT]rue|TRUE|[fF]alse|FALSE)$"), list("tTfF"))


class Names(Enum):
    """What a setting names: `Annotated[str, Names.FILES]`. Its content is then part of what the step is told."""

    FILES = "files"  # a file, a folder, or a glob
    MODEL = "model"  # a model folder
    TOKENIZER = "tokenizer"  # a folder, of which tokenizer.json is read


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of any random draw; NumPy takes no other."""
ModelT = TypeVar("ModelT", bound=BaseModel)
VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")  # the environment has it
_VERBATIM = re.compile(r"^[-+]?0[0-9_]+$|^(?![\s\[{'\"]).* #")
"""Option values that YAML would change in silence: 010 is 8 to it, and a path ends before ` #`."""
_MOST_NODES = 200_000
_DEEPEST = 20  # configurations that extend one another; more is a circle


@dataclass(frozen=True)
class Shelf:
    """A folder of shipped files that are found by name."""

    folder: Path
    what: str = "configuration"
    prefix: str = ""
    """Of the names that an error lists."""

    def find(self, name: str, place: str, beside: Path | None = None) -> Path:
        """A shipped file by its name without .yaml, or any file by its path (from the folder `beside` too)."""
        near = [beside / name] if beside else []
        for file in (self.folder / f"{name}.yaml", Path(name), *near):
            if os.path.isfile(file):  # no error where the name is too long for one
                return file
        names = sorted(file.stem for file in self.folder.glob(f"{self.prefix}*.yaml"))
        hint = " ".join(filter(None, (near_miss(name, names), f"(shipped: {', '.join(names)})")))
        raise UserError(f"{place}: neither a file nor a shipped {self.what}: {hint}")


@dataclass(frozen=True)
class Catalogue:
    """What a kind of configuration may name: whole files, and sections."""

    files: Shelf | None = None
    sections: Mapping[str, Shelf] = field(default_factory=dict)


@dataclass
class Document:
    """Settings on their way to a model, and where each of them came from."""

    data: dict[str, Any] = field(default_factory=dict)
    places: dict[Key, str] = field(default_factory=dict)
    catalogue: Catalogue = Catalogue()
    source: str = ""
    """The file, for errors about what nobody wrote."""
    _options: list[Key] = field(default_factory=list)
    _whole: set[str] = field(default_factory=set)
    """Sections that came from a file of their own: they replace an extended one instead of joining it."""

    @classmethod
    def read(cls, name: str | Path, catalogue: Catalogue = Catalogue(), option: str = "--config") -> Self:
        """A file, or a shipped configuration by its name, with everything that it extends. Raises UserError."""
        path = catalogue.files.find(str(name), f"{option} {name}") if catalogue.files else Path(name)
        if not path.is_file():
            raise UserError(f"{option} {path}: no such file: give a YAML file")
        return cls._extended(path, catalogue, 0)

    @classmethod
    def _extended(cls, path: Path, catalogue: Catalogue, depth: int) -> Self:
        data, lines = read_yaml(path)
        data = {} if data is None else data
        if not isinstance(data, dict):
            raise UserError(f"{path}: expected a mapping: write `key: value` lines")
        made = cls(data, {key: f"{path}:{line}" for key, line in lines.items()}, catalogue, str(path))
        made._put_sections()
        parent = data.pop("extends", None)
        if not parent:
            return made
        place = made.places.get(("extends",), str(path))
        if depth > _DEEPEST:
            raise UserError(f"{place}: extends: {parent} extends itself: take one of them out of the circle")
        shelf = catalogue.files or Shelf(path.parent)
        base = cls._extended(shelf.find(str(parent), f"{place}: extends: {parent}", path.parent), catalogue, depth + 1)
        return base.over(made)

    def over(self, stronger: "Document") -> Self:
        """This document with a stronger one on top: mappings join, values, lists and whole sections are replaced."""
        for name in stronger._whole:
            self._forget((name,))
            self.data.pop(name, None)
        self.data = _merged(self.data, stronger.data)
        self.places |= stronger.places
        self._whole |= stronger._whole
        self._options += stronger._options
        self.source = stronger.source or self.source
        return self

    def set(self, *options: str) -> Self:
        """Options `section.key=value`, the value read as YAML."""
        for option in options:
            key, separator, text = option.partition("=")
            if not separator or not all(key.split(".")):
                raise UserError(f"--set {option}: write it as section.key=value, such as --set sft.epochs=2")
            try:
                value = text if _VERBATIM.search(text) else read_value(text)
            except (yaml.YAMLError, ValueError, RecursionError):
                told = "the value is not valid YAML: quote it or close its brackets"
                raise UserError(f"--set {option}: {told}") from None
            self.put(key, value, f"--set {key}")
        return self

    def put(self, key: str | Key, value: Any, place: str) -> Self:
        """One (dotted) key from an option or a parameter; `place` is what an error calls it."""
        path = tuple(key.split(".")) if isinstance(key, str) else key
        at: Any = self.data
        for number, part in enumerate(path[:-1], 1):
            below = at.get(part) if isinstance(at, dict) else _item(at, part)
            if below is None and isinstance(at, dict):
                below = at[part] = {}
            if not isinstance(below, dict | list):
                raise UserError(f"{place}: '{'.'.join(path[:number])}' is a value, not a section")
            at = below
        if isinstance(at, dict):
            at[path[-1]] = value
        elif _item(at, path[-1]) is None:
            raise UserError(f"{place}: the list has {len(at)} entries, counted from 0")
        else:
            at[int(path[-1])] = value
        self._forget(path)
        self.places[path] = place
        self._options.append(path)
        self._put_sections()
        return self

    def join(self, values: Mapping[Key, Any], place: str) -> Self:
        """Many keys on top (the form's `overrides`); `place` is what an error calls them."""
        for key, value in values.items():
            self.put(key, value, place)
        return self

    def filled(self) -> Self:
        """Put the environment's variables in place of `${NAME}`. Raises UserError for one that is not set."""

        def fill(value: Any, key: Key) -> Any:
            if not isinstance(value, str):
                return value
            unset = [name for name in VARIABLE.findall(value) if name not in os.environ]
            if unset:
                where = f"{self.place(key)}: {'.'.join(key)}"
                raise UserError(f"{where}: the environment has no ${{{unset[0]}}}: export it, or write the value")
            return VARIABLE.sub(lambda match: os.environ[match[1]], value)

        self.data = each(self.data, fill)
        return self

    def validate(self, model: type[ModelT]) -> ModelT:
        """The settings as a model; UserError names place, key and near miss."""

        def finite(value: Any, key: Key) -> None:
            # inf and nan pass every bound of a kind, and no JSON can hold them.
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{self._blamed(key)}: {'.'.join(key)}: {value}: write a finite number")

        try:
            made = model.model_validate(self.data)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            # An unknown key explains a missing one beside it, so it is told first.
            problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
            key = tuple(map(str, problem["loc"]))
            raise UserError(f"{self._blamed(key)}: {_explained(problem, key, model)}") from None
        each(made.model_dump(), finite)
        return made

    def place(self, key: Key) -> str:
        """Where a key was written, or the nearest above it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return self.source or "the settings"

    def _blamed(self, key: Key) -> str:
        """The place of a key; of a whole section with the options that changed something in it."""
        below = [self.places[one] for one in self._options if one[: len(key)] == key and one != key]
        found = self.place(key)
        if below and key not in self.places and (key or not self.source):
            return below[0]
        return " with ".join(dict.fromkeys([found, ", ".join(dict.fromkeys(below))])) if below else found

    def _put_sections(self) -> None:
        """Put the content of shipped or own files in place of sections that are names."""
        for section, shelf in self.catalogue.sections.items():
            name = self.data.get(section)
            if not isinstance(name, str):
                continue
            place = self.place((section,))
            file = shelf.find(name, f"{place}: {section} '{name}'", Path(self.source).parent if self.source else None)
            found, lines = read_yaml(file)
            if not isinstance(found, dict):
                raise UserError(f"{file}: expected a mapping with settings of {section}")
            self._forget((section,))
            self.data[section] = found
            self.places |= {(section, *key): f"{file}:{line}" for key, line in lines.items()}
            self.places[(section,)] = str(file)
            self._whole.add(section)

    def _forget(self, key: Key) -> None:
        """What stood at a key and below it is replaced."""
        self.places = {one: place for one, place in self.places.items() if one[: len(key)] != key}
        self._options = [one for one in self._options if one[: len(key)] != key]


def load(
    model: type[ModelT],
    name: str | Path | None,
    options: Sequence[str] = (),
    catalogue: Catalogue = Catalogue(),
    option: str = "--config",
) -> ModelT:
    """A file (or the defaults) and `--set` options as a model, variables filled in."""
    document = Document(catalogue=catalogue) if name is None else Document.read(name, catalogue, option)
    return document.set(*options).filled().validate(model)


def shown(model: BaseModel) -> str:
    """The resolved configuration as YAML: what `--dry-run` prints and a run's folder keeps."""
    return yaml.safe_dump(model.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def read_value(text: str) -> Any:
    """A value that stands alone. Raises YAMLError, ValueError or RecursionError."""
    return yaml.load(text, _Loader)


def read_yaml(path: Path) -> tuple[Any, dict[Key, int]]:
    """What a YAML file holds, and the line of each key; UserError names a line that is no YAML or repeats a key."""
    try:
        loader = _Loader(path.read_bytes())
        try:
            node = loader.get_single_node()
            if node is None:
                return None, {}
            _refuse_twice(node, path, count(1))
            data = loader.construct_document(node)
            # Aliases (`*endpoint`) become copies: an option changes the one key that it names.
            return each(data, lambda value, _: value), dict(_lines(node, ()))
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2020-13-45 looks like a date
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: mend the indentation or quoting") from None


def _refuse_twice(node: yaml.Node, path: Path, visited: Iterator[int]) -> None:
    """YAML lets the later of two equal keys win in silence; and a few aliases of aliases fill any memory."""
    if next(visited) > _MOST_NODES:
        raise UserError(f"{path}: its aliases come to more than {_MOST_NODES} values: write it without them")
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<" and isinstance(key, yaml.ScalarNode):
                raise UserError(f"{path}:{line}: key '{key.value}' stands in line {seen[key.value]} already: keep one")
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
            _refuse_twice(value, path, visited)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twice(value, path, visited)


def _lines(node: yaml.Node, key: Key) -> Iterator[tuple[Key, int]]:
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            below = (*key, str(name.value))
            yield below, name.start_mark.line + 1
            yield from _lines(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            below = (*key, str(number))
            yield below, value.start_mark.line + 1
            yield from _lines(value, below)


def _explained(problem: Any, key: Key, model: type[BaseModel]) -> str:
    """The problem as `key: message`, an unknown key or choice with its near miss."""
    if problem["type"] == "extra_forbidden":
        known = sorted({name for kind in _models_at(model, key[:-1]) for name in kind.model_fields})
        return f"unknown key '{'.'.join(key)}': {near_miss(key[-1], known) or 'known: ' + ', '.join(known)}"
    text = f"{'.'.join(key)}: {problem['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    if problem["type"] == "literal_error" and isinstance(problem.get("input"), str):
        choices = re.findall(r"'([^']*)'", str(problem.get("ctx", {}).get("expected", "")))
        return "; ".join(filter(None, (text, near_miss(problem["input"], choices))))
    return text


def _models_at(model: Any, key: Key) -> list[type[BaseModel]]:
    """The models that may stand at a key: fields, list items, values of mappings, members of unions."""
    kinds = _members(model)
    for part in key:
        below: list[Any] = []
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found = kind.model_fields.get(part)
                below += _members(found.annotation) if found else []
            else:
                arguments = get_args(kind)
                below += _members(arguments[-1]) if arguments else []
        kinds = below or kinds  # pydantic puts the tag of a union into the place
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _members(annotation: Any) -> list[Any]:
    """A union's members, else the annotation itself; lists and mappings stay whole."""
    arguments = get_args(annotation)
    origin = getattr(annotation, "__origin__", None)
    if arguments and origin not in (list, dict, tuple, set):
        return [one for argument in arguments for one in _members(argument)]
    return [annotation]


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    joined = {
        key: _merged(base[key], value)
        for key, value in over.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | over | joined


def each(value: Any, change: Callable[[Any, Key], Any], key: Key = ()) -> Any:
    """Plain data without shared parts, each value in them changed; `change` takes it and its key."""
    if isinstance(value, dict):
        return {name: each(below, change, (*key, str(name))) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [each(below, change, (*key, str(number))) for number, below in enumerate(value)]
    return change(value, key)


def _item(values: list[Any], part: str) -> Any:
    return values[int(part)] if part.isdecimal() and int(part) < len(values) else None
