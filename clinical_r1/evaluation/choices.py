"""Cases as multiple-choice items in MedQA's form: a forgetting probe where no general benchmark is at hand."""

import random
from collections.abc import Sequence

from clinical_r1.errors import UserError
from clinical_r1.schema import Case


def multiple_choice(cases: Sequence[Case], choices: int = 5, seed: int = 0) -> list[Case]:
    """Each case with its reference among other cases' diagnoses (same language, same specialty first) as choices.

    Raises UserError where the cases hold fewer than two different diagnoses of a language.
    """
    names = sorted({(case.language, case.specialty, case.reference) for case in cases})
    return [_item(case, names, choices, random.Random(f"{seed}:{case.id}")) for case in cases]


def _item(case: Case, names: Sequence[tuple[str, str, str]], choices: int, rng: random.Random) -> Case:
    others = [(specialty, name) for language, specialty, name in names
              if language == case.language and name != case.reference]  # fmt: skip
    if not others:
        raise UserError("multiple choice: all cases of one language have the same diagnosis; give a benchmark instead")
    rng.shuffle(others)
    others.sort(key=lambda other: other[0] != case.specialty)
    options = [case.reference, *dict.fromkeys(name for _, name in others)][:choices]
    rng.shuffle(options)
    listed = "\n".join(f"{chr(65 + index)}. {option}" for index, option in enumerate(options))
    question = f"{case.question}\n\n{listed}"
    return case.model_copy(update={"id": f"{case.id}-choice", "question": question, "options": options})
