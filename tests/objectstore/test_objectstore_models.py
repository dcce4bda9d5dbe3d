"""Publishing is atomic, versions never change, and nothing reaches production without a gate and a person."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from clinical_r1.errors import UserError
from clinical_r1.objectstore import models
from clinical_r1.objectstore.face import Store, StoreUnavailable
from clinical_r1.objectstore.manifest import Facts, Gate, check_beside, folder_weights
from clinical_r1.objectstore.store import open_store
from pipelines.cli.models import import_model

PROMOTE: dict[str, Any] = {"rule": "accuracy", "result": "pass", "reason": "+9.0 points"}
HOLD: dict[str, Any] = {"rule": "accuracy", "result": "hold", "reason": "+1.0 points"}
REFUSE: dict[str, Any] = {"rule": "forgetting", "result": "refuse", "reason": "-9.0 points"}


def gate_of(folder: Path, rule: dict[str, Any], answers: str = "first") -> Gate:
    """A decision about the files in the folder as they are now."""
    decision = {"pass": "promote"}.get(rule["result"], rule["result"])
    given = {"decision": decision, "rules": [rule], "weights": folder_weights(folder), "answers": answers}
    return Gate.model_validate(given)


def shard(values: bytes) -> bytes:
    """The first shard of `model_folder` with these values."""
    entry = {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}
    header = json.dumps({"w1": entry}).encode()
    return len(header).to_bytes(8, "little") + header + values


def publish(store: Store, folder: Path, weights: bytes, rule: dict[str, Any] | None = None) -> str:
    (folder / "model-00001-of-00003.safetensors").write_bytes(shard(weights))
    gate = gate_of(folder, rule) if rule else None
    facts = Facts(base_model="Qwen/Qwen2.5-7B", base_revision="abc", gate=gate, licence="apache-2.0", run_id="run-1")
    return models.publish(store, "r1", folder, facts).version


def test_a_published_model_is_found_by_its_alias_and_comes_back(
    store: Store, model_folder: Path, tmp_path: Path
) -> None:
    version = publish(store, model_folder, b"first", PROMOTE)
    gate = gate_of(model_folder, PROMOTE)
    assert store.list_folders() == ("r1",)
    manifest = models.read_manifest(store, "r1", "candidate")
    assert manifest.version == version and manifest.base_revision == "abc" and manifest.gate == gate
    models.fetch(store, "r1", "candidate", tmp_path / "back")
    assert (tmp_path / "back" / "model-00001-of-00003.safetensors").read_bytes() == shard(b"first")
    stored = json.loads(store.get(f"r1/{version}/manifest.json"))
    assert {entry["path"] for entry in stored["files"]} >= {"config.json", "model-00001-of-00003.safetensors"}


def test_the_same_model_twice_is_one_version_with_its_first_manifest(store: Store, model_folder: Path) -> None:
    version = publish(store, model_folder, b"first")
    created = store.get(f"r1/{version}/manifest.json")
    assert publish(store, model_folder, b"first", REFUSE) == version
    assert store.get(f"r1/{version}/manifest.json") == created
    assert len(models.read_aliases(store, "r1")[0].history) == 1


def test_a_version_is_never_overwritten_by_another_model(store: Store, model_folder: Path) -> None:
    models.publish(store, "r1", model_folder, Facts(), version="one")
    (model_folder / "tokenizer.json").write_text('{"v": 1}')
    with pytest.raises(UserError, match="another model already"):
        models.publish(store, "r1", model_folder, Facts(), version="one")


def test_a_manifest_that_a_local_gate_wrote_is_not_the_stores(tmp_path: Path, model_folder: Path) -> None:
    (model_folder / "manifest.json").write_text('{"approved_by": "Dr. A"}')
    store = open_store(str(tmp_path / "store"))
    version = publish(store, model_folder, b"first")
    manifest = models.read_manifest(store, "r1", version)
    assert "manifest.json" not in {entry.path for entry in manifest.files} and manifest.gate is None
    assert [found for found, _ in models.versions(store, "r1")] == [version]


def test_an_upload_that_did_not_end_is_no_version(tmp_path: Path, model_folder: Path) -> None:
    store = open_store(tmp_path / "store")

    def fails(*_: object) -> None:
        raise StoreUnavailable("gone")

    whole = store.put_if_absent
    store.put_if_absent = fails  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        models.publish(store, "r1", model_folder, Facts())
    [(version, manifest)] = models.versions(store, "r1")
    assert manifest is None
    with pytest.raises(UserError, match="its upload did not end"):
        models.read_manifest(store, "r1", version)
    store.put_if_absent = whole  # type: ignore[method-assign]
    assert models.publish(store, "r1", model_folder, Facts()).version == version


def test_promotion_needs_gate_person_and_reason(store: Store, model_folder: Path) -> None:
    bare, held = publish(store, model_folder, b"bare"), publish(store, model_folder, b"held", HOLD)
    refused = publish(store, model_folder, b"refused", REFUSE)
    for version, arguments, words in (
        (bare, {}, "has no gate result"),
        (held, {}, r"held by the gate \(accuracy: \+1\.0 points\).*--override-hold"),
        (refused, {"override_hold": True}, "refused by the gate .*forgetting.*--override-refusal"),
        (held, {"reason": " ", "override_hold": True}, "needs a person and a reason"),
        ("absent", {}, "no such version"),
    ):
        with pytest.raises(UserError, match=words):
            models.promote(store, "r1", version, **({"approved_by": "Dr. Li", "reason": "trial"} | arguments))
    assert models.read_aliases(store, "r1")[0].production == ""
    models.promote(store, "r1", held, "Dr. Li", "small site, reviewed by hand", override_hold=True)
    gate = models.read_manifest(store, "r1", "production").gate
    assert gate and (gate.approved_by, gate.approval_reason) == ("Dr. Li", "small site, reviewed by hand")
    last = models.read_aliases(store, "r1")[0].history[-1]
    assert last.override and last.gate == "hold" and last.by == "Dr. Li"
    (model_folder / "model-00001-of-00003.safetensors").write_bytes(shard(b"bare"))
    models.promote(store, "r1", bare, "Dr. Li", "judged later", gate=gate_of(model_folder, PROMOTE))
    judged = models.read_manifest(store, "r1", bare).gate
    assert judged and judged.decision == "promote" and judged.approved_by == "Dr. Li"


def test_rollback_swaps_production_and_previous(store: Store, model_folder: Path) -> None:
    first = publish(store, model_folder, b"first", PROMOTE)
    second = publish(store, model_folder, b"second", PROMOTE)
    models.promote(store, "r1", first, "Dr. Li", "first")
    with pytest.raises(UserError, match="no version is 'previous' yet"):
        models.rollback(store, "r1", "Dr. Li", "worse")
    models.promote(store, "r1", "candidate", "Dr. Li", "better")
    aliases = models.read_aliases(store, "r1")[0]
    assert (aliases.production, aliases.previous) == (second, first)
    models.rollback(store, "r1", "Dr. Li", "slow in the ward")
    aliases = models.read_aliases(store, "r1")[0]
    assert (aliases.production, aliases.previous) == (first, second)
    assert [move.action for move in aliases.history] == ["publish", "publish", "promote", "promote", "rollback"]
    assert models.read_manifest(store, "r1", "previous").version == second


def test_moves_at_the_same_time_are_all_kept(store: Store, model_folder: Path) -> None:
    versions = [publish(store, model_folder, bytes([i]), PROMOTE) for i in range(5)]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda version: models.promote(store, "r1", version, "Dr. Li", version), versions))
    history = models.read_aliases(store, "r1")[0].history
    assert sorted(move.version for move in history if move.action == "promote") == sorted(versions)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json missing"),
        (lambda folder: (folder / "model-00002-of-00003.safetensors").unlink(), "model-00002.*missing"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_not_published(
    tmp_path: Path, model_folder: Path, spoil, words: str
) -> None:  # type: ignore[no-untyped-def]
    spoil(model_folder)
    with pytest.raises(UserError, match=words):
        models.publish(open_store(tmp_path / "store"), "r1", model_folder, Facts())


@pytest.mark.parametrize(
    "name", ["modeling_new.py", "custom_generate/generate.py", "pytorch_model.bin", "optimizer.pt"]
)
def test_what_can_run_code_is_not_imported(tmp_path: Path, model_folder: Path, name: str) -> None:
    (model_folder / name).parent.mkdir(exist_ok=True)
    (model_folder / name).write_bytes(b"x")
    with pytest.raises(UserError, match=f"{name} is code, or pickled, .* take it out"):
        import_model(model_folder, "base", store=str(tmp_path / "store"))
    assert not (tmp_path / "store" / "base").exists()


def test_a_run_starts_from_a_published_model_by_its_uri(tmp_path: Path, model_folder: Path) -> None:
    from clinical_r1.training.base import BaseModelConfig, check_base_model, resolve_base_model

    uri = f"file://{tmp_path / 'store'}"
    version = models.publish(open_store(uri), "qwen", model_folder, Facts(origin="imported")).version
    config = BaseModelConfig(folder=f"{uri}/qwen/{version}")
    check_base_model(config)
    folder = resolve_base_model(config, [], tmp_path / "base")
    assert (folder / "config.json").read_bytes() == (model_folder / "config.json").read_bytes()


def test_one_unreadable_manifest_does_not_hide_the_rest(store: Store, model_folder: Path) -> None:
    good = models.publish(store, "r1", model_folder, Facts(), version="good", say=lambda _: None)
    store.put("r1/bad/manifest.json", b'{"form": 99}')
    store.put("r1/half/config.json", b"{}")
    found = dict(models.versions(store, "r1"))
    assert list(found) == ["good", "bad", "half"] and found["good"] == good and found["half"] is None
    assert "r1/bad/manifest.json: " in str(found["bad"]) and "another version of clinical-r1" in str(found["bad"])


def test_weights_that_were_cut_after_the_gate_are_not_published(store: Store, model_folder: Path) -> None:
    facts = Facts(gate=gate_of(model_folder, PROMOTE), baseline={"weights": folder_weights(model_folder)})
    weights = model_folder / "model-00002-of-00003.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:5000])
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors: the weights cannot be read"):
        models.publish(store, "r1", model_folder, facts)
    weights.write_bytes(whole[:-1] + b"!")
    with pytest.raises(UserError, match=r"the gate's decision is about the weights [0-9a-f]{12}, but .*model holds"):
        models.publish(store, "r1", model_folder, facts)
    weights.write_bytes(whole)
    for baseline in ({"weights": "0" * 64}, {"n": 3}):
        facts = Facts(gate=facts.gate, baseline=baseline)
        with pytest.raises(UserError, match=r"the reasoning baseline (is about|names no weights)"):
            models.publish(store, "r1", model_folder, facts)
    assert store.list_folders() == ()


@pytest.mark.parametrize("changed", ["tokenizer.json", "generation_config.json", "chat_template.jinja"])
def test_what_decides_the_text_is_bound_and_what_lies_beside_is_not(model_folder: Path, changed: str) -> None:
    before = folder_weights(model_folder)
    (model_folder / "README.md").write_text("a card")
    (model_folder / "gate.json").write_text(gate_of(model_folder, PROMOTE).model_dump_json())
    assert folder_weights(model_folder) == before
    check_beside(model_folder)
    (model_folder / changed).write_text('{"temperature": 2}')
    assert folder_weights(model_folder) != before
    with pytest.raises(UserError, match=r"gate\.json is about the weights"):
        check_beside(model_folder)


def test_a_refusal_is_superseded_by_new_answers_of_the_same_weights_only(store: Store, model_folder: Path) -> None:
    version = publish(store, model_folder, b"refused", REFUSE)

    def promote(gate: Gate, **more: bool) -> None:
        models.promote(store, "r1", version, "Dr. Li", "second look", gate=gate, **more)

    with pytest.raises(UserError, match=r"judges the same answers for which r1/.* was refused"):
        promote(gate_of(model_folder, PROMOTE))
    with pytest.raises(UserError, match="--gate is about the weights"):
        promote(gate_of(model_folder, PROMOTE, "second").model_copy(update={"weights": "0" * 64}))
    with pytest.raises(UserError, match="--gate names no weights"):
        promote(gate_of(model_folder, PROMOTE, "second").model_copy(update={"weights": ""}))
    promote(gate_of(model_folder, PROMOTE, "second"))
    manifest = models.read_manifest(store, "r1", version)
    assert manifest.gate and manifest.gate.decision == "promote"
    assert [gate.decision for gate in manifest.superseded] == ["refuse"]


def test_an_override_stands_for_ever(store: Store, model_folder: Path) -> None:
    version = publish(store, model_folder, b"refused", REFUSE)
    models.promote(store, "r1", version, "Dr. Li", "no other model speaks it", override_refusal=True)
    models.promote(store, "r1", version, "Dr. Wu", "judged again", gate=gate_of(model_folder, PROMOTE, "second"))
    manifest = models.read_manifest(store, "r1", version)
    assert manifest.gate and [(o.decision, o.by) for o in manifest.gate.overrides] == [("refuse", "Dr. Li")]


@pytest.mark.parametrize(
    "text",
    [
        '{"decision": "promote"}',
        '{"decision": "promote", "rules": []}',
        '{"decision": "promote", "rules": [{"rule": "accuracy", "result": "refuse", "reason": "x"}]}',
    ],
)
def test_a_decision_that_its_rules_do_not_give_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="rules"):
        Gate.model_validate_json(text)


def test_only_approved_and_whole_versions_are_served(tmp_path: Path, model_folder: Path) -> None:
    store = open_store(tmp_path / "store")
    version = publish(store, model_folder, b"first", PROMOTE)
    with pytest.raises(UserError, match="nobody took it into production"):
        models.check_served(store, "r1", version)
    models.promote(store, "r1", version, "Dr. Li", "better")
    assert models.check_served(store, "r1", "production").version == version
    (tmp_path / "store" / "r1" / version / "model-00002-of-00003.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"model-00002-of-00003\.safetensors: is not the file of the manifest"):
        models.check_served(store, "r1", "production")
