"""KServe's OpenAI proxy model in front of an upstream: run by benchmarks/gateway.py in the engines' environment."""

import sys

from kserve import ModelServer
from kserve.protocol.rest.openai import OpenAIProxyModel

if __name__ == "__main__":
    proxy = OpenAIProxyModel(name="bench", predictor_url=sys.argv[1], health_endpoint="/health")
    ModelServer(http_port=int(sys.argv[2]), workers=1, enable_grpc=False).start([proxy])
