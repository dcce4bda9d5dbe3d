"""Notes of documents and reports as text: plain, HTML, RTF and CDA, inline or in a Binary, in any charset."""

import base64
import binascii
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

from clinical_r1.records.readers.encodings import find_encoding
from clinical_r1.records.readers.fhir.concepts import each, table
from clinical_r1.records.readers.fhir.findings import stands
from clinical_r1.records.readers.fhir.store import Resource, Store

_BLOCKS = frozenset({
    "p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5",
    "h6", "table", "ul", "ol", "section", "article", "header", "footer", "title", "paragraph", "item",
})  # fmt: skip
_CELLS = frozenset({"td", "th"})
_UNSEEN = frozenset({"script", "style", "head", "template"})
_META_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)|<\?xml[^>]+encoding=[\"']([\w-]+)", re.IGNORECASE)


def notes_of(document: Resource, store: Store, doc: int, lost: Counter[str]) -> list[str]:
    """The text of a DocumentReference: of several renderings of one note, the plainest that can be read."""
    if not stands(document, lost, "DocumentReference") or not _settled(document, lost):
        return []
    attachments = [a for content in each(document.get("content")) for a in each(content.get("attachment"))]
    return _best(attachments, store, doc, lost, document)


def report_notes(report: Resource, store: Store, doc: int, lost: Counter[str]) -> list[str]:
    """Conclusion and presented forms of a DiagnosticReport whose status has been checked."""
    conclusion = str(report.get("conclusion") or "").strip()
    forms = list(each(report.get("presentedForm")))
    return ([conclusion] if conclusion else []) + (_best(forms, store, doc, lost, report) if forms else [])


def composition_notes(composition: Resource, lost: Counter[str]) -> list[str]:
    """Sections of a FHIR document, each under its title."""
    if not stands(composition, lost, "Composition"):
        return []
    found: list[str] = []

    def walk(sections: Any) -> None:
        for section in each(sections):
            text = html_text(str((section.get("text") or {}).get("div") or ""))
            title = str(section.get("title") or "").strip()
            if text:
                found.append(f"{title}: {text}" if title and not text.startswith(title) else text)
            walk(section.get("section"))

    walk(composition.get("section"))
    return found


def _settled(document: Resource, lost: Counter[str]) -> bool:
    status = str(document.get("docStatus") or "final").casefold()
    if status in ("final", "amended", "corrected", "appended"):
        return True
    lost[
        f"DocumentReference ({status if status in ('preliminary', 'entered-in-error', 'cancelled') else 'not final'})"
    ] += 1
    return False


def _best(attachments: list[Resource], store: Store, doc: int, lost: Counter[str], within: Resource) -> list[str]:
    known = table()["text_types"]

    def order(attachment: Resource) -> int:
        kind = _media_type(attachment)
        return known.index(kind) if kind in known else len(known)

    reasons: list[str] = []
    for attachment in sorted(attachments, key=order):
        text, reason = attachment_text(attachment, store, doc, within)
        if text:
            return [text]
        reasons.append(reason)
    for reason in reasons or ["without an attachment"]:
        lost[f"note ({reason})"] += 1
    return []


def _media_type(attachment: Resource) -> str:
    return str(attachment.get("contentType") or "").split(";")[0].strip().casefold()


def attachment_text(attachment: Resource, store: Store, doc: int, within: Resource) -> tuple[str, str]:
    """The attachment's text, or why there is none."""
    data, kind = attachment.get("data"), str(attachment.get("contentType") or "")
    if not data and (url := attachment.get("url")):
        binary = store.resolve({"reference": str(url)}, doc, "Binary", within)
        if binary is None:
            return "", "at an address that the source does not hold"
        data, kind = binary.get("data"), kind or str(binary.get("contentType") or "")
    if not data:
        return "", "empty"
    try:
        raw = base64.b64decode(re.sub(r"\s+", "", str(data)).replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        return "", "not base64"
    return document_text(raw, kind)


def document_text(raw: bytes, content_type: str) -> tuple[str, str]:
    """Text of a note's bytes, or why there is none."""
    kind = content_type.split(";")[0].strip().casefold()
    if raw.startswith((b"%PDF", b"\x89PNG", b"\xff\xd8", b"PK\x03\x04", b"\xd0\xcf")) or (
        kind
        and kind not in table()["text_types"]
        and not kind.startswith("text/")
        and kind != "application/octet-stream"
    ):
        return "", f"in {kind or 'a form that is no text'}"
    stated = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
    inside = _META_CHARSET.search(raw[:2048])
    names = [stated[1] if stated else "", (inside[1] or inside[2]).decode() if inside else "", find_encoding(raw)]
    text = next((found for name in names if name and (found := _decoded(raw, name)) is not None), None)
    if text is None:
        return "", "in an unknown encoding"
    head = text.lstrip("\ufeff \r\n\t")[:200].casefold()
    if head.startswith("{\\rtf"):
        from striprtf.striprtf import rtf_to_text

        text = rtf_to_text(raw.decode("latin-1"), errors="ignore")
    elif (
        "html" in kind
        or "xml" in kind
        or head.startswith(("<!doctype html", "<html", "<?xml", "<div", "<p>", "<clinicaldocument"))
    ):
        text = html_text(text)
    text = text.replace("\r\n", "\n").strip("\ufeff \n\t")
    return (text, "") if text else ("", "empty")


def _decoded(raw: bytes, name: str) -> str | None:
    try:
        return raw.decode({"gb2312": "gb18030", "gbk": "gb18030"}.get(name.casefold(), name))
    except (LookupError, UnicodeDecodeError):
        return None


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in _UNSEEN
        self.parts.append("\n" if tag in _BLOCKS else "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append("\n" if tag in _BLOCKS else "")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in _UNSEEN))
        self.parts.append("\n" if tag in _BLOCKS else "\t" if tag in _CELLS else "")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def html_text(markup: str) -> str:
    """The text of HTML (or CDA) as lines; cells of a table stand side by side."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    lines = (re.sub(r"[ \u00a0\r\t]+", " ", line).strip() for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)
