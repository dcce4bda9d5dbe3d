"""The model card says what must be said."""

from invented_run import make_cases, make_predictions

from clinical_r1.evaluation.metrics import measure
from clinical_r1.evaluation.modelcard import CardInputs, model_card, write_model_card


def test_card_has_subgroups_limits_and_intended_use(tmp_path):
    cases = make_cases(600)
    metrics = measure(cases, make_predictions(cases, 0.6, 1), "ours", "test")
    gate = {
        "decision": "hold",
        "against": "base",
        "rules": [{"rule": "accuracy", "result": "hold", "reason": "too few"}],
    }
    inputs = CardInputs(
        name="ours", simulated=True, simulated_teacher=True, metrics=metrics, gate=gate, hallucinated=(3, 600)
    )
    card = model_card(inputs)
    for text in (
        "Not a medical device",
        "不是医疗器械",
        "Simulated world",
        "The teacher was simulated",
        "Specialty: urology",
        "3 of 600 thoughts",
        "**hold**",
    ):
        assert text in card
    assert "small: unknown" in card
    write_model_card(inputs, [tmp_path])
    assert (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8") == card
