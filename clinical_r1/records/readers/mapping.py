"""From a table row or JSON object to a `Row`, by a map from our fields to columns:
`question=complaint+history,reference=dx`.

Columns of structured identifiers go to the gate's memory and nowhere else: map them to `name`, `patient`, `phone`,
`address` or `identifier` (several joined with `+`), and their values are removed from the text wherever they stand.
A column whose name holds a comma, `+` or `=` is quoted: `question="complaint, history"+"Na+"`.
"""

import json
import re
from functools import lru_cache
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.privacy.known import Known
from clinical_r1.records.ages import band_at, band_of_age
from clinical_r1.records.config import Source, split_outside_quotes
from clinical_r1.records.readers.json_items import lists_in
from clinical_r1.records.row import Row, RowError
from clinical_r1.records.values import (
    NotText,
    as_text,
    is_no_person,
    is_placeholder,
    iso_date,
    known_text,
    language_of,
    number_key,
    patient_key,
    sex_of,
)
from clinical_r1.references import split_references
from clinical_r1.text import main_language
from clinical_r1.verifier.names import same_disease

TEXTS = ("id", "specialty", "icd10", "source", "site")
FIELDS = (
    "id", "language", "question", "reference", "references", "options", "specialty", "icd10", "source",
    "site", "sex", "age_band", "recorded", "patient", "department", "age", "birth_date", "name", "phone",
    "address", "identifier", "icd_version", "origin",
)  # fmt: skip
_LONGEST_NAME = 60
_REQUIRED = ("question", "reference")
_LETTERED = re.compile(r"^\s*[\[(（]?([A-Za-z])[\])）.．、:：]\s*(.+)$")


@lru_cache(maxsize=512)
def columns_of(value: str) -> tuple[str, ...]:
    """`complaint+"Na+"` as the names of columns."""
    return tuple(_unquoted(part) for part in split_outside_quotes(value, "+"))


def _unquoted(part: str) -> str:
    part = part.strip()
    if len(part) >= 2 and part[0] == part[-1] and part[0] in "\"'":
        return part[1:-1]
    return re.sub(r"\\([,+=\\\"'])", r"\1", part)


def check_map(source: Source) -> dict[str, tuple[str, ...]]:
    """The map as field -> columns (without one, our own names); a UserError for unknown fields, or where question or
    reference is missing."""
    if not own_map(source):
        return {field: (field,) for field in FIELDS}
    unknown = sorted(set(source.map) - {*FIELDS, "items"})
    if unknown:
        raise UserError(f"{source.path}: the map names unknown fields {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    missing = [field for field in _REQUIRED if field not in source.map]
    if "references" in source.map and missing == ["reference"]:
        missing = []
    if missing:
        raise UserError(
            f"{source.path}: the map lacks {' and '.join(missing)}; give --map question=COLUMN,reference=COLUMN"
        )
    return {field: columns_of(columns) for field, columns in source.map.items() if field != "items"}


def own_map(source: Source) -> bool:
    """Does the map name columns, and not only where the list lies?"""
    return bool(set(source.map) - {"items"})


def mapped(item: dict[str, Any], source: Source) -> Row:
    """One table row or JSON object under `source.map`; RowError names the field that is wrong, never what it holds."""
    columns = check_map(source)
    text = {
        field: _join(item, names, field) for field, names in columns.items() if field not in ("options", "references")
    }
    references = _references(item, columns, text)
    question = text.get("question", "")
    if is_placeholder(question):
        raise RowError(f"question: empty ({'+'.join(columns['question'])})")
    options = options_of(_first(item, columns.get("options", ())))
    if not references:
        raise RowError(f"reference: empty ({'+'.join(columns.get('reference') or columns['references'])})")
    if options:
        references = [chosen_option(answer, options) for answer in references]
    language = language_of(text.get("language", "")) or main_language(question + references[0])
    if text.get("language") and not language_of(text["language"]):
        raise RowError("language: neither en nor zh")
    fields: dict[str, Any] = {
        "language": language,
        "question": question,
        "sex": sex_of(text.get("sex", "")),
        "age_band": _band(text),
    }
    # One text may still be a list of diagnoses.
    fields["references"] = references if options or len(references) > 1 else split_references(references[0])
    if options:
        fields["options"] = list(options.values())
    # A code's zeros mean something (250.00); those of an id come from a column with gaps.
    fields |= {
        f: text[f] if f == "icd10" else number_key(text[f])
        for f in TEXTS
        if text.get(f) and not is_placeholder(text[f])
    }
    fields |= {f: text[f] for f in ("origin",) if text.get(f)}
    if recorded := iso_date(text.get("recorded", "")):
        fields["recorded"] = recorded
    literal = ("phone", "address", "identifier", "birth_date")
    known = Known(
        names=[v for v in _values(item, columns.get("name", ()), "name") if not is_no_person(v)],
        numbers=[v for f in literal for v in _values(item, columns.get(f, ()), f) if not is_no_person(v)],
    )
    return Row(
        fields=fields,
        patient_id=patient_key(text.get("patient", "")),
        department=known_text(text.get("department", "")),
        icd_version=text.get("icd_version", ""),
        known=known,
    )


def _references(item: dict[str, Any], columns: dict[str, tuple[str, ...]], text: dict[str, str]) -> list[str]:
    """The principal diagnosis first, each name once; a list in the cell is a list of diagnoses."""
    found: list[str] = []
    for field in ("references", "reference"):
        for value in (_listed(_cell(item, name)) for name in columns.get(field, ())):
            found += [_text(part, field) for part in (value if isinstance(value, list) else [value])]
    if text.get("reference") in found:  # a case of our own has both: the principal stays first
        found.insert(0, found.pop(found.index(text["reference"])))
    return [name for name in dict.fromkeys(found) if not is_placeholder(name)]


def _listed(value: Any) -> Any:
    """A list as itself, also where it is a JSON list in a text cell; numpy arrays are lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def options_of(value: Any) -> dict[str, str]:
    """Choices by letter, of an object, a list (of texts or of key/value objects), JSON in a cell, or lettered lines."""
    value = _listed(value)
    if not value or (isinstance(value, float)):
        return {}
    if isinstance(value, str):
        lines = [match.groups() for line in re.split(r"\n|\|", value) if (match := _LETTERED.match(line))]
        if len(lines) < 2:
            raise RowError("options: neither a list, an object, nor lettered lines")
        return {letter.upper(): text.strip() for letter, text in lines}
    pairs: list[tuple[str, Any]] = []
    if isinstance(value, dict):
        pairs = [(str(key), choice) for key, choice in value.items() if choice is not None]
    else:
        for index, choice in enumerate(value):
            letter = chr(65 + index)
            if isinstance(choice, dict):
                values = {str(k).casefold(): v for k, v in choice.items()}
                letter = str(
                    next((values[k] for k in ("key", "label", "letter", "id", "option") if k in values), letter)
                )
                choice = next(
                    (values[k] for k in ("value", "text", "content", "answer", "option") if k in values), None
                )
            pairs.append((letter, choice))
    found = {letter.strip(): _text(choice, "options") for letter, choice in pairs}
    if any(not choice for choice in found.values()) or len(found) < 2:
        raise RowError("options: an empty choice, or fewer than two")
    return found


def chosen_option(answer: str, options: dict[str, str]) -> str:
    """The text of the option that a letter, the text or another name of it names; RowError where it names none."""
    plain = answer.strip().strip("()（）.．")
    if answer.strip() in options.values():
        return answer.strip()
    for letter, choice in options.items():
        if plain.casefold() == letter.casefold() or answer.strip().casefold() == choice.casefold():
            return choice
    lettered = _LETTERED.match(answer)
    if lettered and options.get(lettered[1].upper(), "").casefold() == lettered[2].strip().casefold():
        return options[lettered[1].upper()]
    same = [choice for choice in options.values() if same_disease(choice, answer)]
    if len(same) == 1:
        return same[0]
    raise RowError(f"answer: {'more than' if same else 'not'} one of the options")


def _band(text: dict[str, str]) -> str:
    band = band_of_age(text.get("age_band", "")) or band_of_age(text.get("age", ""))
    return band or (band_at(text.get("birth_date", ""), text.get("recorded", "")) if text.get("birth_date") else "")


def _values(item: dict[str, Any], columns: tuple[str, ...], field: str) -> list[str]:
    return [value for column in columns if (value := _text(_cell(item, column), field))]


def _join(item: dict[str, Any], columns: tuple[str, ...], field: str) -> str:
    values = _values(item, columns, field)
    # One column of several that says N/A adds nothing; a lone one is judged as a whole.
    return "\n".join(value for value in values if len(values) == 1 or not is_placeholder(value))


def _text(value: Any, field: str) -> str:
    try:
        return as_text(value.tolist() if hasattr(value, "tolist") else value)
    except NotText as error:
        raise RowError(f"{field}: {error}") from None


def _first(item: dict[str, Any], columns: tuple[str, ...]) -> Any:
    """The value of one column, or the values of several as a list."""
    values = [_cell(item, column) for column in columns]
    return values[0] if len(values) == 1 else [value for value in values if value is not None]


def _cell(item: dict[str, Any], column: str) -> Any:
    """What lies under a column or a dotted path (numbers index lists); None for nothing."""
    if column in item or "." not in column:
        return item.get(column)
    value: Any = item
    for part in column.split("."):
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list):
            if part.lstrip("-").isdigit():
                value = value[int(part)] if -len(value) <= int(part) < len(value) else None
            else:
                value = [inner.get(part) for inner in value if isinstance(inner, dict)]
        else:
            return None
    return value


def check_columns(source: Source, item: dict[str, Any]) -> None:
    """A mapped column that the first rows lack is a mistake in the map, not in the rows."""
    told = list(item)[:20]
    held = ", ".join(told) or "no columns"
    if any(len(name) > _LONGEST_NAME for name in told):  # the text of a record is not told
        held = f"{len(told)} cells of text in its first row; is the header missing?"
    wrapped = lists_in(item)
    if not own_map(source):
        missing = [
            field for field in _REQUIRED if field not in item and not (field == "reference" and "references" in item)
        ]
        if missing and wrapped:
            raise UserError(
                f'{source.path}: no cases at the top; the list under the key "{wrapped[0]}" may hold them: '
                f"give --map items={wrapped[0]}"
            )
        if missing:
            raise UserError(
                f"{source.path}: no column {' and '.join(missing)}; say which columns hold them with "
                f"--map question=COLUMN,reference=COLUMN (the file has {held})"
            )
        return
    for field, names in check_map(source).items():
        for name in names:
            if name not in item and name.split(".")[0] not in item:
                hint = f'; a list lies under the key "{wrapped[0]}": add items={wrapped[0]}' if wrapped else ""
                raise UserError(f"{source.path}: --map {field}={name}: no such column; the file has {held}{hint}")
