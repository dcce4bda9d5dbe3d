"""Jinja environment and number formats of all reports: autoescaped, undefined names are errors, no network."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from clinical_r1 import charts

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
INTENDED_USE = (
    "Research and clinician decision support. Not a medical device; no autonomous diagnosis. Every output must be "
    "reviewed by a qualified clinician who has the patient's full record."
)
INTENDED_USE_ZH = (
    "仅供研究与临床医生决策支持之用。不是医疗器械，不得用于自主诊断。每一条输出都须由掌握完整病历的合格医生审核。"
)


def percent(value: float | None, digits: int = 1) -> str:
    """0.6123 -> 61.2%."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def points(value: float, digits: int = 1) -> str:
    """0.0523 -> +5.2: a difference in percentage points, with its sign."""
    text = f"{100 * value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def p_value(value: float) -> str:
    """As journals print it."""
    if value < 0.0001:
        return "< 0.0001"
    return f"= {value:.4f}" if value < 0.01 else f"= {value:.2f}"


def interval(low: float, high: float, digits: int = 1) -> str:
    """55.1–62.0 (percent)."""
    return f"{100 * low:.{digits}f}–{100 * high:.{digits}f}"


def duration(seconds: float) -> str:
    """95 -> 1 min 35 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def words(name: str) -> str:
    """exploring_new_paths -> Exploring new paths; codes such as XII and en stay, SFT and PPO are such."""
    if name in ("sft", "ppo"):
        return name.upper()
    return name.replace("_", " ").capitalize() if name.islower() and len(name) > 2 else name


def axis_name(axis: str) -> str:
    """How a page calls a kind of subgroup."""
    return {"icd10_chapter": "ICD-10 chapter", "age_band": "Age"}.get(axis, axis.capitalize())


def credit_shares(partial: Any) -> list[tuple[str, float, str]]:
    """Nearness of answers as shares of a whole, for a stacked bar."""
    return [(name, count / (partial.n or 1), f"c{i}") for i, (name, count) in enumerate(partial.levels.items(), 1)]


@cache
def environment() -> "Environment":
    """The templates with our formats and charts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (percent, points, p_value, duration, words, axis_name, credit_shares, charts.number)
    env.filters |= {function.__name__: function for function in formats}
    env.globals |= {
        "interval": interval,
        "intended_use": INTENDED_USE,
        "intended_use_zh": INTENDED_USE_ZH,
        "css": Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    }
    strips = env.get_template("strips.html.j2").module
    env.globals |= {name: getattr(strips, name) for name in ("bar", "difference", "stacked")}
    return env


def render(template: str, **values: object) -> str:
    """One whole page (or Markdown file) as text."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment().get_template(template).render(now=now, **values) + "\n"


def sentence(name: str, **values: object) -> str:
    """One sentence of templates/sentences.j2 as plain text; empty where it has nothing to say."""
    template = environment().get_template("sentences.j2")
    return " ".join("".join(template.blocks[name](template.new_context(values))).split())
