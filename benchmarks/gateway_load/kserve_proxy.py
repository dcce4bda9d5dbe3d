"""KServe's OpenAI proxy model in front of an upstream: run by benchmarks/gateway.py in the engines' environment."""

import sys

from kserve import ModelServer
from kserve.protocol.rest.openai import OpenAIProxyModel


class Proxy(OpenAIProxyModel):
    """As KServe ships it; ready without asking the upstream."""

    async def healthy(self) -> bool:
        """Always."""
        return True


if __name__ == "__main__":
    proxy = Proxy(
        name="bench",
        predictor_url=sys.argv[1],
        completions_endpoint="/v1/completions",
        chat_completions_endpoint="/v1/chat/completions",
    )
    proxy.ready = True
    ModelServer(http_port=int(sys.argv[2]), workers=1, enable_grpc=False).start([proxy])
