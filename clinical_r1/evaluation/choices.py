"""Cases as multiple-choice items in MedQA's form: a probe of the case set's own diagnoses where no general benchmark is
at hand."""

import random
from collections.abc import Sequence

from clinical_r1.errors import UserError
from clinical_r1.schema import Case


def multiple_choice(cases: Sequence[Case], choices: int = 5, seed: int = 0) -> list[Case]:
    """Each case with its reference among other cases' diagnoses (same language, same specialty first) as choices.

    Cases whose language holds one diagnosis only have nothing to choose from and are left out. Raises UserError where
    that is all of them.
    """
    names = sorted({(case.language, case.specialty, case.reference) for case in cases})
    diagnoses = {language: {name for other, _, name in names if other == language} for language, _, _ in names}
    asked = [case for case in cases if len(diagnoses[case.language]) > 1]
    if not asked:
        raise UserError(
            "gate.forgetting: the test cases hold fewer than two different diagnoses of a language, so no probe can be "
            "made of them; give a benchmark in MedQA's form"
        )
    return [_item(case, names, choices, random.Random(f"{seed}:{case.id}")) for case in asked]


def _item(case: Case, names: Sequence[tuple[str, str, str]], choices: int, rng: random.Random) -> Case:
    others = [(specialty, name) for language, specialty, name in names
              if language == case.language and name != case.reference]  # fmt: skip
    rng.shuffle(others)
    others.sort(key=lambda other: other[0] != case.specialty)
    options = [case.reference, *dict.fromkeys(name for _, name in others)][:choices]
    rng.shuffle(options)
    return case.model_copy(update={"id": f"{case.id}-choice", "options": options})
