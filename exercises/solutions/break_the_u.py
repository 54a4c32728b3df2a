def learning_rate(rank, at_rank_1):
    return at_rank_1 / rank**0.5


def alpha(rank):
    return rank**0.5
