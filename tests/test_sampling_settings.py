"""Sampling has one owner: written out in every request, neutral in what we save, compared with what is served."""

import json

import pytest
from pydantic import ValidationError

from clinical_r1.baseline import make_baseline, read_baseline, write_baseline
from clinical_r1.cluster.inference_service import drawn_otherwise
from clinical_r1.objectstore.store import open_store
from clinical_r1.sampling import NEUTRAL, Sampling, differences


def test_a_request_carries_every_value() -> None:
    assert set(Sampling().fields()) == {"temperature", "max_tokens", *NEUTRAL}
    assert Sampling(stop=("\n\n",)).fields()["stop"] == ["\n\n"]
    with pytest.raises(ValidationError):
        Sampling(top_p=0)


def test_what_is_served_is_compared_with_what_was_evaluated() -> None:
    qwen = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05, "do_sample": True}
    assert len(differences(Sampling(), qwen)) == 4
    assert "repetition_penalty: evaluated with 1, served with 1.05" in differences(Sampling(), qwen)
    assert differences(Sampling(), {"top_k": 0, "temperature": 0}) == []
    assert Sampling().told() == "greedy, at most 1024 tokens"
    assert Sampling(temperature=0.6, top_p=0.95).told() == "temperature 0.6, top_p 0.95, at most 1024 tokens"


def test_the_baseline_says_how_its_answers_were_drawn(tmp_path) -> None:
    write_baseline(make_baseline([], [], decoding=Sampling(max_tokens=64)), tmp_path)
    assert read_baseline(tmp_path).decoding == Sampling(max_tokens=64)


VLLM = ["python3", "-m", "vllm.entrypoints.openai.api_server", "--model=/mnt/models"]
QWEN = {"temperature": 0.7, "top_k": 20, "do_sample": True}


@pytest.mark.parametrize(
    ("engine", "wrong"),
    [
        ([*VLLM, "--generation-config=vllm"], []),
        ([*VLLM, "--generation-config", "vllm"], []),
        (VLLM, ["temperature", "top_k"]),
        ([*VLLM, "--generation-config", "auto"], ["temperature", "top_k"]),
        ([*VLLM, "--generation-config=vllm", '--override-generation-config={"top_p": 0.8}'], ["top_p"]),
        (["python3", "-m", "serving.engine"], []),
        ([], []),
    ],
)
def test_a_served_model_is_compared_with_its_evaluation(tmp_path, engine, wrong) -> None:
    write_baseline(make_baseline([], [], decoding=Sampling()), tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(QWEN))
    found = drawn_otherwise(open_store(tmp_path), engine)
    assert [one.partition(":")[0] for one in found] == wrong
    assert all("--generation-config vllm" in one for one in found)


def test_a_served_model_without_a_record_of_its_decoding_is_told(tmp_path) -> None:
    assert "no record" in drawn_otherwise(open_store(tmp_path), VLLM)[0]
    write_baseline(make_baseline([], []), tmp_path)
    assert "no record" in drawn_otherwise(open_store(tmp_path), VLLM)[0]
