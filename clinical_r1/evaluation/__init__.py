"""A model answers cases and is judged (`run`, `answer`, `thinking`); one room a question below: measure, judging,
grounding, promotion, benchmarks, experiments, pages."""
