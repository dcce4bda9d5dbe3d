"""`clinical-r1 submit | runs | doctor --endpoint` as a user calls them, against a server that speaks KFP's API."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pipelines_server import NAMESPACE, TOKEN, PipelinesServer
from test_cli import assert_refused, clinical_r1

from clinical_r1.runs.form import settle
from clinical_r1.runs.sources import own_cases, simulated
from pipelines.submit import local_parameters

ASKED = ("synthesis.synthesizer", "ppo.judge.endpoint", "evaluation.reward_judge.endpoint")
REAL_ENDPOINTS = [f"{place}.base_url=http://endpoint.example/v1" for place in ASKED]
CONFIG = ("--config", "demo", *(word for one in REAL_ENDPOINTS for word in ("--set", one)))


@pytest.fixture
def server() -> Iterator[PipelinesServer]:
    with PipelinesServer() as server:
        yield server


@pytest.fixture
def profiles() -> Iterator[PipelinesServer]:
    with PipelinesServer(multi_user=True) as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> str:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return str(path)


def test_submit_starts_a_run_and_runs_lists_it(server: PipelinesServer) -> None:
    words = ("--param", "nodes=2", "--param", "accelerators=8", "--param", "models_uri=", "--param", "kl_beta=5e-2")
    done = clinical_r1("submit", "train", *CONFIG, "--endpoint", server.url, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["run r-0", f"{server.url}/#/runs/details/r-0"]
    run = server.runs[0]
    given = run["runtime_config"]["parameters"]
    assert given["nodes"] == 2 and given["accelerators"] == "8" and given["models_uri"] == ""
    assert given["kl_beta"] == 0.05 and given["state_dir"].startswith("/state/train-") and given["preset"] == "demo"
    assert given["overrides"]["synthesis"]["synthesizer"]["base_url"] == "http://endpoint.example/v1"
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "train"
    assert server.experiments[0]["display_name"] == "clinical-r1" and run["experiment_id"] == "e-1"
    listed = clinical_r1("runs", "--endpoint", server.url)
    assert listed.returncode == 0, listed.stderr
    when, _, state = listed.stdout.split()[:3]
    assert (when, state) == ("2026-01-02", "PENDING") and listed.stdout.strip().endswith("r-0")


def dry(*words: str) -> dict:
    done = clinical_r1("submit", *words, "--dry-run")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_file_of_the_users_goes_whole_and_the_same_records_meet_their_state_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "extends: demo\nsynthesis: gpt-4o-mini\nsft: {epochs: 9}\nrecords: {sources: [{path: /state/cases.jsonl}]}\n"
    )
    words = ("train", "--config", str(file), "--set", "ppo.steps=7", "--param", "sft_epochs=2")
    given, again = dry(*words), dry(*words, "--set", "ppo.steps=8")
    assert given["preset"] == "none" and given["overrides"]["ppo"]["steps"] == 7
    assert given["overrides"]["sft"]["epochs"] == 2 == given["resolved"]["sft"]["epochs"]
    assert given["state_dir"] == again["state_dir"] != dry("train")["state_dir"]
    settled = settle("train", "none", {"overrides": given["overrides"]})
    assert settled.model_dump(mode="json") == given["resolved"]


def test_the_three_doors_come_to_one_configuration() -> None:
    parameters = {"sft_epochs": 2.0, "languages": "en", "batch_size": 32, "reward_table": "huatuo", "kl_beta": 0.0}
    words = [word for name, value in parameters.items() for word in ("--param", f"{name}={value}")]
    submitted = dry("train", *words, "--set", "sft.seed=5")
    ran = clinical_r1("run", "train", *words, "--set", "sft.seed=5", "--dry-run")
    assert ran.returncode == 0, ran.stderr
    form = settle("train", submitted["preset"], parameters | {"overrides": submitted["overrides"]})
    assert form.model_dump(mode="json") == submitted["resolved"] == yaml.safe_load(ran.stdout)
    assert form.sft.batch_size == form.ppo.batch_size == 32 and form.sft.seed == 5 and form.ppo.kl_beta == 0


def test_off_is_a_word_in_a_parameter_too() -> None:
    """As in a file and in --set; where true or false is asked for, it is false."""
    given = local_parameters("train", ["overrides={records: {phi: {policy: off}}}", "endpoints_trusted=on"])[1]
    assert given == {"overrides": {"records": {"phi": {"policy": "off"}}}, "endpoints_trusted": True}


@pytest.mark.parametrize(
    ("param", "said"),
    [
        ("sft_epoch=2", "--param sft_epoch: train has no such parameter: did you mean 'sft_epochs'?"),
        ("sft_epochs=two", "--param sft_epochs=two: wants a number"),
        ("ppo_steps=2.5", "--param ppo_steps=2.5: wants a whole number"),
        ("ppo_steps=true", "--param ppo_steps=true: wants a whole number"),
        ("endpoints_trusted=1", "wants true or false"),
        ("node_selector=[1]", "wants a mapping"),
        ("tolerations=[", "not valid JSON or YAML"),
        ("accelerators", "write it as NAME=VALUE"),
        ("batch_size=0", "parameter batch_size: sft.batch_size: Input should be greater"),
        ("reward_table=papper", "reward_table 'papper': no such table; did you mean 'paper'?"),
        ("seed=-7", "parameter seed: "),
        ("base_model=s3://b/models/x", "base_model.folder: s3://b/models/x: write s3://BUCKET/models/NAME/VERSION"),
        ("preset=none", "preset none: records: Field required"),
        ("languages=fr", "parameter languages: records.languages"),
        ("synthesizer_url=http://t/v1", "parameter synthesizer_model: empty"),
        ("judge_model=m", "parameter judge_url: empty"),
        ("record_map=question=q", "parameter record_map question=q: it names columns of `records`"),
        ('overrides={"sft": {"epoch": 2}}', "overrides: unknown key 'sft.epoch': did you mean 'epochs'?"),
        ('overrides={"stf.epochs": 2}', "overrides: unknown key 'stf': did you mean 'sft'?"),
        ("records=,", "parameter records: only commas"),
        ("preset=dmeo", "preset dmeo: neither a file nor a shipped configuration: did you mean 'demo'?"),
        ("sft_epochs=inf", "parameter sft_epochs: sft.epochs: inf: write a finite number"),
        ("ppo_learning_rate=.nan", "parameter ppo_learning_rate: ppo.learning_rate"),
        ('overrides={"sft.epochs": "inf"}', "overrides: sft.epochs: inf: write a finite number"),
        ("languages=en,en", "parameter languages: en is there twice"),
        ("state_dir=ward-7", "parameter state_dir: ward-7: write a folder on the volume"),
        ("state_dir=/state/../etc", "parameter state_dir: /state/../etc: write a folder on the volume"),
        ("records=s3://b/records/x", "the simulated teacher knows the diagnoses of its own world only"),
    ],
)
def test_a_mistake_in_the_form_is_one_sentence_before_anything_is_sent(param: str, said: str) -> None:
    assert_refused(clinical_r1("submit", "train", "--param", param, "--dry-run"), said)


SECRET = "sk-proj-A1b2C3d4"


@pytest.mark.parametrize("pipeline", ["train", "audit", "ablate-rl"])
@pytest.mark.parametrize("key", [SECRET, "hf_abcDEF", "Bearer X", "0123456789abcdef"])
def test_a_key_in_the_form_is_refused_and_not_repeated(pipeline: str, key: str) -> None:
    role = ("judge_key=", "judge_url=https://j/v1", "judge_model=m")
    words = [word for one in (role[0] + key, *role[1:]) for word in ("--param", one)]
    refused = clinical_r1("submit", pipeline, *words, "--dry-run")
    assert_refused(refused, "parameter judge_key", "write JUDGE_API_KEY")
    assert key not in refused.stderr + refused.stdout


def test_real_endpoints_take_the_simulated_ones_place() -> None:
    words = (
        "synthesizer_url=https://t/v1",
        "synthesizer_model=big",
        "records=s3://b/records/x",
        "endpoints_trusted=true",
    )
    given = dry("train", *(word for one in words for word in ("--param", one)))["resolved"]
    assert given["simulator"] is None and "SIMULATOR" not in json.dumps(given)
    asked = [given["synthesis"]["synthesizer"], given["ppo"]["judge"]["endpoint"]]
    asked.append(given["evaluation"]["reward_judge"]["endpoint"])
    assert {(one["base_url"], one["model"], one["trusted"]) for one in asked} == {("https://t/v1", "big", True)}
    assert given["records"]["sources"][0]["path"] == "s3://b/records/x"


def test_a_real_teacher_may_be_asked_about_the_demos_made_up_cases() -> None:
    words = ("--param", "synthesizer_url=https://t/v1", "--param", "synthesizer_model=m")
    resolved = dry("train", *words)["resolved"]
    config = settle("train", "none", {"overrides": resolved})
    assert config.simulator is not None and not own_cases(config) and not simulated(config)
    assert_refused(
        clinical_r1("submit", "train", *words, "--param", "synthesizer_key=SYNTHESIZER_KEY", "--dry-run"),
        "synthesis.synthesizer.api_key_env: SYNTHESIZER_KEY: steps see no key of that name",
    )


@pytest.mark.parametrize(("name", "meant"), [("trian", "train"), ("ablate-lr", "ablate-rl"), ("audits", "audit")])
def test_a_pipeline_or_experiment_that_is_none_has_a_near_miss(name: str, meant: str) -> None:
    assert_refused(clinical_r1("submit", name, "--dry-run"), f"unknown pipeline '{name}': did you mean '{meant}'?")


def test_an_endpoint_that_nobody_simulates_is_named() -> None:
    words = ("synthesizer_url=https://t/v1", "synthesizer_model=m", "records=/state/x.jsonl")
    words = (*(word for one in words for word in ("--param", one)), "--dry-run")
    refused = clinical_r1("submit", "compare-synthesizers", *words)
    assert_refused(refused, "http://${CLINICAL_R1_SIMULATOR_RIVAL}: this run simulates none of that name")
    assert_refused(clinical_r1("run", "train", "--set", "simulator=null", "--runs", "/nowhere"), "simulates none")


def test_records_may_have_spaces_in_their_names() -> None:
    words = ("synthesizer_url=https://t/v1", "synthesizer_model=m ", "records= /state/ward 7.csv , /state/b.jsonl,")
    given = dry("train", *(word for one in words for word in ("--param", one)))["resolved"]
    assert [one["path"] for one in given["records"]["sources"]] == ["/state/ward 7.csv", "/state/b.jsonl"]
    assert given["synthesis"]["synthesizer"]["model"] == "m"


def test_submit_starts_an_experiment(server: PipelinesServer) -> None:
    words = ("--param", "accelerators=2", "--param", "node_selector={gpu: h100}", "--set", "experiment.seeds=[4]")
    done = clinical_r1("submit", "ablate-rl", *words, "--endpoint", server.url)
    assert done.returncode == 0, done.stderr
    given = server.runs[0]["runtime_config"]["parameters"]
    assert given["preset"] == "experiments/ablate-rl" and given["state_dir"].startswith("/state/ablate-rl-")
    assert given["overrides"] == {"experiment": {"seeds": [4]}} and given["node_selector"] == {"gpu": "h100"}
    assert (
        given["experiment"] == "ablate-rl"
        and "experiment" in server.runs[0]["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
    )
    told = dry("experiments", "--param", "experiment=held-out-site")
    assert told["experiment"] == "held-out-site" and told["preset"] == "experiments/held-out-site"


def test_an_experiment_with_wrong_settings_is_not_sent(server: PipelinesServer) -> None:
    place = ("--endpoint", server.url)
    unlabelled = ("--set", "simulator=null")
    assert_refused(clinical_r1("submit", "audit-verifier", *unlabelled, *place), "experiment.labelled", "on the claim")
    assert_refused(clinical_r1("submit", "ablate-rl", "--set", "experiment.seedz=[1]", *place), "did you mean 'seeds'")
    other = ("--param", "experiment=held-out-site", *place)
    assert_refused(clinical_r1("submit", "ablate-rl", *other), "experiment=held-out-site: ablate-rl is named already")
    for door in ("submit", "run"):
        wrong = clinical_r1(door, "experiments", "--param", "experiment=held-out-sit")
        assert_refused(wrong, "unknown experiment 'held-out-sit': did you mean 'held-out-site'?")
    assert server.requests == []


def test_a_profile_needs_a_token_and_a_namespace(profiles: PipelinesServer, token: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("wrong")
    submit = ("submit", "train", *CONFIG, "--endpoint", profiles.url)
    assert_refused(clinical_r1(*submit), "not allowed (HTTP 401)", "--token-file")
    wrong = (*submit, "--token-file", str(tmp_path / "wrong"), "--namespace", NAMESPACE)
    assert_refused(clinical_r1(*wrong), "not allowed (HTTP 401)", "--token-file")
    absent = (*submit, "--token-file", str(tmp_path / "absent"))
    assert_refused(clinical_r1(*absent), f"--token-file {tmp_path}/absent: No such file")
    assert_refused(clinical_r1(*submit, "--token-file", token), "multi-user", "--namespace")
    other = (*submit, "--token-file", token, "--namespace", "team-b")
    assert_refused(clinical_r1(*other), "not allowed (HTTP 403)", "--namespace")
    assert profiles.runs == []
    done = clinical_r1(*submit, "--token-file", token, "--namespace", NAMESPACE)
    assert done.returncode == 0 and len(profiles.runs) == 1, done.stderr


def test_nothing_is_asked_of_the_server_for_wrong_input(server: PipelinesServer) -> None:
    place = (*CONFIG, "--endpoint", server.url)
    assert_refused(clinical_r1("submit", "trian", *place), "unknown pipeline 'trian': did you mean 'train'?")
    assert_refused(clinical_r1("submit", "train", *place, "--param", "gpus=8"), "--param gpus", "--help-params")
    assert server.requests == []


def test_nobody_there_and_somebody_else(server: PipelinesServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert_refused(clinical_r1("runs", "--endpoint", nobody), "no answer", "--endpoint")
    assert_refused(clinical_r1("runs", "--endpoint", f"{server.url}/other"), "HTTP 404", "with its path")
    assert_refused(clinical_r1("runs", "--endpoint", server.url.replace("http", "https")), "no TLS there")


def test_doctor_asks_the_endpoint_too(profiles: PipelinesServer, token: str, tmp_path: Path) -> None:
    """Without a cluster doctor has nothing to look at; the endpoint's sentence is that of `submit`."""
    from clinical_r1.errors import UserError
    from pipelines.submit import Endpoint

    assert Endpoint(profiles.url, Path(token)).version() == f"{profiles.url} answers (multi-user)"
    with pytest.raises(UserError, match="HTTP 401"):
        Endpoint(profiles.url).version()


def test_two_presets_are_refused() -> None:
    done = clinical_r1("submit", "train", "--dry-run", "--config", "small", "--param", "preset=demo")
    assert done.returncode == 2
    assert "keep one of them" in done.stderr
