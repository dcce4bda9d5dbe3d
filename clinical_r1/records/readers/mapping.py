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
from clinical_r1.records import values
from clinical_r1.records.config import Source, split_outside_quotes
from clinical_r1.records.readers.json_items import lists_in
from clinical_r1.records.row import Row, RowError
from clinical_r1.records.values import band_of_age, is_no_person, is_placeholder, number_key
from clinical_r1.references import split_references
from clinical_r1.text import main_language
from clinical_r1.verifier.names import same_disease

FIELDS = (
    "id", "language", "question", "reference", "references", "options", "specialty", "icd10", "source",
    "site", "sex", "age_band", "recorded", "patient", "department", "age", "birth_date", "name", "phone",
    "address", "identifier", "icd_version", "origin",
)  # fmt: skip
_LONGEST_NAME = 60
_REQUIRED = ("question", "reference")
_LETTERED = re.compile(r"^\s*[\[(（]?([A-Za-z])[\])）.．、:：]\s*(.+)$")
_Columns = dict[str, tuple[str, ...]]


@lru_cache(maxsize=512)
def columns_of(value: str) -> tuple[str, ...]:
    """`complaint+"Na+"` as the names of columns."""
    parts = [part.strip() for part in split_outside_quotes(value, "+")]
    return tuple(
        part[1:-1] if re.fullmatch(r"(['\"]).*\1", part, re.DOTALL) else re.sub(r"\\([,+=\\\"'])", r"\1", part)
        for part in parts
    )


def own_map(source: Source) -> bool:
    """Does the map name columns, and not only where the list lies?"""
    return bool(source.map.keys() - {"items"})


def check_map(source: Source) -> _Columns:
    """The map as field -> columns (without one, our own names); a UserError for unknown fields, or where question or
    reference is missing."""
    if not own_map(source):
        return {field: (field,) for field in FIELDS}
    unknown = sorted(set(source.map) - {*FIELDS, "items"})
    if unknown:
        raise UserError(f"{source.path}: the map names unknown fields {', '.join(unknown)}; known: {', '.join(FIELDS)}")
    missing = [field for field in _REQUIRED if field not in source.map]
    if missing and not ("references" in source.map and missing == ["reference"]):
        raise UserError(
            f"{source.path}: the map lacks {' and '.join(missing)}; give --map question=COLUMN,reference=COLUMN"
        )
    return {field: columns_of(columns) for field, columns in source.map.items() if field != "items"}


def mapped(item: dict[str, Any], source: Source) -> Row:
    """One table row or JSON object under `source.map`; RowError names the field that is wrong, never what it holds."""
    columns = check_map(source)
    lists = ("options", "references")
    cells = {field: _cells(item, names, field) for field, names in columns.items() if field not in lists}
    text = dict.fromkeys(FIELDS, "")
    for field, found in cells.items():
        # One column of several that says N/A adds nothing; a lone one is judged as a whole.
        text[field] = "\n".join(value for value in found if len(found) == 1 or not is_placeholder(value))
    references = _references(item, columns, text["reference"])
    if is_placeholder(text["question"]):
        raise RowError(f"question: empty ({'+'.join(columns['question'])})")
    choices = [_cell(item, column) for column in columns.get("options", ())]
    options = options_of(choices[0] if len(choices) == 1 else [choice for choice in choices if choice is not None])
    if not references:
        raise RowError(f"reference: empty ({'+'.join(columns.get('reference') or columns['references'])})")
    if options:
        references = [chosen_option(answer, options) for answer in references]
    language = values.language_of(text["language"])
    if text["language"] and not language:
        raise RowError("language: neither en nor zh")
    band = band_of_age(text["age_band"]) or band_of_age(text["age"])
    fields: dict[str, Any] = {
        "language": language or main_language(text["question"] + references[0]),
        "question": text["question"],
        "sex": values.sex_of(text["sex"]),
        "age_band": band or values.band_at(text["birth_date"], text["recorded"]),
        # One text may still be a list of diagnoses.
        "references": references if options or len(references) > 1 else split_references(references[0]),
    }
    if options:
        fields["options"] = list(options.values())
    stated = {field: text[field] for field in ("id", "specialty", "icd10", "source", "site")}
    # A code's zeros mean something (250.00); those of an id come from a column with gaps.
    fields |= {f: said if f == "icd10" else number_key(said) for f, said in stated.items() if not is_placeholder(said)}
    placed = (("origin", text["origin"]), ("recorded", values.iso_date(text["recorded"])))
    fields |= {field: said for field, said in placed if said}
    persons = {field: [value for value in found if not is_no_person(value)] for field, found in cells.items()}
    literal = ("phone", "address", "identifier", "birth_date")
    return Row(
        fields=fields,
        patient_id=values.patient_key(text["patient"]),
        department="" if is_placeholder(text["department"]) else text["department"],
        icd_version=text["icd_version"],
        known=Known(persons.get("name", []), [value for field in literal for value in persons.get(field, [])]),
    )


def _references(item: dict[str, Any], columns: _Columns, principal: str) -> list[str]:
    """The principal diagnosis first, each name once; a list in the cell is a list of diagnoses."""
    found: list[str] = []
    for field in ("references", "reference"):
        for value in (_listed(_cell(item, name)) for name in columns.get(field, ())):
            found += [text_of(part, field) for part in (value if isinstance(value, list) else [value])]
    if principal in found:  # a case of our own has both: the principal stays first
        found.insert(0, found.pop(found.index(principal)))
    return [name for name in dict.fromkeys(found) if not is_placeholder(name)]


def _listed(value: Any) -> Any:
    """A list as itself, also where it is a JSON list in a text cell."""
    if isinstance(value, str) and value.strip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def options_of(value: Any) -> dict[str, str]:
    """Choices by letter, of an object, a list (of texts or of key/value objects), JSON in a cell, or lettered lines."""
    value = _listed(value)
    if not value or isinstance(value, float):
        return {}
    if isinstance(value, str):
        lines = [match.groups() for line in re.split(r"\n|\|", value) if (match := _LETTERED.match(line))]
        if len(lines) < 2:
            raise RowError("options: neither a list, an object, nor lettered lines")
        return {letter.upper(): text.strip() for letter, text in lines}
    pairs: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        pairs = [(key, choice) for key, choice in value.items() if choice is not None]
    else:
        for index, choice in enumerate(value):
            named = {str(k).casefold(): v for k, v in choice.items()} if isinstance(choice, dict) else {"value": choice}
            letters = [named[key] for key in ("key", "label", "letter", "id", "option") if key in named]
            texts = [named[key] for key in ("value", "text", "content", "answer", "option") if key in named]
            pairs.append(((letters or [chr(65 + index)])[0], (texts or [None])[0]))
    found = {str(letter).strip(): text_of(choice, "options") for letter, choice in pairs}
    if not all(found.values()) or len(found) < 2:
        raise RowError("options: an empty choice, or fewer than two")
    return found


def chosen_option(answer: str, options: dict[str, str]) -> str:
    """The text of the option that a letter, the text or another name of it names; RowError where it names none."""
    answer = answer.strip()
    plain = answer.strip("()（）.．").casefold()
    if answer in options.values():
        return answer
    for letter, choice in options.items():
        if plain == letter.casefold() or answer.casefold() == choice.casefold():
            return choice
    lettered = _LETTERED.match(answer)
    if lettered and options.get(lettered[1].upper(), "").casefold() == lettered[2].strip().casefold():
        return options[lettered[1].upper()]
    same = [choice for choice in options.values() if same_disease(choice, answer)]
    if len(same) == 1:
        return same[0]
    raise RowError(f"answer: {'more than' if same else 'not'} one of the options")


def text_of(value: Any, field: str) -> str:
    """The value as a text; RowError names the field where it is none."""
    try:
        return values.as_text(value)
    except values.NotText as error:
        raise RowError(f"{field}: {error}") from None


def _cells(item: dict[str, Any], columns: tuple[str, ...], field: str) -> list[str]:
    return [value for column in columns if (value := text_of(_cell(item, column), field))]


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
    if max(map(len, told), default=0) > _LONGEST_NAME:  # the text of a record is not told
        held = f"{len(told)} cells of text in its first row; is the header missing?"
    key = next(iter(lists_in(item)), "")
    if own_map(source):
        for field, names in check_map(source).items():
            for name in names:
                if name not in item and name.split(".")[0] not in item:
                    hint = f'; a list lies under the key "{key}": add items={key}' if key else ""
                    raise UserError(f"{source.path}: --map {field}={name}: no such column; the file has {held}{hint}")
        return
    missing = [field for field in _REQUIRED if field not in item]
    if not missing or (missing == ["reference"] and "references" in item):
        return
    if key:
        raise UserError(
            f'{source.path}: no cases at the top; the list under the key "{key}" may hold them: give --map items={key}'
        )
    raise UserError(
        f"{source.path}: no column {' and '.join(missing)}; say which columns hold them with "
        f"--map question=COLUMN,reference=COLUMN (the file has {held})"
    )
