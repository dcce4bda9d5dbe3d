"""A small HTTP server that speaks the part of KFP's v2beta1 API which the SDK calls to start and to list runs."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN, NAMESPACE = "right", "team-a"


class PipelinesServer(ThreadingHTTPServer):
    """`multi_user` as behind a profile: a bearer token, and one namespace that it may use."""

    def __init__(self, multi_user: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.multi_user = multi_user
        self.runs: list[dict[str, Any]] = []
        self.experiments: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> "PipelinesServer":
        Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: PipelinesServer

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: dict[str, Any]) -> None:
        place = urlsplit(self.path)
        self.server.requests.append(f"{self.command} {place.path}")
        status, answer = self._respond(place.path, parse_qs(place.query), body)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _respond(self, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        server = self.server
        if server.multi_user and self.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Unauthenticated", "code": 16, "message": "the token is not valid"}
        namespace = query.get("namespace", [body.get("namespace")])[0]
        resource = path.removeprefix("/apis/v2beta1/")
        if resource == "healthz":
            return 200, {"multi_user": server.multi_user}
        if server.multi_user and resource == "experiments" and namespace != NAMESPACE:
            return 403, {"error": "PermissionDenied", "code": 7, "message": f"no access to namespace {namespace}"}
        match (self.command, resource):
            case ("GET", "experiments"):
                return 200, {"experiments": server.experiments}
            case ("POST", "experiments"):
                server.experiments.append(body | {"experiment_id": "e-1"})
                return 200, server.experiments[-1]
            case ("POST", "runs"):
                if not body.get("pipeline_spec"):
                    return 400, {"error": "InvalidArgument", "code": 3, "message": "pipeline_spec is empty"}
                made = {"run_id": f"r-{len(server.runs)}", "state": "PENDING", "created_at": "2026-01-02T03:04:05Z"}
                server.runs.insert(0, body | made)
                return 200, server.runs[0]
            case ("GET", "runs"):
                return 200, {"runs": server.runs[: int(query["page_size"][0])]}
        return 404, {"error": "NotFound", "code": 5, "message": "no such path"}
