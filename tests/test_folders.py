"""What is no model folder is told in one sentence, before anything is paid; what is one tells what it is."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.bases import make_base
from clinical_r1.errors import UserError
from clinical_r1.folders import POINTER, check_model_folder, identity


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base("llama3", tmp_path_factory.mktemp("whole") / "llama")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def shard(folder: Path) -> list[Path]:
    """Cut the one file of weights into shards with an index."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({key: weights[key] for key in part}, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return sorted(folder.glob("*-of-*.safetensors"))


def test_what_a_folder_is(folder):
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Model\n")
    found = check_model_folder(folder)
    assert (found.model_type, found.window, found.licence) == ("llama", 256, "apache-2.0")
    assert len(found.end_ids) == 3
    assert "<|eot_id|>" in found.template
    single = found.parameters
    shard(folder)
    assert check_model_folder(folder).parameters == single


def pointer(path: Path) -> None:
    path.write_bytes(POINTER + b"/spec/v1\noid sha256:0\nsize 9\n")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


BROKEN = {
    "pointer weights": (lambda f: pointer(f / "model.safetensors"), "Git LFS pointer"),
    "pointer tokenizer": (lambda f: pointer(f / "tokenizer.json"), "Git LFS pointer"),
    "pointer config": (lambda f: pointer(f / "config.json"), "Git LFS pointer"),
    "pointer shard": (lambda f: pointer(shard(f)[1]), "Git LFS pointer"),
    "a shard missing": (lambda f: shard(f)[0].unlink(), r"model-00001-of-00002\.safetensors missing"),
    "no index": (lambda f: (shard(f), (f / "model.safetensors.index.json").unlink()), "index.json missing"),
    "shards swapped": (
        lambda f: shutil.copy(*reversed(shard(f))), r"model-00001-of-00002.safetensors: .* is not in it",
    ),
    "cut": (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]), "announced"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "cannot be read"),
    "a web page": (lambda f: (f / "model.safetensors").write_text("<!DOCTYPE html>" * 9), "cannot be read"),
    "pickled": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"\*.safetensors missing"),
    "own code": (lambda f: edit(f / "config.json", auto_map={"AutoModel": "x.Y"}), "code of its own"),
    "own tokenizer code": (lambda f: edit(f / "tokenizer_config.json", auto_map={}), "code of its own"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer"),
    "encoder": (lambda f: edit(f / "config.json", architectures=["BertForMaskedLM"]), "no causal language model"),
    "encoder-decoder": (lambda f: edit(f / "config.json", is_encoder_decoder=True), "no causal language model"),
    "config no object": (lambda f: (f / "config.json").write_text("[]"), "not a JSON object"),
    "config no type": (lambda f: (f / "config.json").write_text("{}"), "no model_type"),
    "adapters": (lambda f: (f / "config.json").rename(f / "adapter_config.json"), "adapters and no model"),
    "gguf": (lambda f: ((f / "config.json").unlink(), (f / "m.gguf").touch()), "GGUF"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_whole_model_is_one_sentence(folder, case):
    damage, words = BROKEN[case]
    damage(folder)
    with pytest.raises(UserError, match=words) as told:
        check_model_folder(folder)
    assert str(folder) in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["hf://Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct", "hf:Qwen/Qwen2.5-7B"])
def test_a_name_on_the_hub_says_how_to_get_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hf download Qwen/Qwen2"):
        check_model_folder(name)


def test_identity_is_the_models_and_not_its_companions(folder):
    before = identity(folder)
    for name in ("manifest.json", "MODEL_CARD.md", "README.md", "gate.json", "reasoning_baseline.json"):
        (folder / name).write_text("{}")
    assert identity(folder) == before
    edit(folder / "config.json", rope_theta=5.0)
    assert identity(folder) != before


def test_weights_that_are_not_all_there_are_not_drawn_at_random(folder):
    from safetensors.torch import load_file, save_file

    from clinical_r1.generation.load import load_model

    weights = load_file(folder / "model.safetensors")
    weights.pop("model.layers.1.mlp.down_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 weights are not in its files"):
        load_model(folder)


def test_an_architecture_that_nobody_knows(folder):
    from clinical_r1.generation.load import load_model

    edit(folder / "config.json", model_type="no-such-model")
    with pytest.raises(UserError, match="no-such-model"):
        load_model(folder)
