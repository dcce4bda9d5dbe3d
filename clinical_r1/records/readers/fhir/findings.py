"""What was found and written, as text: observations, medicines, allergies, notes. Values stand as they were written;
nothing unread is silent.

Observation obs-7: a value or components, https://hl7.org/fhir/R4/observation.html. Notes are plain, HTML, RTF and CDA,
inline or in a Binary, in any charset.
"""

import base64
import re
from contextlib import suppress
from html.parser import HTMLParser
from typing import Any

from clinical_r1.records.readers.fhir.store import Visit
from clinical_r1.records.readers.fhir.terms import Resource, codings, concept_text, each, table, terms, words
from clinical_r1.records.readers.files import find_encoding
from clinical_r1.records.values import as_text, word_lists


def stands(resource: Resource, visit: Visit, kind: str) -> bool:
    """Is its status (missing: assumed) one in which it may be believed? Counts it by its status otherwise."""
    status = words(resource.get("status") or [])
    if status <= terms("standing"):
        return True
    visit.lost[f"{kind} ({_told(status)})"] += 1
    return False


def _told(status: set[str]) -> str:
    return next((name for name in table()["not_standing"] if name in status), "of a status that is not read")


def observation(resource: Resource, language: str, visit: Visit) -> str:
    """`name value unit (interpretation; reference range)`, with components after it; "" for one that says nothing."""
    if not stands(resource, visit, "Observation"):
        return ""
    name = concept_text(resource.get("code"))
    if not name:
        visit.lost["Observation (without a name)"] += 1
        return ""
    if site := concept_text(resource.get("bodySite")):
        name += f" ({site})"
    value = _value(resource, language)
    parts = [value] if value else []
    for component in each(resource.get("component")):
        inner, said = concept_text(component.get("code")), _value(component, language)
        if inner and said:
            parts.append(f"{inner} {said}{_aside(component)}")
        else:
            visit.lost["Observation.component (without a value)"] += 1
    if not parts:
        visit.lost["Observation (without a value)"] += not resource.get("hasMember")
        return ""
    note = "; ".join(filter(None, (_plain(n.get("text")) for n in each(resource.get("note")))))
    colon = ":" if resource.get("component") and not value else ""
    return f"{name}{colon} {', '.join(parts)}{_aside(resource)}" + (f" [{note}]" if note else "")


def _aside(resource: Resource) -> str:
    """Interpretation and reference range, in brackets."""
    letters, said = table()["interpretations"], []
    for one in each(resource.get("interpretation")):
        coded = [letters.get(str(c.get("code")).upper()) for c in codings(one)]
        said.append(concept_text(one) or next(filter(None, coded), ""))
    for one in each(resource.get("referenceRange")):
        text = _plain(one.get("text")) or _range(one)
        said.append(f"reference {text}" if text else "")
    return f" ({'; '.join(filter(None, said))})" if any(said) else ""


def _value(resource: Resource, language: str) -> str:
    """The `value[x]` of an observation or component, of any type, as written; "" for none."""
    given = [(k[5:], v) for k, v in resource.items() if k.startswith("value") and len(k) > 5 and v is not None]
    if not given:
        return ""
    kind, value = given[0]
    if kind == "Boolean":
        yes_no = word_lists()["phrases"][language]
        return {"true": yes_no["yes"], "false": yes_no["no"]}.get(str(value).casefold(), "")
    if kind in ("Quantity", "SimpleQuantity", "Age", "Count", "Distance", "Duration", "Money"):
        return _quantity(value)
    if kind == "CodeableConcept":
        return concept_text(value) or next((str(c["code"]) for c in codings(value) if c.get("code")), "")
    if kind == "Range":
        return _range(value)
    if kind == "Ratio":
        top, bottom = (value.get(part) or {} for part in ("numerator", "denominator"))
        mark = ":" if not (top.get("unit") or bottom.get("unit")) else " / "
        return f"{_quantity(top)}{mark}{_quantity(bottom)}" if _quantity(top) and _quantity(bottom) else ""
    if kind == "Period":
        return " to ".join(filter(None, (_plain(value.get("start")), _plain(value.get("end")))))
    # A curve is no text; it is counted as an observation without a value.
    return "" if kind == "SampledData" else _plain(value)


def _plain(value: Any) -> str:
    return "" if isinstance(value, dict | list) else as_text(value)


def _quantity(value: Any) -> str:
    """`<0.01 ng/mL`: comparator, number and unit as written."""
    if not isinstance(value, dict) or value.get("value") is None:
        return ""
    unit = _plain(value.get("unit")) or _plain(value.get("code"))
    number = f"{_plain(value.get('comparator'))}{_plain(value['value'])}"
    return f"{number}{'' if unit in ('%', '') else ' '}{'' if unit in ('1', '{score}') else unit}".strip()


def _range(value: dict[str, Any]) -> str:
    low, high = value.get("low") or {}, value.get("high") or {}
    if _quantity(low) and _quantity(high):
        same = low.get("unit") == high.get("unit") or not low.get("unit")
        return f"{_plain(low['value']) if same else _quantity(low)}-{_quantity(high)}"
    return f">={_quantity(low)}" if _quantity(low) else f"<={_quantity(high)}" if _quantity(high) else ""


def medication(resource: Resource, visit: Visit) -> str:
    """The medicine of a statement with its dosage as text; "" for one that is not taken."""
    if not stands(resource, visit, "MedicationStatement"):
        return ""
    target = resource.get("medicationReference") or (resource.get("medication") or {}).get("reference")
    name = concept_text(resource.get("medicationCodeableConcept")) or concept_text(resource.get("medication"))
    if not name and target:
        found = visit.resolve(target, "Medication", resource) or {}
        display = target.get("display") if isinstance(target, dict) else ""
        name = concept_text(found.get("code")) or _plain(display)
    if not name:
        visit.lost["MedicationStatement (without a name)"] += 1
        return ""
    return " ".join(filter(None, (name, *(_plain(one.get("text")) for one in each(resource.get("dosage"))))))


def allergy(resource: Resource, visit: Visit) -> str:
    """What the patient is allergic to, with the reactions; a mark where it is not confirmed."""
    status = words(resource.get("verificationStatus") or []) | words(resource.get("status") or [])
    if status & {"refuted", "entered-in-error"}:
        visit.lost[f"AllergyIntolerance ({_told(status)})"] += 1
        return ""
    name = concept_text(resource.get("code")) or concept_text(resource.get("substance"))
    if not name:
        visit.lost["AllergyIntolerance (without a name)"] += 1
        return ""
    said = [concept_text(m) for reaction in each(resource.get("reaction")) for m in each(reaction.get("manifestation"))]
    said = list(filter(None, (*said, "unconfirmed" if "unconfirmed" in status else "")))
    return f"{name} ({', '.join(said)})" if said else name


def notes_of(document: Resource, visit: Visit) -> list[str]:
    """The text of a DocumentReference: of several renderings of one note, the plainest that can be read."""
    if not stands(document, visit, "DocumentReference"):
        return []
    status = str(document.get("docStatus") or "final").casefold()
    if status not in ("final", "amended", "corrected", "appended"):
        known = status in ("preliminary", "entered-in-error", "cancelled")
        visit.lost[f"DocumentReference ({status if known else 'not final'})"] += 1
        return []
    attached = [one for content in each(document.get("content")) for one in each(content.get("attachment"))]
    return _plainest(attached, visit, document)


def report_notes(report: Resource, visit: Visit) -> list[str]:
    """Conclusion and presented forms of a DiagnosticReport whose status has been checked."""
    conclusion = str(report.get("conclusion") or "").strip()
    forms = list(each(report.get("presentedForm")))
    return ([conclusion] if conclusion else []) + (_plainest(forms, visit, report) if forms else [])


def composition_notes(composition: Resource, visit: Visit) -> list[str]:
    """Sections of a FHIR document, each under its title."""
    return _sections(composition.get("section")) if stands(composition, visit, "Composition") else []


def _sections(sections: Any) -> list[str]:
    found: list[str] = []
    for section in each(sections):
        text = _html_text(str((section.get("text") or {}).get("div") or ""))
        title = str(section.get("title") or "").strip()
        if text:
            found.append(f"{title}: {text}" if title and not text.startswith(title) else text)
        found += _sections(section.get("section"))
    return found


def _plainest(attachments: list[Resource], visit: Visit, within: Resource) -> list[str]:
    rank = {kind: number for number, kind in enumerate(table()["text_types"])}
    reasons: list[str] = []
    for attachment in sorted(attachments, key=lambda one: rank.get(_media_type(one.get("contentType")), len(rank))):
        text, reason = _attached(attachment, visit, within)
        if text:
            return [text]
        reasons.append(reason)
    visit.lost.update(f"note ({reason})" for reason in reasons or ["without an attachment"])
    return []


def _media_type(stated: Any) -> str:
    return str(stated or "").split(";")[0].strip().casefold()


def _attached(attachment: Resource, visit: Visit, within: Resource) -> tuple[str, str]:
    """The attachment's text, or why there is none."""
    data, kind = attachment.get("data"), str(attachment.get("contentType") or "")
    if not data and (url := attachment.get("url")):
        binary = visit.resolve({"reference": str(url)}, "Binary", within)
        if binary is None:
            return "", "at an address that the source does not hold"
        data, kind = binary.get("data"), kind or str(binary.get("contentType") or "")
    if not data:
        return "", "empty"
    try:
        raw = base64.b64decode(re.sub(r"\s+", "", str(data)).replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return "", "not base64"
    return _document_text(raw, kind)


_META_CHARSET = re.compile(rb"<meta[^>]+charset=[\"']?([\w-]+)|<\?xml[^>]+encoding=[\"']([\w-]+)", re.IGNORECASE)
_NO_TEXT = (b"%PDF", b"\x89PNG", b"\xff\xd8", b"PK\x03\x04", b"\xd0\xcf")
_MARKUP = ("<!doctype html", "<html", "<?xml", "<div", "<p>", "<clinicaldocument")


def _document_text(raw: bytes, content_type: str) -> tuple[str, str]:
    """Text of a note's bytes, or why there is none."""
    kind = _media_type(content_type)
    is_text = kind in ("", "application/octet-stream", *table()["text_types"]) or kind.startswith("text/")
    if raw.startswith(_NO_TEXT) or not is_text:
        return "", f"in {kind or 'a form that is no text'}"
    stated = re.search(r"charset=\"?([\w.:-]+)", content_type, re.IGNORECASE)
    inside = _META_CHARSET.search(raw[:2048])
    names = [stated[1] if stated else "", (inside[1] or inside[2]).decode() if inside else "", find_encoding(raw)]
    for name in filter(None, names):
        with suppress(LookupError, UnicodeDecodeError):
            text = raw.decode({"gb2312": "gb18030", "gbk": "gb18030"}.get(name.casefold(), name))
            break
    else:
        return "", "in an unknown encoding"
    head = text.lstrip("\ufeff \r\n\t")[:200].casefold()
    if head.startswith("{\\rtf"):
        from striprtf.striprtf import rtf_to_text

        text = rtf_to_text(raw.decode("latin-1"), errors="ignore")
    elif "html" in kind or "xml" in kind or head.startswith(_MARKUP):
        text = _html_text(text)
    text = text.replace("\r\n", "\n").strip("\ufeff \n\t")
    return (text, "") if text else ("", "empty")


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._unseen += tag in terms("unseen_elements")
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append("\n" if tag in terms("block_elements") else "")

    def handle_endtag(self, tag: str) -> None:
        self._unseen = max(0, self._unseen - (tag in terms("unseen_elements")))
        self.parts.append("\n" if tag in terms("block_elements") else "\t" if tag in ("td", "th") else "")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def _html_text(markup: str) -> str:
    """The text of HTML (or CDA) as lines; cells of a table stand side by side."""
    parser = _Text()
    parser.feed(markup)
    parser.close()
    lines = (re.sub(r"[ \u00a0\r\t]+", " ", line).strip() for line in "".join(parser.parts).split("\n"))
    return "\n".join(line for line in lines if line)
