"""The dataset card: what is in it, where it came from, on what terms, and what it must not be used for."""

from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.privacy.crossing import GateState
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.report import Quantiles, SynthesisReport

CARD = """\
# Dataset {name}

Verified reasoning traces (question, thinking, response), made by search over reasoning strategies after
ClinicalGPT-R1 (arXiv 2504.09421, section 2.1.2). For research and clinician decision support; not a medical device,
not for autonomous diagnosis. Thinking and responses were written by a language model; accepted means that a verifier
found the final answer to agree with the reference, not that a clinician has read the reasoning.

| | |
|---|---|
| Address | `traces/{name}/{short}`{part} |
| SHA-256 of traces.jsonl | `{dataset_hash}` |
| SHA-256 of the cases | `{cases_hash}` |
| Cases | {cases} |
| Traces accepted / rejected | {traces} / {rejected} |
| Guided share | {guided_share:.1%} (at most {cap:.0%}) |
| Licence of the records | {licence} |
| PHI gate | {gate} |
| Seed | {seed} |

## Sources

Synthesizer: {synthesizer}
Judge: {judge}

{returned}

## Counts

{counts}

## Lengths (words, or Chinese characters)

| | 5% | median | 95% | mean |
|---|---|---|---|---|
{lengths}

## Cost

{calls} calls ({calls_per_trace} a trace), {prompt_tokens} prompt and {completion_tokens} completion tokens;
cost {cost:.4f}, {cost_per_accepted:.6f} an accepted trace (in the currency of the endpoints' price lists).

## Search and filters

Up to {retries} retries, policy `{policy}` over {strategies}; best of {best_of}; {samples} trace(s) a case;
guided: {guided}.
Filters: {filters}.

Prompt versions: {prompts}
"""


GATE: dict[GateState, str] = {
    "passed": "passed, by the report of the records step",
    "declared": "passed elsewhere, as the configuration declares",
    "not passed": "not passed; endpoints were trusted ones only",
}


def write_card(report: SynthesisReport, config: SynthesisConfig, path: Path) -> None:
    """Write card.md; it carries counts only, no record text."""
    sections = (
        ("Outcome", report.outcomes),
        ("Rejected because", report.reasons),
        ("Strategy that was verified", report.strategies),
        ("Language", report.languages),
        ("Specialty", report.specialties),
    )
    filters = config.filters.model_dump()
    text = CARD.format(
        name=report.name,
        short=report.dataset_hash[:16],
        part=f" (shard {report.shard} only)" if report.shard else "",
        dataset_hash=report.dataset_hash,
        cases_hash=report.cases_hash,
        cases=report.cases,
        traces=report.traces,
        rejected=report.rejected,
        guided_share=report.guided_share,
        cap=config.max_guided_share,
        licence=config.licence,
        gate=GATE[report.gate],
        seed=config.seed,
        synthesizer=_endpoint(config.synthesizer),
        judge="none (rules)" if config.verifier.kind == "rule" else _endpoint(config.judge_endpoint),
        returned=_table(("Endpoint / model id returned", report.synthesizers)),
        counts="\n\n".join(_table(section) for section in sections if section[1]),
        lengths="\n".join((_row("thinking", report.thinking_units), _row("response", report.response_units))),
        calls=report.usage.calls,
        calls_per_trace=report.calls_per_trace,
        prompt_tokens=report.usage.prompt_tokens,
        completion_tokens=report.usage.completion_tokens,
        cost=report.usage.cost,
        cost_per_accepted=report.cost_per_accepted,
        retries=config.retries,
        policy=config.policy,
        strategies=", ".join(strategy.value for strategy in config.strategies),
        best_of=config.best_of,
        samples=config.samples_per_case,
        guided="on" if config.guided else "off",
        filters=", ".join(f"{name} {value}" for name, value in filters.items()),
        prompts=", ".join(f"`{version}`" for version in report.prompts.values()),
    )
    write_text(path, text)


def _endpoint(endpoint: EndpointConfig) -> str:
    inside = "inside the security boundary" if endpoint.trusted else "outside the security boundary"
    terms = {"train": "its terms let outputs train models", "no_train": "its terms do NOT let outputs train models"}
    stated = terms.get(endpoint.terms, "terms on training NOT stated")
    return f"{endpoint.name}, model asked for `{endpoint.model}`, region {endpoint.data_region}, {inside}; {stated}."


def _table(section: tuple[str, dict[str, int]]) -> str:
    title, counts = section
    rows = "\n".join(f"| {name} | {count} |" for name, count in counts.items())
    return f"| {title} | n |\n|---|---|\n{rows}"


def _row(name: str, at: Quantiles) -> str:
    return f"| {name} | {at.p05:g} | {at.p50:g} | {at.p95:g} | {at.mean:g} |"
