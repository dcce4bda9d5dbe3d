"""`python -m serving.gateway --config gateway.yaml`: the reasoning gateway in front of an OpenAI-compatible engine."""

import argparse
import sys
from pathlib import Path

from clinical_r1.errors import UserError
from clinical_r1.settings import Document, shown
from serving.gateway.config import GatewayConfig
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
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting; repeatable"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved settings as YAML and serve nothing")
    given = vars(parser.parse_args(argv))
    path, options, dry_run = given.pop("config"), given.pop("set"), given.pop("dry_run")
    setup_logging()
    try:
        document = Document.read(path) if path else Document()
        for name, value in given.items():
            if value is not None:
                document.put(name, str(value) if name == "keys_file" else value, f"--{name.replace('_', '-')}")
        for option in options:
            document.set(option)
        config = document.filled().validate(GatewayConfig)
        if dry_run:
            print(shown(config), end="")
            return 0

        def announce(port: int) -> None:
            print(f"gateway at http://{config.host}:{port}, engine at {config.upstream}", file=sys.stderr, flush=True)

        run(lambda: run_gateway(config, announce))
    except UserError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
