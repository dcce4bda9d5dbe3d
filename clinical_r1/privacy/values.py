# ruff: noqa: E501  (a pattern or a word list reads best as one piece)
"""Clinical values: what no recogniser of bare numbers may touch. Measurements, ranges, series, doses, codes of staging."""

import re
from bisect import bisect_right

UNIT = (
    r"(?:x ?10|×|%|‰|°|℃|℉|mm(?:hg|ol)?\b|cm|ml|mg|mcg|ng|pg|fl\b|ug|μ[glm]|µ[glm]|g\b|kg|g/|l\b|dl|iu|u\b|u/|miu|meq|mosm|mol|mmol|umol|nmol|pmol|kpa|pa\b|cells?\b|copies|cop\b|bpm|ms\b|msec|sec\b|s\b|hz|mv|"
    r"per\b|platelets|leukocytes|wbc|rbc|units?\b|cfu|gy|cgy|mci|bq|mbq|kcal|cal\b|min\b|mins\b|minutes|hours?\b|hrs?\b|h\b|days?\b|d\b|weeks?\b|wks?\b|months?\b|mos?\b|years?\b|yrs?\b|y/?o\b|lbs?\b|oz\b|ft\b|inches|feet|points?|times?\b|fold|beats|breaths|"
    r"packs?\b|pack-years?|tablets?|tabs?\b|caps?\b|puffs?|drops?|cycles?|fractions?|fr\b|french|gauge|ga\b|d\b|dioptres?|diopters?|nodes?\b|lobes?|"
    r"次|个|拷贝|单位|万|元|毫|微|克|人|岁|天|周|月龄|小时|分钟|分|秒|片|粒|支|瓶|袋|丸|枚|颗|年|余|多|厘米|米|升|度|倍|级|期|型|/hp|/ul|/l|/dl|/min|/h\b|/d\b|/kg|/mm)"
)
_NUM = r"[<>≤≥~±]?\s?(?:\d{1,6}|\d{1,3}(?:,\d{3}){1,3})(?:\.\d{1,5})?"
_RANGE = rf"{_NUM}\s?(?:-|~|～|至|to|±|/|×|x|\*)\s?{_NUM}"
_LAB = (
    r"(?:Na|K|Cl|CO2|HCO3|BUN|Cr|Ca|Mg|Phos|P|Glu|Gluc|WBC|RBC|Hb|Hgb|Hct|MCV|MCH|MCHC|RDW|PLT|Plt|PT|PTT|aPTT|INR|AST|ALT|ALP|GGT|LDH|CK|CK-?MB|TSH|fT[34]|FT[34]|T[34]|LH|FSH|PSA|CEA|AFP|CRP|ESR|PCT|BNP|NT-proBNP|TnI|TnT|cTnI|HbA1c|pH|pCO2|pO2|PaO2|PaCO2|BE|SaO2|SpO2|FiO2|Lac|"
    r"CA ?\d{2,3}(?:-\d)?|Ca ?125|Ki-?67|ER|PR|QTc?|PR|QRS|HR|RR|BP|MAP|CVP|Temp|Tmax|T|P|R|BMI|GCS|MMSE|EF|LVEF|FEV1|FVC|DLCO|AFI|FHR|BPD|AC|FL|HC|N|L|M|E|"
    r"[Cc]reatinine|[Hh]emoglobin|[Hh]aemoglobin|[Pp]latelets?|[Ss]odium|[Pp]otassium|[Cc]hloride|[Bb]icarbonate|[Gg]lucose|[Uu]rea|[Cc]alcium|[Mm]agnesium|[Ll]actate|[Ll]ipase|[Aa]mylase|[Ff]erritin|[Bb]ilirubin|[Aa]lbumin|[Tt]roponin|[Cc]holesterol|[Tt]riglycerides?|[Hh]ematocrit|"
    r"体温|脉搏|呼吸|血压|心率|白细胞|红细胞|血红蛋白|血小板|中性粒|淋巴|肌酐|尿素氮?|尿酸|血糖|血钾|血钠|血氯|血钙|总胆红素|白蛋白|球蛋白|转氨酶|淀粉酶|脂肪酶|乳酸)"
)
_PROTECTED = [
    re.compile(pattern)
    for pattern in (
        rf"(?i)(?<![\w.]){_NUM}(?:\s?(?:-|~|～|至|to|/|×|x|\*)\s?{_NUM}){{0,3}}\s{{0,2}}{UNIT}",
        rf"[(\[（【]\s?{_RANGE}\s?(?:[^\W\d_%°/^]{{0,6}}[\w/%°^]{{0,12}})?\s?[)\]）】]",
        rf"(?<![A-Za-z]){_LAB}(?:\s?(?:is|was|of|[:：=为])\s?{_NUM}|\s{_NUM}|\d{{1,3}}(?:\.\d{{1,3}})?(?![\d\-]))(?:\s?(?:->|→|-|/|,)\s?{_NUM}){{0,8}}(?![\d\-])",
        r"(?<![\d.\-/])\d{1,6}\.\d{1,4}(?:\s?[-/~,→>]{1,2}\s?\d{1,6}(?:\.\d{1,4})?){0,8}(?![\d.\-/]|\.\d)",
        r"(?<![\d.\-/])\d{1,3}(?:\s?/\s?\d{1,3}(?:\.\d)?){1,12}(?![\d/]|-\d)",
        r"(?<![\d.])\d{1,3}(?:\.\d+)?(?:\s?(?:->|→|>)\s?\d{1,3}(?:\.\d+)?)+",
        r"(?<![A-Za-z0-9])(?:G\d{1,2}\s?P\d{1,5}(?:-\d-\d-\d)?|[pcyr]?T[0-4isx][a-d]?N[0-3x][a-c]?M[01x]|HLA-?[A-Z*]+\d[\d:]*|[A-Z]{2,6}\d?:\s?\d{1,3}|\d:\d{1,5})(?![A-Za-z0-9])",
    )
]


class Values:
    """The stretches of one folded text that are clinical values."""

    def __init__(self, text: str) -> None:
        found = sorted(match.span() for pattern in _PROTECTED for match in pattern.finditer(text))
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in found:
            if self._ends and start <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            else:
                self._starts.append(start)
                self._ends.append(end)

    def touches(self, start: int, end: int) -> bool:
        """Does a value lie in or across `text[start:end]`?"""
        return self.first(start, end) < end

    def first(self, start: int, end: int) -> int:
        """Where the first value in `text[start:end]` begins; `end` where there is none."""
        index = bisect_right(self._ends, start)
        return max(start, self._starts[index]) if index < len(self._starts) and self._starts[index] < end else end
