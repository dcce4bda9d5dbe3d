"""`python -m serving.gateway --config gateway.yaml`: the reasoning gateway in front of an OpenAI-compatible engine."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from clinical_r1.errors import UserError
from clinical_r1.schema import first_problem
from serving.gateway.config import GatewayConfig, load_config
from serving.gateway.server import run, run_gateway, setup_logging


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code: 2 for a wrong configuration."""
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", description=__doc__)
    parser.add_argument("--config", type=Path, help="YAML file; flags below override it")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--upstream", help="base address of the engine")
    parser.add_argument("--keys-file", type=Path)
    parser.add_argument("--auth", choices=["keys", "none"])
    parser.add_argument("--model-version")
    given = vars(parser.parse_args(argv))
    path = given.pop("config")
    setup_logging()
    try:
        base = load_config(path).model_dump() if path else {}
        try:
            config = GatewayConfig.model_validate(base | {k: v for k, v in given.items() if v is not None})
        except ValidationError as problem:
            raise UserError(f"command line: {first_problem(problem)}") from None

        def announce(port: int) -> None:
            print(f"gateway at http://{config.host}:{port}, engine at {config.upstream}", file=sys.stderr, flush=True)

        run(lambda: run_gateway(config, announce))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
