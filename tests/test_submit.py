"""`clinical-r1 submit | runs | doctor --endpoint` as a user calls them, against a server that speaks KFP's API."""

import contextlib
import io
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipelines_server import NAMESPACE, TOKEN, PipelinesServer
from test_cli import assert_refused

from pipelines.cli.main import main

ASKED = ("synthesis.synthesizer", "ppo.judge.endpoint", "evaluation.reward_judge.endpoint")
REAL_ENDPOINTS = [f"{place}.base_url=http://endpoint.example/v1" for place in ASKED]
CONFIG = ("--config", "demo", *(word for one in REAL_ENDPOINTS for word in ("--set", one)))


def clinical_r1(*arguments: str) -> subprocess.CompletedProcess:
    """The command in this process: importing kfp for each call would take longer than the calls."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["clinical-r1", *arguments])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


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
    done = clinical_r1("submit", "train", *CONFIG, "--endpoint", server.url, "--param", "nodes=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["run r-0", f"{server.url}/#/runs/details/r-0"]
    run = server.runs[0]
    given = run["runtime_config"]["parameters"]
    assert given["nodes"] == 2 and given["state_dir"].startswith("/state/train-")
    assert json.loads(given["synthesis"])["synthesizer"]["base_url"] == "http://endpoint.example/v1"
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "train"
    assert server.experiments[0]["display_name"] == "clinical-r1" and run["experiment_id"] == "e-1"
    listed = clinical_r1("runs", "--endpoint", server.url)
    assert listed.returncode == 0, listed.stderr
    when, _, state = listed.stdout.split()[:3]
    assert (when, state) == ("2026-01-02", "PENDING") and listed.stdout.strip().endswith("r-0")


def test_submit_starts_an_experiment_with_state_on_the_claim(server: PipelinesServer) -> None:
    settings = ["simulator=null", "endpoints={}", "records.sources=[{path: /state/cases.jsonl}]", *REAL_ENDPOINTS]
    knobs = ["accelerators=2", "node_selector={gpu: h100}"]
    words = [word for setting in settings for word in ("--set", setting)]
    words += [word for knob in knobs for word in ("--param", knob)]
    done = clinical_r1("submit", "ablate-rl", *words, "--endpoint", server.url)
    assert done.returncode == 0, done.stderr
    given = server.runs[0]["runtime_config"]["parameters"]
    assert given["state_dir"].startswith("/state/ablate-rl-") and given["sources_sha256"].startswith("unseen-")
    assert all(arm["state_dir"].startswith(f"{given['state_dir']}/arm-") for arm in given["arms"])
    assert given["node_selector"] == {"gpu": "h100"} and str(given["accelerators"]) == "2"


def test_an_experiment_on_a_cluster_needs_endpoints_and_graded_answers(server: PipelinesServer) -> None:
    place = ("--endpoint", server.url)
    assert_refused(clinical_r1("submit", "ablate-rl", *place), "simulated endpoint", "--config")
    assert_refused(clinical_r1("submit", "audit-verifier", *place), "experiment.labelled", "on the claim")
    assert_refused(clinical_r1("submit", "ablate-rl", "--set", "experiment.seedz=[1]", *place), "did you mean 'seeds'")
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
    assert_refused(clinical_r1("submit", "trian", *place), "unknown pipeline 'trian': choose one of", "train")
    assert_refused(clinical_r1("submit", "train", *place, "--param", "gpus=8"), "--param gpus", "--help-params")
    assert_refused(clinical_r1("submit", "train", "--endpoint", server.url), "simulated endpoint", "--config")
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
