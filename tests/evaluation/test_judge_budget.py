"""A judge's budget: it stops the verdicts cleanly, and a raised limit pays for none twice."""

import pytest
from invented_run import make_cases, make_predictions

from clinical_r1.evaluation.judging.judge import CALLS, judge_predictions
from clinical_r1.llm.config import BudgetConfig, EndpointConfig
from clinical_r1.llm.journal import JOURNAL, journaled_keys
from clinical_r1.llm.reply import BudgetExhausted
from clinical_r1.simulator.beside import simulated_endpoint
from clinical_r1.training.ppo.scoring import JudgeThread
from clinical_r1.verifier.config import JudgeConfig, VerifierConfig
from clinical_r1.verifier.judgement import Judgement


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint")
    with simulated_endpoint([], folder / "endpoint.log", folder / "ready.json") as url:
        yield url


def judged_by(base_url: str, max_tokens: int | None) -> JudgeConfig:
    endpoint = EndpointConfig(name="judge", base_url=base_url, model="simulated", trusted=True, max_concurrency=4)
    verifier = VerifierConfig(kind="llm")
    return JudgeConfig(verifier=verifier, endpoint=endpoint, budget=BudgetConfig(max_tokens=max_tokens))


def test_an_evaluation_stops_and_goes_on(base_url, tmp_path) -> None:
    cases = make_cases(40)
    predictions = make_predictions(cases, 0.5, 1)
    journal = tmp_path / CALLS / JOURNAL
    with pytest.raises(BudgetExhausted, match="raise max_tokens"):
        judge_predictions(judged_by(base_url, 1500), cases, predictions, tmp_path, concurrency=8)
    paid = set(journaled_keys(journal))
    assert 0 < len(paid) < 40
    with pytest.raises(BudgetExhausted):
        judge_predictions(judged_by(base_url, 1500), cases, predictions, tmp_path, concurrency=8)
    assert set(journaled_keys(journal)) == paid, "a spent budget buys nothing"
    verdicts = judge_predictions(judged_by(base_url, None), cases, predictions, tmp_path, concurrency=8)
    keys = list(journaled_keys(journal))
    assert len(verdicts) == 40 and len(keys) == len(set(keys)) and paid < set(keys)


def test_rewards_stop_and_go_on(base_url, tmp_path) -> None:
    cases = make_cases(30)
    items = [Judgement.of(case, case.reference) for case in cases]
    with JudgeThread(judged_by(base_url, 1500), tmp_path) as judge, pytest.raises(BudgetExhausted):
        judge.submit(items).result(timeout=300)
    paid = set(journaled_keys(tmp_path / JOURNAL))
    assert 0 < len(paid) < 30
    with JudgeThread(judged_by(base_url, None), tmp_path) as judge:
        assert len(judge.submit(items).result(timeout=300)) == 30
    keys = list(journaled_keys(tmp_path / JOURNAL))
    assert len(keys) == len(set(keys)) == 30
