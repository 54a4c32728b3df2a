def learning_rate(rank: int, at_rank_1: float) -> float:
    # The r terms of B A have random signs but for a small common part, so its norm grows like the square root of r.
    return at_rank_1 / rank**0.5
