"""Resources of a whole export in a temporary database on disk, so that references resolve across files of any size.

Within a bundle a reference is looked up in the bundle first (`Patient/p1` of two hospitals are two people), then in the
whole source. Of several versions of a resource the newest counts.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.records.readers.fhir.terms import Resource, each, terms, texts
from clinical_r1.records.readers.files import DataFile, open_text
from clinical_r1.records.readers.json_items import fault_of, is_lines, line_values
from clinical_r1.records.row import Reject


def reference_keys(reference: Any, kind: str = "") -> list[str]:
    """Keys under which the target of a reference may be stored, likeliest first; `kind` where the reference names none.

    Relative, absolute, versioned (`/_history/2`), `urn:uuid:`, a bare id, and a conditional `Patient?identifier=...`.
    """
    text = str(reference.get("reference") or "") if isinstance(reference, dict) else str(reference or "")
    text = text.strip().split("/_history/")[0].rstrip("/")
    if isinstance(reference, dict) and not text and isinstance(reference.get("identifier"), dict):
        kind = str(reference.get("type") or kind)
        return [_identified(kind, reference["identifier"])] if kind else []
    if not text or text.startswith("#"):
        return []
    if "?" in text:
        return [text.rsplit("/", 1)[-1].casefold()]
    lowered = text.casefold()
    urn = lowered.startswith("urn:")
    parts = lowered.split(":" if urn else "/")
    keys = [lowered] if urn else ["/".join(parts[-2:])] if len(parts) > 1 else []
    return keys + ([f"{kind}/{parts[-1]}".casefold()] if kind else [])


def _identified(kind: str, identifier: Resource) -> str:
    return f"{kind}?identifier={identifier.get('system', '')}|{identifier.get('value', '')}".casefold()


class Store:
    """All resources of one source."""

    def __init__(self) -> None:
        self.db = sqlite3.connect("")  # a private file that the system deletes, readable by us alone
        self.db.executescript(
            """CREATE TABLE res(row INTEGER PRIMARY KEY, doc INT, type TEXT, stamp TEXT, file TEXT, line INT, body TEXT,
                                enc INT, keys TEXT);
            CREATE TABLE name(key TEXT, doc INT, row INT);"""
        )
        self.documents = 0
        """Resources and bundles that were met."""
        self._docs = 0
        self.last = 0
        """Number of the last encounter in its file or bundle; 0: none was met."""
        self._in = ("", 0)
        """File and bundle of that encounter."""

    def add_file(self, file: DataFile) -> Iterator[Reject]:
        """Read a file; what is no resource comes back as rejects."""
        with self.db:
            for line, document, alone in _documents(file):
                if isinstance(document, Reject):
                    yield document
                    continue
                kind = document.get("resourceType") if isinstance(document, dict) else None
                if not isinstance(kind, str):
                    yield Reject(file=file.name, line=line, reason="resourceType: missing, no FHIR resource")
                    continue
                self.documents += 1
                self._docs += kind == "Bundle"
                self._add(document, "", file.name, line if alone else 0, self._docs if kind == "Bundle" else 0)

    def _add(self, resource: Resource, url: str, file: str, line: int, doc: int) -> None:
        kind = str(resource.get("resourceType"))
        if kind == "Bundle":
            for entry in each(resource.get("entry")):
                inner, deleted = entry.get("resource"), next(each(entry.get("request")), {}).get("method") == "DELETE"
                if isinstance(inner, dict) and not deleted:
                    self._add(inner, str(entry.get("fullUrl") or ""), file, 0, doc)
            return
        if kind == "Encounter":
            self.last = self.last + 1 if (file, doc) == self._in or not doc else 1
            self._in = (file, doc)
            line = line or self.last
        meta = next(each(resource.get("meta")), {})
        stamp = f"{meta.get('lastUpdated') or ''!s}|{str(meta.get('versionId') or '').rjust(9, '0')}"
        is_read = kind in terms("of_encounter") | terms("beside_encounter")
        body = json.dumps(resource, ensure_ascii=True) if is_read else ""
        keys = _encounter_keys(resource) if kind not in ("Encounter", "Patient") else []
        values = (doc, kind, stamp, file, line, body, json.dumps(keys) if keys else None)
        insert = "INSERT INTO res(doc, type, stamp, file, line, body, keys) VALUES (?,?,?,?,?,?,?)"
        added = self.db.execute(insert, values)
        names = [(key, doc, added.lastrowid) for key in _names(resource, kind, url)]
        self.db.executemany("INSERT INTO name VALUES (?,?,?)", names)

    def finish(self) -> None:
        """Resolve which encounter each resource belongs to."""
        with self.db:
            self.db.execute("CREATE INDEX name_key ON name(key, doc)")
            # Of versions of one resource in one place the newest stays.
            self.db.execute(
                "DELETE FROM res WHERE row IN (SELECT n.row FROM name n JOIN name m ON m.key = n.key AND m.doc = n.doc "
                "AND m.row != n.row JOIN res a ON a.row = n.row JOIN res b ON b.row = m.row "
                "WHERE a.type = b.type AND (b.stamp > a.stamp OR (b.stamp = a.stamp AND b.row > a.row)))"
            )
            for row, doc, keys in self.db.execute("SELECT row, doc, keys FROM res WHERE keys IS NOT NULL").fetchall():
                encounter = self.find(json.loads(keys), doc, "Encounter")
                self.db.execute("UPDATE res SET enc = ? WHERE row = ?", (encounter, row))
            self.db.execute("CREATE INDEX res_enc ON res(enc)")
            self.db.execute("CREATE INDEX res_type ON res(type, doc)")

    def find(self, keys: Iterable[str], doc: int, kind: str = "") -> int | None:
        """Row of the first resource under one of these keys, in its own bundle before the whole source."""
        for where in ("AND n.doc = :doc", ""):
            for key in keys:
                found = self.db.execute(
                    f"SELECT n.row FROM name n JOIN res r ON r.row = n.row WHERE n.key = :key {where} "
                    "AND (:kind = '' OR r.type = :kind) ORDER BY n.row LIMIT 1",
                    {"key": key, "doc": doc, "kind": kind},
                ).fetchone()
                if found:
                    return int(found[0])
        return None

    def encounters(self) -> Iterator["Visit"]:
        """All encounters, in the order of the files."""
        query = "SELECT row, doc, body, file, line FROM res WHERE type = 'Encounter' ORDER BY row"
        for row, doc, body, file, line in self.db.execute(query):
            yield Visit(self, row, doc, json.loads(body), file, line)

    def patient_names(self) -> list[str]:
        """Names of the first hundred patients."""
        query = "SELECT body FROM res WHERE type = 'Patient' ORDER BY row LIMIT 100"
        bodies = [json.loads(body) for (body,) in self.db.execute(query)]
        names = [name for body in bodies for name in each(body.get("name"))]
        return [text for name in names for key in ("family", "given", "text") for text in texts(name.get(key))]


@dataclass
class Visit:
    """An encounter with its place in the source, and what can be looked up from it."""

    store: Store
    row: int
    doc: int
    """0: the resource stands alone (NDJSON); else its bundle."""
    body: Resource
    file: str
    line: int
    lost: Counter[str] = field(default_factory=Counter)
    """What the record has and the case does not, by kind."""

    def resolve(self, reference: Any, kind: str = "", within: Resource | None = None) -> Resource | None:
        """The resource that a reference names, contained ones among them; None for none in the source."""
        text = str(reference.get("reference") or "") if isinstance(reference, dict) else ""
        if text.startswith("#") and within is not None:
            return next((inner for inner in each(within.get("contained")) if inner.get("id") == text[1:]), None)
        row = self.store.find(reference_keys(reference, kind), self.doc, kind)
        found = self.store.db.execute("SELECT body FROM res WHERE row = ?", (row,)).fetchone()
        return json.loads(found[0]) if found and found[0] else None

    def linked(self) -> list[tuple[str, Resource]]:
        """Type and body of all that names this encounter; an empty body for types that are only counted."""
        found = self.store.db.execute("SELECT type, body FROM res WHERE enc = ? ORDER BY row", (self.row,))
        return [(kind, json.loads(body) if body else {}) for kind, body in found]

    def beside(self, kind: str) -> list[Resource]:
        """All resources of one type in the same bundle; none for resources that stand alone."""
        query = "SELECT body FROM res WHERE type = ? AND doc = ? ORDER BY row"
        return [json.loads(body) for (body,) in self.store.db.execute(query, (kind, self.doc or -1))]


def _encounter_keys(resource: Resource) -> list[str]:
    """Keys of the encounter that a resource says it belongs to (R4 `encounter` or `context`, R5 lists of either)."""
    for key in ("encounter", "context"):
        value = resource.get(key)
        if isinstance(value, dict) and "encounter" in value:
            value = value["encounter"]
        for one in each(value):
            if keys := reference_keys(one, "Encounter"):
                return keys
    return []


def _names(resource: Resource, kind: str, url: str) -> list[str]:
    """Keys under which this resource can be referred to."""
    keys = [f"{kind}/{resource['id']}".casefold()] if resource.get("id") else []
    keys += reference_keys(url, kind)
    if kind in terms("beside_encounter"):
        keys += [_identified(kind, found) for found in each(resource.get("identifier")) if found.get("value")]
    return list(dict.fromkeys(keys))


def _documents(file: DataFile) -> Iterator[tuple[int, Any, bool]]:
    """JSON documents of a file with their number, and whether each stands alone on a line. Numbers stay as written."""
    decode = json.JSONDecoder(parse_float=str).decode
    if is_lines(file):
        yield from ((number, value, True) for number, value in line_values(file, decode=decode))
        return
    with open_text(file) as handle:
        text = handle.read().removeprefix("\ufeff")
    try:
        document = decode(text)
    except (ValueError, RecursionError) as error:
        place = f"{file.name}:{getattr(error, 'lineno', 1)}"
        raise UserError(f"{place}: malformed JSON ({fault_of(error)}); correct this line") from None
    for number, one in enumerate(document if isinstance(document, list) else [document], 1):
        yield number, one, False
