"""The model card says what must be said."""

import pytest
from invented_run import make_cases, make_predictions

from clinical_r1.evaluation.measure.metrics import measure
from clinical_r1.evaluation.pages.modelcard import CardInputs, model_card, withheld, write_model_card


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
    write_model_card(inputs, tmp_path)
    assert (tmp_path / "MODEL_CARD.md").read_text(encoding="utf-8") == card


@pytest.mark.parametrize(
    ("sizes", "hidden"),
    [
        ({"a": 50, "b": 40}, set()),
        ({"a": 50, "b": 40, "c": 3}, {"c", "b"}),  # alone, it would be the whole less the others
        ({"a": 50, "b": 40, "c": 3, "d": 9}, {"c", "d"}),
        ({"a": 50, "b": 40, "c": 3, "d": 4}, {"c", "d", "b"}),
        ({"a": 5, "b": 4}, {"a", "b"}),
        ({}, set()),
    ],
)
def test_no_small_group_is_given_nor_can_be_worked_out(sizes, hidden):
    assert withheld(sizes) == hidden


def test_the_readme_is_a_card_of_the_hub_with_the_results(tmp_path):
    from huggingface_hub import ModelCard

    cases = make_cases(60)
    metrics = measure(cases, make_predictions(cases, 0.6, 1), "ours", "MedBench-Hard form")
    inputs = CardInputs(name="ours", base_model="Qwen/Qwen2.5-7B-Instruct", licence="apache-2.0", metrics=metrics)
    write_model_card(inputs, tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.base_model) == ("apache-2.0", "Qwen/Qwen2.5-7B-Instruct")
    assert card.data.language == ["en", "zh"] and card.text.strip() == model_card(inputs).strip()
    reward, independent = card.data.eval_results
    assert (reward.metric_type, reward.metric_value) == ("accuracy", round(100 * metrics.overall.share, 2))
    assert (reward.dataset_type, reward.dataset_name) == ("medbench-hard-form", "MedBench-Hard form")
    assert "independent judge" in independent.metric_name and card.data.model_name == "ours"
    other = CardInputs(name="ours", base_model="/models/mine", licence="our own terms", metrics=metrics)
    write_model_card(other, tmp_path)
    data = ModelCard.load(tmp_path / "README.md").data
    assert (data.license, data.license_name, data.base_model) == ("other", "our own terms", None)
