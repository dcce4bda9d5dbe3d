"""A limit on money or tokens that stops a run cleanly and lets it go on later."""

from typing import TYPE_CHECKING, Self

from clinical_r1.llm.config import BudgetConfig
from clinical_r1.llm.failures import BudgetExhausted
from clinical_r1.schema import Usage

if TYPE_CHECKING:
    from clinical_r1.llm.journal import Journal


class Budget:
    """Shared by any number of clients. What the journal already holds counts: a resumed run goes on from there.

    The check comes before a call, so the overshoot is at most what is in flight at that moment.
    """

    @classmethod
    def of(cls, config: BudgetConfig) -> Self:
        """The budget that a configuration sets."""
        return cls(config.max_cost, config.max_tokens)

    def __init__(self, max_cost: float | None = None, max_tokens: int | None = None) -> None:
        self.max_cost = max_cost
        self.max_tokens = max_tokens
        self.spent = Usage()
        self._adopted: set[str] = set()

    def adopt(self, journal: "Journal") -> None:
        """Count what a journal's earlier calls have cost, once a journal."""
        if str(journal.path) not in self._adopted:
            self._adopted.add(str(journal.path))
            self.spent = self.spent + journal.usage

    def charge(self, usage: Usage) -> None:
        """Count a call."""
        spent = self.spent
        spent.calls += usage.calls
        spent.prompt_tokens += usage.prompt_tokens
        spent.completion_tokens += usage.completion_tokens
        spent.cost += usage.cost

    def check(self) -> None:
        """Raise BudgetExhausted where nothing is left."""
        tokens = self.spent.prompt_tokens + self.spent.completion_tokens
        if self.max_cost is not None and self.spent.cost >= self.max_cost:
            raise BudgetExhausted(
                f"budget: {self.spent.cost:.4f} of max_cost {self.max_cost:g} is spent; "
                "finished calls are kept: raise max_cost and run the same command again"
            )
        if self.max_tokens is not None and tokens >= self.max_tokens:
            raise BudgetExhausted(
                f"budget: {tokens} of max_tokens {self.max_tokens} are used; "
                "finished calls are kept: raise max_tokens and run the same command again"
            )
