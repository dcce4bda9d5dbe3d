"""Which settings make a PPO run another run."""

from pathlib import Path

from ppo_fixtures import config

from clinical_r1.llm.config import EndpointConfig
from clinical_r1.training.ppo.config import PPOJob
from clinical_r1.verifier.config import JudgeConfig, VerifierConfig


def test_a_judge_that_listens_elsewhere_is_the_same_judge(sft_model, splits, tmp_path: Path):
    """The simulated endpoint gets a new port in every run; a run that is taken up again must know its checkpoints."""

    def identity(port: int, model: str) -> dict:
        endpoint = EndpointConfig(
            name="judge", base_url=f"http://127.0.0.1:{port}/v1", model=model, terms="train", data_region="here"
        )
        judge = JudgeConfig(verifier=VerifierConfig(kind="llm"), endpoint=endpoint)
        folders = {"out_dir": tmp_path / "out", "state_dir": tmp_path / "state"}
        cases = {"cases": splits["cases"], "validation": splits["validation"]}
        return PPOJob(config=config(judge=judge), model=sft_model, **cases, **folders).identity()

    assert identity(1000, "one") == identity(2000, "one")
    assert identity(1000, "one") != identity(1000, "other")
