import json
import shutil

import pytest

from clinical_r1.errors import UserError
from clinical_r1.folders import check_model_folder
from clinical_r1.generation.load import load_model, load_tokenizer, save_model

NASTY = [
    "Na+ 135, K+ 3.5; 2024-01-02 37.85°C  98.6F\n\n\n 120/80mmHg\t\r\n it's I'LL",
    "患者体温３９．５℃，白细胞12.3×10^9/L。",
    "<think>\nWait, check 12345 again.\n</think>\n\nDiagnosis: J18.9<|im_end|>\n",
    "e\u0301 naïve \u00a0 \u3000 ﬁ 😀",
]


def test_the_tokenizer_is_identical_after_save_and_load(folder, corpus, tmp_path):
    """A reloaded tokenizer that cuts numbers differently halves the accuracy without any error."""
    import clinical_r1.training.base as tiny

    texts = [json.loads(line)["question"] + " 3.14 12345 38.5" for line in corpus.open(encoding="utf-8")]
    trained = tiny.train_tokenizer(texts, 320)
    trained.save_pretrained(tmp_path / "t")
    shutil.copy(folder / "config.json", tmp_path / "t")
    shutil.copy(folder / "model.safetensors", tmp_path / "t")
    loaded = load_tokenizer(tmp_path / "t")
    for text in NASTY:
        assert loaded(text)["input_ids"] == trained(text)["input_ids"]
        assert loaded.decode(loaded(text)["input_ids"]) == trained.decode(trained(text)["input_ids"])
    ours, theirs = json.loads(trained.backend_tokenizer.to_str()), json.loads(loaded.backend_tokenizer.to_str())
    for part in ("normalizer", "pre_tokenizer", "decoder", "model", "added_tokens"):
        assert ours[part] == theirs[part], part
    assert loaded.chat_template == trained.chat_template
    assert (loaded.eos_token, loaded.pad_token) == (trained.eos_token, trained.pad_token)


def test_the_saved_tokenizer_file_alone_encodes_the_same(folder):
    """vLLM and the serving engine may read tokenizer.json without transformers."""
    from tokenizers import Tokenizer

    plain, full = Tokenizer.from_file(str(folder / "tokenizer.json")), load_tokenizer(folder)
    for text in NASTY:
        assert plain.encode(text).ids == full(text)["input_ids"]


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_is_no_model_is_refused(folder, tmp_path, missing):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / missing).unlink()
    with pytest.raises(UserError, match=r"no model folder"):
        check_model_folder(broken)
    with pytest.raises(UserError, match="no such folder"):
        check_model_folder(tmp_path / "absent")


def test_cut_weights_are_refused(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_model(broken)


def test_saving_replaces_a_folder_whole(folder, tmp_path):
    model, tokenizer = load_model(folder)
    target = tmp_path / "model"
    target.mkdir()
    (target / "stale.txt").write_text("old")
    save_model(model, tokenizer, target)
    assert not (target / "stale.txt").exists()
    assert check_model_folder(target).path == target
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
