"""Does the judge still judge? Too many judgements without a verdict end the run, with what its replies look like."""

from collections import Counter, deque

from clinical_r1.errors import UserError


class Watch:
    """The last judgements of one judge. Not for judgements that were decided without it."""

    def __init__(self, judge: str, limit: float, window: int) -> None:
        self._judge, self._limit = judge, limit
        self._last: deque[str] = deque(maxlen=window)
        """Why each had no verdict; "" where it had one."""
        self._shapes: deque[str] = deque(maxlen=3)

    def gave_verdict(self) -> None:
        """One more judgement with a verdict."""
        self._last.append("")

    def gave_none(self, reason: str, shape: str = "") -> None:
        """One more without; raises UserError where they are more than the limit of a full window.

        `shape` is the structure of the reply (llm.shape), where there was one.
        """
        self._last.append(reason)
        if shape and shape not in self._shapes:
            self._shapes.append(shape)
        reasons = Counter(one for one in self._last if one)
        if len(self._last) < (self._last.maxlen or 0) or reasons.total() <= self._limit * len(self._last):
            return
        why = ", ".join(f"{name} {count}" for name, count in reasons.most_common())
        shown = f"; its replies look like: {' | '.join(self._shapes)}" if self._shapes else ""
        raise UserError(
            f"judge {self._judge}: no verdict in {reasons.total()} of its last {len(self._last)} judgements ({why}; "
            f"most allowed: {self._limit:.0%}){shown}. Nothing is concluded from this: give the judge more room "
            "(verifier.max_tokens) or another json_mode, or name another judge, and run the same command again"
        )
