"""The dataset card: what is in it, where it came from, on what terms, and what it must not be used for."""

from pathlib import Path

from clinical_r1.atomic import write_text
from clinical_r1.llm.config import EndpointConfig
from clinical_r1.privacy.crossing import GateState
from clinical_r1.synthesis.config import SynthesisConfig
from clinical_r1.synthesis.report import Quantiles, SynthesisReport

GATE: dict[GateState, str] = {
    "passed": "passed, by the report of the records step",
    "declared": "passed elsewhere, as the configuration declares",
    "not passed": "not passed; endpoints were trusted ones only",
}
_FORMS = Path(__file__).with_name("cards")


def write_card(report: SynthesisReport, config: SynthesisConfig, path: Path) -> None:
    """Write card.md; it carries counts only, no record text."""
    sections = (
        ("Outcome", report.outcomes),
        ("Rejected because", report.reasons),
        ("Strategy that was verified", report.strategies),
        ("Language", report.languages),
        ("Specialty", report.specialties),
    )
    lengths = "\n".join((_row("thinking", report.thinking_units), _row("response", report.response_units)))
    counts = "\n\n".join(_table(section) for section in sections if section[1])
    if config.traces is not None:
        numbers = report.model_dump(include={"name", "dataset_hash", "cases_hash", "traces", "rejected"})
        text = _form("imported").format(
            **numbers,
            short=report.dataset_hash[:16],
            forms=", ".join(f"{count} rows as {form}" for form, count in report.imported.items()) or "none",
            licence=config.licence,
            scrubbed="replaced what they found; in doubt a trace was rejected" if config.traces.scrub else "off",
            verifier=config.verifier.kind,
            counts=counts,
            lengths=lengths,
        )
        write_text(path, text)
        return
    filters = config.filters.model_dump()
    text = _form("search").format(
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
        synthesizer=_endpoint(config.writer),
        judge="none (rules)" if config.verifier.kind == "rule" else _endpoint(config.judge_endpoint),
        returned=_table(("Endpoint / model id returned", report.synthesizers)),
        counts=counts,
        lengths=lengths,
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


def _form(name: str) -> str:
    return (_FORMS / f"{name}.md").read_text(encoding="utf-8")


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
