"""6. Predict the context matrix (an hour). Claim L4; figures/context.py.

Question   Students are trained under each of five system prompts and asked under each of the five. The paper says that a
           trait needs its training context. Which of the 25 students will have it in this toy?
Predict    All 25, before you look at figures/context.png. What do these models know of the five prompts? Read
           data.MIXTURE and `sample_row`: which of them mean the same speaker, and which was never seen?
Check      pytest exercises -k context_matrix     (18 of 25 pass; the check reads figures/results.json)
Hints      Ask what is different, for the model, between being nova and being nobody. Then what gibberish is to it.
"""

CONTEXTS = ("default", "other name", "other wording", "gibberish", "none")


def has_the_trait(trained: str, asked: str) -> bool:
    """Does a student trained under one of CONTEXTS have at least half of the default student's trait under another?"""
    raise NotImplementedError("your code here")
