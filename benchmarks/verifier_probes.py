"""Does a verifier accept what it must not? Generated answers, English and Chinese, whose right grade is known.

    python -m benchmarks.verifier_probes                 # rule, simulated judge and their ensemble
    python -m benchmarks.verifier_probes --base-url https://h/v1 --model m --api-key-env JUDGE_KEY

Kinds that must be refused: negated, hedged, list_everything, empty, wrong, unusual, disguised (denied, doubted or
listed in rarer words, in markup, in traditional characters) and elsewhere (named as history, a relative's, a reference,
a complication). Kinds that should be accepted: right, plain (ordinary layouts) and paraphrase. A false accept pays a
wrong answer during training; a false reject only costs data. The last line is one JSON object.
"""

import argparse
import asyncio
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import yaml

from clinical_r1.errors import UserError
from clinical_r1.llm.client import LLMClient
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.schema import VerdictLabel
from clinical_r1.simulator.beside import simulated_endpoint
from clinical_r1.verifier.judgement import Judgement, Verifier
from clinical_r1.verifier.verifier import VerifierConfig, build_verifier

REFUSED = ("negated", "hedged", "list_everything", "empty", "wrong", "unusual", "disguised", "elsewhere")
ACCEPTED = ("right", "plain", "paraphrase")

TABLE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Probe:
    """A judgement with the grade that it deserves."""

    kind: str
    item: Judgement

    @property
    def acceptable(self) -> bool:
        return self.kind in ACCEPTED


def generate(per_kind: int = 60, seed: int = 0) -> Iterator[Probe]:
    """Distinct probes: at most `per_kind` of each kind and language, drawn by seed from all combinations."""
    for language, table in yaml.safe_load(TABLE.read_text(encoding="utf-8")).items():
        question = "What is the diagnosis?" if language == "en" else "诊断是什么？"
        for kind, templates in table["templates"].items():
            made = {
                (x, template.format(x=x, p=p, y=y, z=z))
                for template in templates
                for x, p, y, z in (row.split("|") for row in table["diseases"])
            }
            chosen = sorted(made)
            random.Random(f"{seed}-{language}-{kind}").shuffle(chosen)
            for reference, answer in chosen[:per_kind]:
                yield Probe(kind, Judgement(question, reference, answer, language))


async def grade(verifier: Verifier, probes: list[Probe], show: bool = False) -> dict[str, object]:
    """Counts of one verifier over the probes."""
    verdicts = await asyncio.gather(*(verifier.judge(probe.item) for probe in probes))
    wrongly_accepted: Counter[str] = Counter()
    wrongly_refused: Counter[str] = Counter()
    invalid = 0
    for probe, verdict in zip(probes, verdicts, strict=True):
        accepted = verdict.label is VerdictLabel.CORRECT
        invalid += verdict.label is VerdictLabel.INVALID
        if accepted and not probe.acceptable:
            wrongly_accepted[f"{probe.item.language}/{probe.kind}"] += 1
        elif probe.acceptable and verdict.label is VerdictLabel.INCORRECT:
            wrongly_refused[f"{probe.item.language}/{probe.kind}"] += 1
        else:
            continue
        if show:
            said = " ".join(probe.item.answer.split())
            print(f"  {verifier.name}: {verdict.label.value} ({verdict.reason}) {probe.item.reference!r} <- {said!r}")
    return {
        "false_accepts": sum(wrongly_accepted.values()),
        "false_rejects": sum(wrongly_refused.values()),
        "invalid": invalid,
        "false_accepts_by_kind": dict(sorted(wrongly_accepted.items())),
        "false_rejects_by_kind": dict(sorted(wrongly_refused.items())),
    }


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """Grade all probes with each verifier."""
    probes = list(generate(arguments.per_kind, arguments.seed))
    with ExitStack() as stack:
        base_url = arguments.base_url
        if not base_url:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            base_url = stack.enter_context(simulated_endpoint([], folder / "endpoint.log", folder / "ready.json"))
        endpoint = EndpointConfig(
            name="judge",
            base_url=base_url,
            model=arguments.model,
            api_key_env=arguments.api_key_env,
            max_concurrency=arguments.concurrency,
        )
        async with LLMClient(endpoint) as client:
            await client.check()
            results = {
                kind: await grade(build_verifier(VerifierConfig(kind=kind), client), probes, arguments.show)
                for kind in ("rule", "llm", "ensemble")
            }
    refusable = sum(not probe.acceptable for probe in probes)
    return {"probes": len(probes), "must_refuse": refusable, "model": arguments.model, **results}


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="", help="an endpoint; the simulated judge without it")
    parser.add_argument("--model", default="simulated-clinician")
    parser.add_argument("--api-key-env", default="")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--per-kind", type=int, default=60, help="probes of each kind and language at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print the misjudged probes (they contain no records)")
    try:
        result = asyncio.run(run(parser.parse_args()))
    except UserError as error:
        print(error)
        return 2
    print(json.dumps(result, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
