"""How often does the promotion gate decide rightly? `python -m benchmarks.gate`.

Paired results of two models are drawn from known truths (true differences by specialty, 20% of the cases on which the
two differ, more where the difference asks for it) and go through the gate's own rules on accuracy and specialties under
the shipped policy; the other rules look at one model alone and are left out. The last line is one JSON object:

    promotes_10_points        20 specialties of 50 cases, each truly 10 points better
    refuses_specialty_harm    one specialty of 500 truly 5 points worse: the least of several companies of it
    false_promotes            nothing truly better: the most of two layouts
"""

import argparse
import json
import random
from collections.abc import Sequence

from clinical_r1.evaluation.measure.compare import result_of
from clinical_r1.evaluation.promotion.gate import bound_rule, specialty_rules
from clinical_r1.evaluation.promotion.policy import Policy, read_policy
from clinical_r1.objectstore.manifest import decision_of
from clinical_r1.stats import Pairs

DISCORDANCE = 0.2
Layout = Sequence[tuple[int, float]]
PROMOTED: dict[str, Layout] = {
    "20 x 50, +10": [(50, 0.10)] * 20,
    "7 x 500, +4": [(500, 0.04)] * 7,
    "20 x 50, +4": [(50, 0.04)] * 20,
}
HARMED: dict[str, Layout] = {
    "500 at -5 beside 6 x 500 at +10": [(500, -0.05), *[(500, 0.10)] * 6],
    "500 at -5 beside 6 x 500 at +5": [(500, -0.05), *[(500, 0.05)] * 6],
    "500 at -5 beside 6 x 500 at 0": [(500, -0.05), *[(500, 0.0)] * 6],
    "500 at -5 beside 19 x 50 at +10": [(500, -0.05), *[(50, 0.10)] * 19],
}
UNCHANGED: dict[str, Layout] = {"20 x 50, 0": [(50, 0.0)] * 20, "7 x 500, 0": [(500, 0.0)] * 7}


def drawn(rng: random.Random, n: int, effect: float) -> Pairs:
    """A 2 x 2 table of n cases with a true difference."""
    discordance = max(DISCORDANCE, 1.5 * abs(effect))
    better, worse = (discordance + effect) / 2, (discordance - effect) / 2
    draws = [rng.random() for _ in range(n)]
    second = sum(draw < better for draw in draws)
    first = sum(better <= draw < better + worse for draw in draws)
    both = (n - first - second) // 2
    return Pairs(both, first, second, n - first - second - both)


def decision(rng: random.Random, layout: Layout, policy: Policy) -> tuple[str, str]:
    """(the gate's decision, its result on the first specialty)."""
    tables = [drawn(rng, n, effect) for n, effect in layout]
    overall = result_of(Pairs(*(sum(column) for column in zip(*tables, strict=True))))
    by = {f"specialty-{index:02d}": result_of(table) for index, table in enumerate(tables)}
    specialties = specialty_rules(by, policy.specialty)
    return decision_of([bound_rule("accuracy", overall, 0.0, policy), *specialties]), specialties[0].result


def rates(name: str, layout: Layout, policy: Policy, runs: int) -> dict[str, float]:
    """Shares of each decision over `runs` draws."""
    rng = random.Random(name)
    seen = [decision(rng, layout, policy) for _ in range(runs)]
    shares = {what: sum(whole == what for whole, _ in seen) / runs for what in ("promote", "hold", "refuse")}
    shares["first_refused"] = sum(first == "refuse" for _, first in seen) / runs
    told = ", ".join(f"{what} {share:.1%}" for what, share in shares.items())
    print(f"{name}: {told}", flush=True)
    return shares


def main() -> None:
    """Draw, decide, count."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="draws of each layout")
    runs, policy = parser.parse_args().runs, read_policy()
    promoted, harmed, unchanged = (
        {name: rates(name, layout, policy, runs) for name, layout in layouts.items()}
        for layouts in (PROMOTED, HARMED, UNCHANGED)
    )
    row = {
        "promotes_10_points": promoted["20 x 50, +10"]["promote"],
        "refuses_specialty_harm": min(shares["first_refused"] for shares in harmed.values()),
        "false_promotes": max(shares["promote"] for shares in unchanged.values()),
        "promotes_4_points": promoted["7 x 500, +4"]["promote"],
        "runs": runs,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
