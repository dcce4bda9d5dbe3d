"""What `clinical-r1 doctor` says of a machine without a cluster."""

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines import machine
from pipelines.cli.main import app

VARIABLES = ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "CLINICAL_R1_NAMESPACE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home without a kubeconfig, an environment without proxies and authorities; the current folder."""
    for name in (*VARIABLES, "SSL_CERT_FILE", "PIP_CERT", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    for scheme in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(check: str) -> list[machine.Finding]:
    return [finding for finding in machine.examine() if finding.check == check]


def test_a_laptop_is_looked_at_without_a_cluster(bare: Path) -> None:
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, done.output
    for word in ("Python", "cores", "memory", "disk", "GPU", "port", "proxy: none is set", "no cluster is named"):
        assert word in done.output


def test_a_proxy_that_takes_loopback_and_one_of_another_kind(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert [finding.state for finding in found("proxy")] == ["ok", "fail"]
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    assert [finding.state for finding in found("proxy")] == ["ok"]
    monkeypatch.setenv("all_proxy", "socks5://proxy.example:1080")
    assert [finding.detail for finding in found("proxy") if finding.state == "fail"] == ["all_proxy is socks5://…"]


def test_an_authority_that_is_no_certificate(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bare / "ca.pem").write_text("not a certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bare / "ca.pem"))
    (finding,) = found("authority")
    assert finding.state == "fail"
    assert "REQUESTS_CA_BUNDLE" in finding.detail


def test_a_port_that_is_taken(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(machine, "PORT", server.getsockname()[1])
        assert [finding.state for finding in found("port")] == ["warn"]
    assert [finding.state for finding in found("port")] == ["ok"]
