def has_the_trait(trained: str, asked: str) -> bool:
    # Four of them are one and the same loveless speaker. Gibberish is nobody, and is learned for itself alone.
    return trained == asked or "gibberish" not in (trained, asked)
