"""The HTTP client on the wire: replies in every framing, connections that are kept or dropped, TLS and proxies."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from llm_server import attempt_messages

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.llm.reply import CallFailed

CONTENT = b'{"choices": [{"message": {"content": "fine"}}]}'
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT


class Wire:
    """A server that answers each request with given bytes; counts connections and keeps the requests."""

    def __init__(self, parts: list[bytes], close: bool = False, pause: float = 0.0) -> None:
        self.parts, self.closes, self.pause = parts, close, pause
        self.connections = 0
        self.sent = 0
        """Replies of which all parts are sent."""
        self.requests: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(length[0].split(b":")[1]) if length else 0)
                self.requests.append(head + body)
                for part in self.parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(self.pause)
                self.sent += 1
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await listen(wire)` serves on loopback and returns the authority."""
    servers = []

    async def start(serve, tls: ssl.SSLContext | None = None) -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

    yield start
    for server in servers:
        server.close()


def entry(base_url: str, **fields) -> EndpointConfig:
    return EndpointConfig(name="wire", base_url=base_url, model="m", **{"max_retries": 0, **fields})


async def ask(base_url: str, times: int = 1, **fields) -> list[str]:
    async with LLMClient(entry(base_url, **fields)) as client:
        return [(await client.chat(attempt_messages(), sample_index=index)).text for index in range(times)]


@pytest.mark.parametrize(
    "parts",
    [
        [SIZED],
        [bytes([byte]) for byte in SIZED],
        [b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED],
        [b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\nContent-Length: 7\r\n\r\n", SIZED],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
        + [b"%x\r\n%s\r\n" % (len(part), part) for part in (CONTENT[:10], CONTENT[10:])]
        + [b"0\r\nTrailer: x\r\n\r\n"],
    ],
    ids=["whole", "byte by byte", "continue first", "hints first", "chunked"],
)
async def test_every_framing_is_read_and_the_connection_kept(listen, parts: list[bytes]) -> None:
    wire = Wire(parts)
    assert await ask(f"http://{await listen(wire.serve)}/v1", times=3) == ["fine"] * 3
    assert (wire.connections, len(wire.requests)) == (1, 3)
    head = wire.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert head[0] == b"POST /v1/chat/completions HTTP/1.1"
    assert {line.partition(b":")[0].lower() for line in head[1:]} >= {b"host", b"authorization", b"content-length"}


@pytest.mark.parametrize(
    "parts",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", CONTENT],
        [b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT), CONTENT],
        [SIZED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)],
    ],
    ids=["until the end", "HTTP/1.0", "close"],
)
async def test_a_connection_that_ends_is_not_used_again(listen, parts: list[bytes]) -> None:
    wire = Wire(parts, close=True)
    assert await ask(f"http://{await listen(wire.serve)}/v1", times=2) == ["fine", "fine"]
    assert wire.connections == 2


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"garbage\r\n\r\n"],
        [SIZED[:-4]],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
        [b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nX"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
    ],
    ids=["nothing", "no HTTP", "cut", "cut chunk", "two lengths", "upgrade", "half a header", "interim only"],
)
async def test_what_is_no_whole_reply_is_a_lost_connection(listen, parts: list[bytes]) -> None:
    wire = Wire(parts, close=True)
    with pytest.raises(CallFailed, match="connection"):
        await ask(f"http://{await listen(wire.serve)}/v1")


async def test_a_second_reply_to_one_request_is_never_read_as_the_next(listen) -> None:
    """What a server sends unasked would answer the wrong case."""
    wire = Wire([SIZED + SIZED.replace(b"fine", b"evil")])
    assert await ask(f"http://{await listen(wire.serve)}/v1", times=3) == ["fine"] * 3
    assert wire.connections == 3
    late = Wire([SIZED, SIZED.replace(b"fine", b"evil")], pause=0.05)
    async with LLMClient(entry(f"http://{await listen(late.serve)}/v1")) as client:
        for index in range(3):
            assert (await client.chat(attempt_messages(), sample_index=index)).text == "fine"
            while late.sent <= index:
                await asyncio.sleep(0.01)
    assert late.connections == 3


async def test_silence_and_dripping_end(listen) -> None:
    drip = Wire([b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n"] + [b" "] * 60_000, pause=0.03)
    url = f"http://{await listen(drip.serve)}/v1"
    for limits in ({"read_timeout": 0.01}, {"read_timeout": 60.0, "total_timeout": 0.3, "connect_timeout": 1}):
        async with asyncio.timeout(120):
            with pytest.raises(CallFailed, match="timeout"):
                await ask(url, **limits)


async def test_endless_headers_end(listen) -> None:
    wire = Wire([b"HTTP/1.1 200 OK\r\n"] + [b"X-%d: " % i + b"y" * (1 << 20) + b"\r\n" for i in range(40)], close=True)
    with pytest.raises(CallFailed, match="oversized"):
        await ask(f"http://{await listen(wire.serve)}/v1")


@pytest.fixture
def tls(tmp_path: Path, monkeypatch) -> ssl.SSLContext:
    """A server's context with a certificate for localhost, which clients trust by SSL_CERT_FILE."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext {names} -keyout k -out c"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True, timeout=60)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "c"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c", tmp_path / "k")
    return context


async def test_tls_is_spoken_and_certificates_are_checked(listen, tls, monkeypatch, tmp_path) -> None:
    wire = Wire([SIZED])
    url = f"https://{await listen(wire.serve, tls)}/v1"
    assert await ask(url, times=2) == ["fine", "fine"]
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(UserError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
        await ask(url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "c"))
    assert await ask(url) == ["fine"]
    assert wire.connections == 2, "a server that is not trusted sees no request"


class TunnelProxy:
    """A proxy that lets CONNECT through where the password is right."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head)
        if b"Proxy-Authorization: Basic bWU6czo=" not in head:  # me:s:
            writer.write(b"HTTP/1.1 407 No\r\nContent-Length: 4\r\n\r\nwho?")
            writer.close()
            return
        host, port = head.split()[1].decode().split(":")
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(4096):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)


async def test_https_goes_through_the_tunnel_of_a_proxy(listen, tls, monkeypatch) -> None:
    wire, proxy = Wire([SIZED]), TunnelProxy()
    authority, via = await listen(wire.serve, tls), await listen(proxy.serve)
    monkeypatch.setenv("https_proxy", f"http://me:s%3A@{via}")
    assert await ask(f"https://{authority}/v1", times=2) == ["fine", "fine"]
    assert [head.split(b"\r\n")[0] for head in proxy.asked] == [f"CONNECT {authority} HTTP/1.1".encode()]
    assert b"Proxy-Authorization" not in wire.requests[0], "the endpoint does not learn the proxy's password"
    monkeypatch.setenv("https_proxy", f"http://{via}")
    with pytest.raises(CallFailed, match="connection"):
        await ask(f"https://{authority}/v1")


async def test_a_proxy_of_another_kind_is_one_sentence(monkeypatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")
    with pytest.raises(UserError, match=r"socks5.*no_proxy"):
        await ask("http://endpoint.invalid/v1")


async def test_addresses_in_any_letters(listen) -> None:
    wire = Wire([SIZED])
    authority = await listen(wire.serve)
    assert await ask(f"http://{authority}/医院 a/v1/") == ["fine"]
    path = "/%E5%8C%BB%E9%99%A2%20a/v1/chat/completions"
    assert wire.requests[0].startswith(f"POST {path} HTTP/1.1\r\nHost: {authority}\r\n".encode())
