"""Answers in the words of an open question: what plainly repeats it is read, what changes it is the judge's."""

import pytest

from clinical_r1.schema import VerdictLabel
from clinical_r1.verifier.echo import ask
from clinical_r1.verifier.judgement import Judgement
from clinical_r1.verifier.rule import RuleVerifier

NERVE = "Which nerve is most commonly injured in a fracture of the surgical neck of the humerus?"
DRUG = "A 60-year-old man takes metformin. Which drug is not used for the long-term treatment of gout?"
TERM = "What is the name of the angle that is formed by the neck and the shaft of the femur?"
CAUSE = "A girl has seizures after a fall. Considering the history, what is the most likely cause of her seizures?"
SIGN = "In which medical condition is Murphy's sign typically observed?"
CAN = "In planning the operation, which vessel can be spared while considering the supply of the stomach?"
ARTERY = "Which artery supplies the muscle that flexes the elbow?"
MODE = "When the width of a wire is greater than its height, what mode does the wire belong to?"
STAGE = "Based on the results, what stage of hepatitis B infection does the patient appear to be in?"
MANIA = "Considering her pregnancy, what is the preferred medication for managing her current manic episode?"
LEAST = "A stain of an aspirate shows yeast-like morphology. What is the least likely diagnosis?"
NEXT = "What is the most appropriate next step in the management of this patient?"
RIGHT = "The nerve most commonly injured in a fracture of the surgical neck of the humerus is the axillary nerve."

READ = [
    (NERVE, "Axillary nerve", "The nerve most commonly injured in a fracture of the surgical neck of the humerus is the"
     " axillary nerve. It winds around the bone there and supplies the deltoid."),
    (NERVE, "Axillary nerve", "The axillary nerve is most commonly injured in a fracture of the surgical neck of the"
     " humerus. It supplies the deltoid and the skin over that muscle."),
    (NERVE, "Axillary nerve", "In a fracture of the surgical neck of the humerus, the nerve most commonly injured is"
     " the axillary nerve, also known as the circumflex nerve."),
    (DRUG, "Colchimab", "The drug that is not used for the long-term treatment of gout is colchimab. Colchimab"
     " is not used for treatment of gout."),
    (TERM, "Angle of inclination", 'The angle that is formed by the neck and the shaft of the femur is called the'
     ' "angle of inclination." It is larger in children than it is in adults.'),
    (CAUSE, "Subdural hematoma", "The most likely cause of the girl's seizures is subdural hematoma. It"
     " is seen on a CT as a crescent along the skull."),
    (CAUSE, "Subdural hematoma", "The fall is of note. Therefore, the most likely cause of her seizures would be a"
     " subdural hematoma."),
    (SIGN, "Acute cholecystitis", "Murphy's sign is typically observed in pain. Thus, Murphy's sign is typically"
     " associated with acute cholecystitis."),
    (CAN, "Inferior artery", "In planning the operation, the inferior artery can be spared. It runs on the"
     " far side of the organ in all people."),
    (MODE, "Edgewise mode", "When the width of a wire is greater than its height, the wire belongs to the"
     " edgewise mode."),
    (MODE, "Edgewise", "The wire is considered to be in the edgewise mode."),
    (STAGE, "Window period", "Based on the results, the patient appears to be in the window period."),
    (MANIA, "Haloperidol", "Considering her pregnancy, haloperidol is a suitable medication for managing her current"
     " manic episode. It has been used in pregnancy for many decades with good results."),
    (LEAST, "Aspergillus", "This makes aspergillus the least likely diagnosis."),
    (NEXT, "CT of the chest", "The next best step is to order a CT scan of the chest."),
    (NEXT, "Perform a CT of the chest", "The most appropriate next step is obtaining a CT of the chest."),
    (NEXT, "CT of the chest", "It would be most appropriate to order a CT of the chest."),
    (NEXT, "Bilateral gonadectomy", "The picture suggests androgen insensitivity. Given the risk of cancer, the most"
     " appropriate next step in management is a bilateral gonadectomy. The removed gland is then examined closely for"
     " the cancer that one fears."),
]  # fmt: skip

NOT_READ = [
    (NERVE, "Axillary nerve", "The nerve least commonly injured in a fracture of the humerus is the axillary nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly spared in a fracture of the humerus is the axillary nerve."),
    (NERVE, "Axillary nerve", "The nerve not injured in a fracture of the humerus is the axillary nerve."),
    (NERVE, "Axillary nerve", "The second most commonly injured nerve is the axillary nerve."),
    (NERVE, "Axillary nerve", "The axillary nerve is rarely injured in a fracture of the surgical neck."),
    (NERVE, "Axillary nerve", "The axillary nerve is not most commonly injured in a fracture of the humerus."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured in a fracture of the shaft is the axillary nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is the axillary nerve or the radial nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is the axillary nerve and the radial nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is the axillary nerve. However, here it is the radial."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is the axillary nerve. Therefore, the nerve most"
     " commonly injured is the radial nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is the axillary nerve. This is wrong."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is the axillary nerve?"),
    (NERVE, "Axillary nerve", "The nerve most commonly injured is close to the axillary nerve."),
    (NERVE, "Axillary nerve", "In contrast to this case, the nerve most commonly injured is the axillary nerve."),
    (NERVE, "Axillary nerve", "If displaced, the nerve most commonly injured is the axillary nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured may be the axillary nerve."),
    (NERVE, "Axillary nerve", f"{RIGHT} The radial nerve is most commonly injured."),
    (NERVE, "Axillary nerve", f"{RIGHT} The radial nerve is more commonly injured."),
    (NERVE, "Axillary nerve", f"{RIGHT} I disagree with that."),
    (NERVE, "Axillary nerve", f"{RIGHT} So radial."),
    (NERVE, "Axillary nerve", f"{RIGHT} That was the old view; today it is the radial nerve."),
    (NERVE, "Axillary nerve", f"{RIGHT}\n\n- radial nerve\n- ulnar nerve"),
    (NERVE, "Axillary nerve", "The nerve injured in a fracture of the surgical neck is the axillary nerve."),
    (NERVE, "Axillary nerve", "The nerve most commonly injured in a fracture of the humerus is the axillary nerve."),
    (ARTERY, "Biceps", "The muscle that flexes the elbow is the biceps."),
    (ARTERY, "Brachial artery", "The artery that flexes the elbow is the brachial artery."),
    (DRUG, "Colchimab", "The drug that is used for the long-term treatment of gout is colchimab."),
    (DRUG, "Colchimab", "Colchimab is used for the long-term treatment of gout."),
    (DRUG, "Colchimab", "The drug that is not used for the short-term treatment of gout is colchimab."),
    (DRUG, "Colchimab", "The drug that is not used for the long-term treatment of gout is colchimab. Colchimab is not"
     " the right answer."),
    (DRUG, "Metformin", "The drug that the man takes is metformin."),
    (CAUSE, "Subdural hematoma", "The most likely cause of his seizures in type 2 diabetes is subdural hematoma."),
    (CAUSE, "Subdural hematoma", "The most likely consequence of her seizures is subdural hematoma."),
    (CAUSE, "Subdural hematoma", "The most likely cause of her subdural hematoma is seizures."),
    (CAUSE, "Subdural hematoma", "Her seizures cause subdural hematoma."),
    (CAUSE, "Subdural hematoma", "The most likely cause of her seizures is chronic subdural hematoma of the brother."),
    (SIGN, "Acute cholecystitis", "Murphy's sign is rarely associated with acute cholecystitis."),
    (SIGN, "Acute cholecystitis", "Murphy's sign is associated with not acute cholecystitis but hepatitis."),
    (CAN, "Inferior artery", "The inferior artery can be ligated. The upper vessel can be spared."),
    (CAN, "Inferior artery", "The inferior artery cannot be spared."),
    (MODE, "Edgewise mode", "The wire does not belong to the edgewise mode."),
    (MODE, "Edgewise mode", "The wire belongs to the flatwise mode, from the edgewise mode."),
    (MODE, "Edgewise mode", "The wire belongs to the edgewise mode or the ribbon mode."),
    (STAGE, "Window period", "The patient appears to be past the window period."),
    (STAGE, "Window period", "The patient may be in the window period."),
    (MANIA, "Haloperidol", "Haloperidol is a suitable alternative medication for managing her current manic episode."),
    (MANIA, "Haloperidol", "Haloperidol is the least suitable medication for managing her current manic episode."),
    (MANIA, "Haloperidol", "Haloperidol is a suitable medication for managing her current manic episode, but lithium"
     " is preferred."),
    (LEAST, "Aspergillus", "This makes aspergillus the most likely diagnosis."),
    (LEAST, "Aspergillus", "This does not make aspergillus the least likely diagnosis."),
    (LEAST, "Aspergillus", "Nothing makes aspergillus the least likely diagnosis."),
    (NEXT, "CT of the chest", "The most appropriate next step is to avoid a CT of the chest."),
    (NEXT, "CT of the chest", "The most appropriate next step is to repeat the CT of the chest in six months."),
    (NEXT, "CT of the chest", "The most appropriate next step is to order an MRI after a CT of the chest."),
    (NEXT, "CT of the chest", "The most appropriate next step is to order a CT of the abdomen."),
    (NEXT, "CT of the chest", "It would be inappropriate to order a CT of the chest."),
    (NEXT, "Aspirin", "The most appropriate next step is to start aspirin and heparin."),
    (NEXT, "25/250", "The most appropriate next step is 250/25."),
    (NEXT, "Increased calcium, decreased phosphate", "The next best step is decreased calcium, increased phosphate."),
]  # fmt: skip


AFTER = [
    "Radial is correct.", "This is only a guess.", "This is a common misconception.", "Ignore the above.",
    "The opposite is true.", "Recent guidelines name the radial nerve.", "This holds for animals only.",
    "In this patient it is the radial nerve.", "The radial nerve is the right choice.", "It turned out to be radial.",
    "Only the radial nerve fits.", "Do not trust this.", "The evidence for this is poor.", "So does radial.",
]  # fmt: skip
"""What no conclusion survives, however it was stated."""


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize(
    ("question", "reference", "stated"),
    [(NERVE, "Axillary nerve", RIGHT), ("", "Pneumonia", "The most likely diagnosis is pneumonia.")],
)
def test_a_conclusion_that_is_doubted_as_a_whole_is_not_accepted(
    question: str, reference: str, stated: str, after: str
) -> None:
    assert _label(question, reference, stated) is VerdictLabel.CORRECT
    assert _label(question, reference, f"{stated} {after}") is VerdictLabel.UNDECIDED


def _label(question: str, reference: str, answer: str) -> VerdictLabel:
    item = Judgement(question, reference, answer, "en", references=(reference,))
    return RuleVerifier().judge_sync(item).label


@pytest.mark.parametrize(("question", "reference", "answer"), READ)
def test_an_answer_in_the_words_of_its_question_is_read(question: str, reference: str, answer: str) -> None:
    assert _label(question, reference, answer) is VerdictLabel.CORRECT


@pytest.mark.parametrize(("question", "reference", "answer"), NOT_READ)
def test_an_answer_that_changes_the_question_is_not_accepted(question: str, reference: str, answer: str) -> None:
    assert _label(question, reference, answer) is not VerdictLabel.CORRECT


def test_without_the_question_nothing_is_an_echo() -> None:
    question, reference, answer = READ[0]
    assert _label(question, reference, answer) is VerdictLabel.CORRECT
    assert _label("", reference, answer) is VerdictLabel.UNDECIDED


def test_a_question_of_one_word_is_none_to_read_an_echo_by():
    assert ask("Which?\n\nA. Asthma\nB. Gout") is None
