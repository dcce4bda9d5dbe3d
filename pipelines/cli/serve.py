"""`clinical-r1 serve MODEL`: a chat endpoint on a checkpoint, for a laptop."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[Path, typer.Argument(help="A model folder, such as runs/latest/model.")],
    host: Annotated[str, typer.Option(help="Address to listen on; loopback unless you say otherwise.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.", min=0, max=65535)] = 8000,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the chat page in a browser.")] = False,
) -> None:
    """Serve a checkpoint on the CPU behind the OpenAI chat protocol (POST /v1/chat/completions, streaming or not).

    Production uses vLLM behind the gateway; this is for laptops and tests.
    """
    from clinical_r1.objectstore.binding import check_beside
    from serving.engine.main import serve as serve_model

    if model.is_dir():
        check_beside(model)
    serve_model(model, host=host, port=port, open_browser=open_browser)
