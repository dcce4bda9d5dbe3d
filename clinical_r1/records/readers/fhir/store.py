"""Resources of a whole export in a temporary database on disk, so that references resolve across files of any size.

Within a bundle a reference is looked up in the bundle first (`Patient/p1` of two hospitals are two people), then in the
whole source. Of several versions of a resource the newest counts.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from clinical_r1.errors import UserError
from clinical_r1.records.readers.fhir.concepts import each, terms
from clinical_r1.records.readers.files import DataFile, lines_of, open_text
from clinical_r1.records.readers.json_items import is_lines
from clinical_r1.records.row import Reject

Resource = dict[str, Any]


class Stored(NamedTuple):
    """A resource with its place in the source."""

    row: int
    doc: int
    """0: the resource stands alone (NDJSON); else its bundle."""
    body: Resource
    file: str
    line: int


def reference_keys(reference: Any, kind: str = "") -> list[str]:
    """Keys under which the target of a reference may be stored, likeliest first; `kind` where the reference names none.

    Relative, absolute, versioned (`/_history/2`), `urn:uuid:`, a bare id, and a conditional `Patient?identifier=...`.
    """
    text = str(reference.get("reference") or "") if isinstance(reference, dict) else str(reference or "")
    text = text.strip().split("/_history/")[0].rstrip("/")
    if isinstance(reference, dict) and not text and isinstance(reference.get("identifier"), dict):
        found, kind = reference["identifier"], str(reference.get("type") or kind)
        return [f"{kind}?identifier={found.get('system', '')}|{found.get('value', '')}".casefold()] if kind else []
    if not text or text.startswith("#"):
        return []
    if "?" in text:
        return [text.rsplit("/", 1)[-1].casefold()]
    lowered = text.casefold()
    if lowered.startswith("urn:"):
        return [lowered, f"{kind}/{lowered.rsplit(':', 1)[-1]}".casefold()] if kind else [lowered]
    parts = lowered.split("/")
    keys = ["/".join(parts[-2:])] if len(parts) > 1 else []
    return keys + ([f"{kind}/{parts[-1]}".casefold()] if kind else [])


class Store:
    """All resources of one source."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("")  # a private file that the system deletes, readable by us alone
        self._db.executescript(
            "CREATE TABLE res(row INTEGER PRIMARY KEY, doc INT, type TEXT, stamp TEXT, file TEXT, line INT, body TEXT,"
            " enc INT);"
            "CREATE TABLE name(key TEXT, doc INT, row INT);"
            "CREATE TABLE link(row INT, doc INT, keys TEXT);"
        )
        self.documents = 0
        """Resources and bundles that were met."""
        self._docs = 0
        self._rows = 0
        self._encounters = 0

    def add_file(self, file: DataFile) -> Iterator[Reject]:
        """Read a file; what is no resource comes back as rejects."""
        with self._db:
            for line, document, alone in _documents(file):
                if isinstance(document, Reject):
                    yield document
                    continue
                kind = document.get("resourceType") if isinstance(document, dict) else None
                if not isinstance(kind, str):
                    yield Reject(file=file.name, line=line, reason="resourceType: missing, no FHIR resource")
                    continue
                self.documents += 1
                if kind == "Bundle":
                    self._docs += 1
                    self._bundle(document, file.name, self._docs)
                else:
                    self._add(document, "", file.name, line if alone else None, 0)

    def _bundle(self, bundle: Resource, file: str, doc: int) -> None:
        for entry in each(bundle.get("entry")):
            if next(each(entry.get("request")), {}).get("method") == "DELETE":
                continue
            resource = entry.get("resource")
            if isinstance(resource, dict) and resource.get("resourceType") == "Bundle":
                self._bundle(resource, file, doc)
            elif isinstance(resource, dict):
                self._add(resource, str(entry.get("fullUrl") or ""), file, None, doc)

    def _add(self, resource: Resource, url: str, file: str, line: int | None, doc: int) -> None:
        kind = str(resource.get("resourceType"))
        self._rows += 1
        if kind == "Encounter":
            self._encounters = self._encounters + 1 if (file, doc) == getattr(self, "_in", None) or not doc else 1
            self._in = (file, doc)
            line = line or self._encounters
        meta = next(each(resource.get("meta")), {})
        stamp = f"{meta.get('lastUpdated') or ''!s}|{str(meta.get('versionId') or '').rjust(9, '0')}"
        body = (
            json.dumps(resource, ensure_ascii=True) if kind in terms("of_encounter") | terms("beside_encounter") else ""
        )
        row = (self._rows, doc, kind, stamp, file, line or 0, body)
        self._db.execute("INSERT INTO res(row, doc, type, stamp, file, line, body) VALUES (?,?,?,?,?,?,?)", row)
        self._db.executemany(
            "INSERT INTO name VALUES (?,?,?)", [(key, doc, self._rows) for key in _names(resource, kind, url)]
        )
        keys = encounter_keys(resource, kind)
        if keys:
            self._db.execute("INSERT INTO link VALUES (?,?,?)", (self._rows, doc, json.dumps(keys)))

    def finish(self) -> None:
        """Resolve which encounter each resource belongs to."""
        with self._db:
            self._db.execute("CREATE INDEX name_key ON name(key, doc)")
            # Of versions of one resource in one place the newest stays.
            self._db.execute(
                "DELETE FROM res WHERE row IN (SELECT n.row FROM name n JOIN name m ON m.key = n.key AND m.doc = n.doc "
                "AND m.row != n.row JOIN res a ON a.row = n.row JOIN res b ON b.row = m.row "
                "WHERE a.type = b.type AND (b.stamp > a.stamp OR (b.stamp = a.stamp AND b.row > a.row)))"
            )
            for row, doc, keys in self._db.execute("SELECT row, doc, keys FROM link").fetchall():
                self._db.execute(
                    "UPDATE res SET enc = ? WHERE row = ?", (self._find(json.loads(keys), doc, "Encounter"), row)
                )
            self._db.execute("CREATE INDEX res_enc ON res(enc)")
            self._db.execute("CREATE INDEX res_type ON res(type, doc)")

    def _find(self, keys: Iterable[str], doc: int, kind: str = "") -> int | None:
        for where in ("AND n.doc = :doc", ""):
            for key in keys:
                found = self._db.execute(
                    f"SELECT n.row FROM name n JOIN res r ON r.row = n.row WHERE n.key = :key {where} "
                    "AND (:kind = '' OR r.type = :kind) ORDER BY n.row LIMIT 1",
                    {"key": key, "doc": doc, "kind": kind},
                ).fetchone()
                if found:
                    return int(found[0])
        return None

    def resolve(self, reference: Any, doc: int, kind: str = "", within: Resource | None = None) -> Resource | None:
        """The resource that a reference names, contained ones among them; None for none in the source."""
        text = str(reference.get("reference") or "") if isinstance(reference, dict) else ""
        if text.startswith("#") and within is not None:
            inner = [r for r in within.get("contained") or [] if isinstance(r, dict) and r.get("id") == text[1:]]
            return inner[0] if inner else None
        row = self._find(reference_keys(reference, kind), doc, kind)
        return self._body(row) if row else None

    def _body(self, row: int) -> Resource | None:
        found = self._db.execute("SELECT body FROM res WHERE row = ?", (row,)).fetchone()
        return json.loads(found[0]) if found and found[0] else None

    def encounters(self) -> Iterator[Stored]:
        """All encounters, in the order of the files."""
        for row in self._db.execute("SELECT row FROM res WHERE type = 'Encounter' ORDER BY row").fetchall():
            yield self._stored(row[0])

    def _stored(self, row: int) -> Stored:
        found = self._db.execute("SELECT row, doc, body, file, line FROM res WHERE row = ?", (row,)).fetchone()
        return Stored(found[0], found[1], json.loads(found[2]), found[3], found[4])

    def linked(self, encounter: int) -> Iterator[tuple[str, Resource]]:
        """Type and body of all that names this encounter; an empty body for types that are only counted."""
        query = "SELECT type, body FROM res WHERE enc = ? ORDER BY row"
        for kind, body in self._db.execute(query, (encounter,)).fetchall():
            yield kind, json.loads(body) if body else {}

    def of_document(self, doc: int, kind: str) -> list[Resource]:
        """All resources of one type in one bundle; none for resources that stand alone."""
        if not doc:
            return []
        found = self._db.execute("SELECT body FROM res WHERE type = ? AND doc = ? ORDER BY row", (kind, doc)).fetchall()
        return [json.loads(body) for (body,) in found]

    def count(self, kind: str = "") -> int:
        """Resources of one type, or of all."""
        return int(self._db.execute("SELECT COUNT(*) FROM res WHERE ? IN ('', type)", (kind,)).fetchone()[0])

    def patient_names(self) -> list[str]:
        """Names of the first hundred patients."""
        query = "SELECT body FROM res WHERE type = 'Patient' ORDER BY row LIMIT 100"
        bodies = [json.loads(body) for (body,) in self._db.execute(query).fetchall()]
        texts = [
            name.get(key) for body in bodies for name in each(body.get("name")) for key in ("family", "given", "text")
        ]
        return [str(one) for text in texts for one in (text if isinstance(text, list) else [text]) if one]


def encounter_keys(resource: Resource, kind: str) -> list[str]:
    """Keys of the encounter that a resource says it belongs to (R4 `encounter` or `context`, R5 lists of either)."""
    if kind in ("Encounter", "Patient"):
        return []
    for key in ("encounter", "context"):
        value = resource.get(key)
        if isinstance(value, dict) and "encounter" in value:
            value = value["encounter"]
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and (keys := reference_keys(one, "Encounter")):
                return keys
    return []


def _names(resource: Resource, kind: str, url: str) -> list[str]:
    """Keys under which this resource can be referred to."""
    keys = [f"{kind}/{resource['id']}".casefold()] if resource.get("id") else []
    if url:
        keys += reference_keys(url, kind)
    for found in resource.get("identifier") or [] if kind in terms("beside_encounter") else []:
        if isinstance(found, dict) and found.get("value"):
            keys.append(f"{kind}?identifier={found.get('system', '')}|{found['value']}".casefold())
    return list(dict.fromkeys(keys))


def _documents(file: DataFile) -> Iterator[tuple[int, Any, bool]]:
    """JSON documents of a file with their number, and whether each stands alone on a line. Numbers stay as written."""
    if is_lines(file):
        for number, line in lines_of(file):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.removeprefix("\ufeff"), parse_float=str), True
            except (json.JSONDecodeError, RecursionError):
                yield number, Reject(file=file.name, line=number, reason="malformed JSON"), True
        return
    with open_text(file) as handle:
        text = handle.read().removeprefix("\ufeff")
    try:
        document = json.loads(text, parse_float=str)
    except json.JSONDecodeError as error:
        raise UserError(f"{file.name}:{error.lineno}: malformed JSON ({error.msg}); correct this line") from None
    for number, one in enumerate(document if isinstance(document, list) else [document], 1):
        yield number, one, False
