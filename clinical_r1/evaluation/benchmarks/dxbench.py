"""DxBench: symptoms in, one of 423 diseases out; English and Chinese rows are aligned by id."""

import json
from pathlib import Path
from typing import Any

from clinical_r1.errors import UserError
from clinical_r1.schema import Case, Language

NAME = "dxbench"
ABOUT = "DxBench (1,148 cases, 15 departments), one JSON list; no licence stated"
FILES = ("DxBench_en.json", "DxBench_zh.json")

TEXT = {
    "en": ("The patient reports: {have}.", " Denied: {have_not}.", " What is the most likely diagnosis?", ", "),
    "zh": ("患者表现为：{have}。", "否认：{have_not}。", "最可能的诊断是什么？", "、"),
}


def looks_like(row: dict) -> bool:
    """Is this a row of such a file?"""
    return {"explicit_symptoms", "implicit_symptoms", "disease"} <= row.keys()


def load(path: Path) -> list[Case]:
    """Cases of one DxBench file; UserError names a bad row."""
    try:
        rows = json.loads(Path(path).read_bytes())
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON; give the original DxBench file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8; give the original DxBench file") from None
    return [_case(row, number, path) for number, row in enumerate(rows, 1)]


def _case(row: dict[str, Any], number: int, path: Path) -> Case:
    try:
        symptoms = [*row["explicit_symptoms"], *row["implicit_symptoms"]]
        have = [name for name, present in symptoms if str(present).lower() == "true"]
        have_not = [name for name, present in symptoms if str(present).lower() != "true"]
        chinese = any("\u4e00" <= char <= "\u9fff" for char in row["disease"] + "".join(have))
        language: Language = "zh" if chinese else "en"
        positive, negative, ask, comma = TEXT[language]
        question = positive.format(have=comma.join(have))
        question += negative.format(have_not=comma.join(have_not)) if have_not else ""
        return Case(
            id=f"{row['id']}-{language}", language=language, question=question + ask, references=[row["disease"]],
            specialty=row["department"].lower(), source=NAME,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: row {number}: not a DxBench row ({type(error).__name__}); give the original"
        ) from None
