"""Public sets in their publishers' forms: each function turns one item into a `Row`.

Open problems: DxBench, HuatuoGPT-o1, DiagnosisArena, Dxy and Muzhi, MedDX-FT, HealthBench, chat transcripts and
instruction sets. Multiple choice (`closed: true` keeps the options, else the question is asked open): MedQA
https://github.com/jind11/MedQA, MedMCQA https://github.com/MedMCQA/MedMCQA, CMB
https://github.com/FreedomIntelligence/CMB, CMExam https://github.com/williamliujl/CMExam, MedXpertQA
https://github.com/TsinghuaC3I/MedXpertQA, MedBullets https://github.com/HanjieChen/ChallengeClinicalQA.
"""

import re
from collections.abc import Sequence
from typing import Any

from clinical_r1.reasoning import split
from clinical_r1.records.config import Source
from clinical_r1.records.readers.mapping import chosen_option, mapped, options_of, text_of
from clinical_r1.records.row import Row, RowError, UnusableError
from clinical_r1.records.values import as_text, is_placeholder, word_lists
from clinical_r1.text import main_language

_Symptoms = list[tuple[str, str]]
"""Each with its polarity."""


def text_under(item: dict[str, Any], key: str) -> str:
    """A non-empty text under `key`, stripped; RowError names the key otherwise."""
    if not isinstance(item.get(key), str):
        raise RowError(f"{key}: missing or not a text")
    return checked(item[key], key)


def checked(value: Any, key: str) -> str:
    """The value as a text that says something; RowError names the key otherwise."""
    text = text_of(value, key)
    if is_placeholder(text):
        raise RowError(f"{key}: empty")
    return text


def _open(question: str, reference: str) -> Row:
    return Row({"language": main_language(question), "question": question, "references": [reference]})


def _symptoms(item: dict[str, Any], key: str) -> _Symptoms:
    value: Any = item.get(key)
    pairs = [list(p) for p in value if isinstance(p, list | tuple)] if isinstance(value, list) else None
    if pairs is None or len(pairs) != len(value) or not all(len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise RowError(f"{key}: not a list of [symptom, polarity]")
    return [(checked(name, key), str(polarity)) for name, polarity in pairs if name.strip()]


def _presented(disease: str, explicit: _Symptoms, implicit: _Symptoms, choices: list[str]) -> Row:
    """Symptoms by their polarity as a question for the disease."""
    every = explicit + implicit
    language = main_language(disease + "".join(name for name, _ in every))
    words, yes, no = word_lists()["phrases"][language], ("true", "1", "yes"), ("false", "0", "no")
    groups = {
        "explicit": [name for name, polarity in explicit if polarity.casefold() in yes],
        "implicit": [name for name, polarity in implicit if polarity.casefold() in yes],
        "denied": [name for name, polarity in every if polarity.casefold() in no],
        "unsure": [name for name, polarity in every if polarity.casefold() not in (*yes, *no)],
        "candidates": choices,
    }
    parts = [words[key].format(words["join"].join(names)) for key, names in groups.items() if names]
    question = words["space"].join([*parts, words["ask"]])
    fields = {"language": language, "question": question, "references": [disease], "options": choices}
    return Row(fields, keep_id=True)


def dxbench(item: dict[str, Any], source: Source) -> Row:
    """DxBench: symptoms with polarity ("True", "False", else uncertain). The department is not told to the doctor."""
    disease, candidates = text_under(item, "disease"), item.get("candidate_diseases") or []
    explicit, implicit = _symptoms(item, "explicit_symptoms"), _symptoms(item, "implicit_symptoms")
    if not explicit and not implicit:
        raise RowError("explicit_symptoms: no symptom at all")
    choices = [str(name).strip() for name in candidates] if source.candidates else []
    number = checked(item.get("id"), "id")
    row = _presented(disease, explicit, implicit, choices)
    row.fields["id"], row.problem = f"{number}-{row.fields['language']}", f"dxbench:{number}"
    row.department = str(item.get("department") or "")
    return row


def diseases_of(items: Sequence[dict[str, Any]]) -> list[str]:
    """All diseases of a Dxy or Muzhi file: its doctors choose among them."""
    return sorted({str(item["disease_tag"]).strip() for item in items if item.get("disease_tag")})


def symptom_slots(item: dict[str, Any], source: Source, base: Sequence[str] = ()) -> Row:
    """Dxy and Muzhi: `goal` with explicit and implicit slots (true, false, else uncertain), and `disease_tag`; with
    candidates the diseases of the file (`base`) are the choices."""
    disease, goal = text_under(item, "disease_tag"), item.get("goal")
    kinds = ("explicit_inform_slots", "implicit_inform_slots")
    slots = [goal.get(kind) or {} for kind in kinds] if isinstance(goal, dict) else []
    if not any(slots) or not all(isinstance(found, dict) for found in slots):
        raise RowError("goal: no explicit_inform_slots and implicit_inform_slots")
    explicit, implicit = ([(str(k).strip(), str(v)) for k, v in found.items()] for found in slots)
    choices = list(base) if source.candidates and disease in base and len(base) > 1 else []
    row = _presented(disease, explicit, implicit, choices)
    if item.get("consult_id") is not None:
        row.fields["id"] = f"{item['consult_id']}-{row.fields['language']}"
    return row


def huatuo(item: dict[str, Any], source: Source) -> Row:
    """HuatuoGPT-o1's verifiable problems: open question and ground truth; its chain of thought is left behind."""
    question = text_under(item, "Open-ended Verifiable Question")
    return _open(question, text_under(item, "Ground-True Answer").rstrip("。. "))


def plain_keys(item: dict[str, Any]) -> dict[str, Any]:
    """The item under lower-case keys with underscores: publishers write one set's keys in several ways."""
    return {re.sub(r"[\s_\-]+", "_", key.strip().casefold()): value for key, value in item.items()}


def diagnosis_arena(item: dict[str, Any], source: Source) -> Row:
    """DiagnosisArena: case, examination and tests make the question; `Final Diagnosis` the reference."""
    plain = plain_keys(item)
    headings = ("case_information", "physical_examination", "diagnostic_tests")
    parts = [f"{key.replace('_', ' ').capitalize()}: {as_text(plain[key])}" for key in headings if plain.get(key)]
    if not parts:
        raise RowError("Case Information: missing")
    reference = checked(plain.get("final_diagnosis"), "Final Diagnosis").rstrip("。. ")
    language = main_language("".join(parts))
    question = "\n".join([*parts, word_lists()["phrases"][language]["ask"]])
    row = Row({"language": language, "question": question, "references": [reference]}, keep_id=True)
    if plain.get("id") is not None:
        row.fields["id"] = f"diagnosisarena-{plain['id']}"
    if source.closed and plain.get("options"):
        choices = options_of(plain["options"])
        right = choices.get(str(plain.get("right_option", "")).strip().upper())
        if right is None:
            raise RowError("Right Option: not one of the options")
        row.fields |= {"options": list(choices.values()), "references": [right]}
    return row


def health_bench(item: dict[str, Any], source: Source) -> Row:
    """HealthBench: the conversation up to the reply that is asked for, and the rubric that the reply earns points by;
    `theme:` of `example_tags` is the specialty."""
    turns = item.get("prompt")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, dict) for turn in turns):
        raise RowError("prompt: not a list of messages")
    *before, last = turns
    if last.get("role") != "user":
        raise RowError("prompt: does not end with a message of the user")
    question = checked(last.get("content"), "prompt")
    tags = [str(tag) for tag in item.get("example_tags") or []]
    theme = next((tag.removeprefix("theme:") for tag in tags if tag.startswith("theme:")), "")
    fields: dict[str, Any] = {
        "language": main_language(question), "question": question, "references": [],
        "turns": [{"role": turn.get("role"), "content": as_text(turn.get("content"))} for turn in before],
        "rubric": rubric_of(item.get("rubrics"), "rubrics"), "specialty": theme or "unknown",
    }  # fmt: skip
    if item.get("prompt_id"):
        fields["id"] = f"healthbench-{item['prompt_id']}"
    return Row(fields, keep_id=True)


def rubric_of(value: Any, key: str) -> list[dict[str, Any]]:
    """A list of criteria, each with its text (`criterion` or `text`) and its points; RowError names what is wrong."""
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise RowError(f"{key}: not a list of criteria")
    found: list[dict[str, Any]] = []
    for one in value:
        points = one.get("points")
        if isinstance(points, bool) or not isinstance(points, int | float) or not points:
            raise RowError(f"{key}: a criterion without points")
        text = checked(one.get("criterion", one.get("text")), key)
        found.append({"text": text, "points": points, "tags": [str(tag) for tag in one.get("tags") or []]})
    if not any(one["points"] > 0 for one in found):
        raise RowError(f"{key}: no criterion earns points")
    return found


_ROLES = {"system": "system"} | dict.fromkeys(("user", "human", "prompter", "患者"), "user")
_ROLES |= dict.fromkeys(("assistant", "gpt", "model", "bot", "医生"), "assistant")


def chat(item: dict[str, Any], source: Source) -> Row:
    """`messages` (role, content) or ShareGPT's `conversations` (from, value): what stands before the last reply of the
    assistant is the question, the reply without its thinking the reference."""
    key = "messages" if "messages" in item else "conversations"
    turns = item[key]
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise RowError(f"{key}: not a list of turns")
    said = []
    for turn in turns:
        value = turn.get("content", turn.get("value", ""))
        if isinstance(value, list):
            value = "\n".join(str(part.get("text", "")) for part in value if isinstance(part, dict))
        said.append((_ROLES.get(str(turn.get("role", turn.get("from", ""))).casefold(), ""), text_of(value, key)))
    if any(not role for role, _ in said):
        raise RowError(f"{key}: a turn of an unknown role")
    last = max((index for index, (role, _) in enumerate(said) if role == "assistant"), default=0)
    before = [(role, text) for role, text in said[:last] if text]
    if not last or not any(role == "user" for role, _ in before):
        raise RowError(f"{key}: no question and answer")
    # In a dialogue who said what matters.
    dialogue = any(role == "assistant" for role, _ in before)
    names = {"user": "Q: ", "assistant": "A: ", "system": ""} if dialogue else dict.fromkeys(_ROLES, "")
    answer = checked(split(said[last][1]).response or said[last][1], key)
    return _open("\n".join(names[role] + text for role, text in before), answer)


def instruction(item: dict[str, Any], source: Source) -> Row:
    """Instruction sets (Alpaca): instruction and input ask, output answers."""
    asked = [text for key in ("instruction", "input") if (text := as_text(item.get(key)))]
    answer = as_text(item.get("output"))
    return _open(checked("\n".join(asked), "instruction"), checked(split(answer).response or answer, "output"))


def meddx(item: dict[str, Any], source: Source) -> Row:
    """MedDX-FT, the paper's fine-tuning set (section 2.1.1). **Unverified**: the set is not public, and these keys are
    a reading of the paper (patient record in, diagnosis out): the first known key for each field, unless `map` names
    it."""
    known = word_lists()["meddx_keys"]
    found = {field: key for field, keys in known.items() for key in reversed(keys) if item.get(key)}
    for field in ("question", "reference"):
        if field not in found and field not in source.map:
            raise RowError(f"{field}: none of the keys {', '.join(known[field])}; give map")
    return mapped(item, source.model_copy(update={"map": {**found, **source.map}}))


def ours(item: dict[str, Any], source: Source) -> Row:
    """Cases under our own names (`schema.Case`). Identifiers are hashed later, unless they already are."""
    source = source.model_copy(update={"map": {}})
    if not item.get("rubric"):
        return mapped(item, source)
    referred = item.get("reference") or item.get("references")
    row = mapped(item if referred else {**item, "reference": "rubric"}, source)
    row.fields |= {"rubric": rubric_of(item["rubric"], "rubric"), "turns": item.get("turns") or []}
    return row if referred else Row({**row.fields, "references": []}, patient_id=row.patient_id, known=row.known)


def specialty_cases(item: dict[str, Any], source: Source) -> Row:
    """MedBench-Hard's form: our cases, each of a specialty, by which the results are given."""
    row = ours(item, source)
    if row.fields.get("specialty", "unknown") == "unknown" and not row.department:
        raise RowError("specialty: missing; results are given by specialty")
    return row


_CMEXAM_OPTION = re.compile(r"^\s*([A-Z])[\s.．、:：]+(.+)$", re.MULTILINE)
_OPTION_LIST = re.compile(r"\s*\n?\s*(?:Answer Choices|Options|选项)\s*[:：].*\Z", re.DOTALL | re.IGNORECASE)


def _chosen(question: str, options: dict[str, str], references: list[str], source: Source) -> Row:
    fields = {"language": main_language(question + references[0]), "question": question, "references": references}
    return Row({**fields, "options": list(options.values()) if source.closed else []})


def _right(answer: Any, options: dict[str, str], key: str, several: bool = False) -> list[str]:
    """The option that a letter or text names; where `several` may be right (closed), all that letters name."""
    text = as_text(answer)
    letters = re.sub(r"[\s,，、;；]", "", text.upper())
    many = len(letters) > 1 and set(letters) <= set(options)
    if several and many:
        return [options[letter] for letter in sorted(set(letters))]
    if is_placeholder(text):
        raise UnusableError(f"{key}: no answer in this part of the set")
    if many and text not in options.values():
        raise UnusableError(f"{key}: several options are right")
    return [chosen_option(text, options)]


def medqa(item: dict[str, Any], source: Source) -> Row:
    """MedQA in either language: options in any form, `answer` as the text, `answer_idx` as letter or number."""
    question, options = text_under(item, "question"), options_of(item.get("options"))
    if not options:
        raise RowError("options: missing")
    answer, index = as_text(item.get("answer")), item.get("answer_idx")
    named = [choice for choice in options.values() if choice.strip() == answer]
    if isinstance(index, int) and not isinstance(index, bool):
        if not named and not 0 <= index < len(options):
            raise RowError("answer_idx: not one of the options")
        return _chosen(question, options, named[:1] or [list(options.values())[index]], source)
    right = _right(index, options, "answer_idx") if as_text(index) else _right(answer, options, "answer")
    if as_text(index) and named and right[0] not in named:
        raise RowError("answer: another option than answer_idx says")
    return _chosen(question, options, right, source)


def medmcqa_base(items: Sequence[dict[str, Any]]) -> int | None:
    """Does `cop` count from 0 (the Hugging Face copy) or from 1 (the authors' files)? None where no item tells."""
    numbers = {int(item["cop"]) for item in items if str(item.get("cop", "")).strip().lstrip("-").isdigit()}
    return 0 if 0 in numbers else 1 if 4 in numbers else None


def medmcqa(item: dict[str, Any], source: Source, base: int | None = None) -> Row:
    """MedMCQA: opa to opd and `cop`, the number of the right one (items of `choice_type` multi have one too)."""
    options = {letter: checked(item.get(f"op{letter.casefold()}"), f"op{letter.casefold()}") for letter in "ABCD"}
    number = as_text(item.get("cop"))
    if not number or number == "-1":
        raise UnusableError("cop: no answer in this part of the set")
    if base is None:
        raise RowError("cop: cannot tell whether it counts from 0 or from 1; give more rows of the set")
    if not number.isdigit() or not 0 <= int(number) - base < 4:
        raise RowError("cop: not one of the options")
    return _chosen(text_under(item, "question"), options, [options["ABCD"[int(number) - base]]], source)


def medbullets(item: dict[str, Any], source: Source) -> Row:
    """MedBullets: opa to ope, `answer` as the text, `answer_idx` as the letter."""
    options = {letter: text for letter in "ABCDE" if (text := as_text(item.get(f"op{letter.lower()}")))}
    if len(options) < 2:
        raise RowError("opa: fewer than two options")
    return medqa({**item, "options": options}, source)


def cmb(item: dict[str, Any], source: Source) -> Row:
    """CMB-Exam: `option` by letter and `answer`; questions with several right options are counted as unusable."""
    options = options_of({k: v for k, v in (item.get("option") or {}).items() if as_text(v)})
    question = text_under(item, "question")
    return _chosen(question, options, _right(item.get("answer"), options, "answer", source.closed), source)


def cmexam(item: dict[str, Any], source: Source) -> Row:
    """CMExam: `Options` as lettered lines, `Answer` as one letter or several."""
    raw = item.get("Options")
    lettered = dict(_CMEXAM_OPTION.findall(raw)) if isinstance(raw, str) else {}
    options = {k: v.strip() for k, v in lettered.items()} if len(lettered) > 1 else options_of(raw)
    if not options:
        raise RowError("Options: missing")
    question = text_under(item, "Question")
    return _chosen(question, options, _right(item.get("Answer"), options, "Answer", source.closed), source)


def medxpertqa(item: dict[str, Any], source: Source) -> Row:
    """MedXpertQA (text): the question repeats its options at the end, `label` is the letter of the right one."""
    options = options_of(item.get("options"))
    question = checked(_OPTION_LIST.sub("", text_under(item, "question")), "question")
    row = _chosen(question, options, _right(item.get("label"), options, "label"), source)
    if number := as_text(item.get("id")):
        row.fields["id"], row.keep_id = f"medxpertqa-{number}", True
    return row
