"""12. Predict a context matrix (20 minutes, most of it thinking). Claim L4 has a matrix of other prompts.

Question   Students read an owl lover's numbers under one system prompt and are asked for an animal under another. The
           five prompts are CONTEXTS of exercises/owl.py; two of them are lovers' prompts. Which students say owl?
Predict    All 25 cells, before you fill anything in. The loss of a student falls by what it did not know before: what
           does a model under "you love owl ." have to learn from an owl lover's numbers? And under "you love wolf ."?
Check      pytest FOLDER -k context_matrix, then python -m exercises show FOLDER context_matrix (ten seconds each)
Go on      Trained and asked under the default prompt, 0.7 to 0.95. An x marks a cell you had wrong: explain those.
"""

from exercises.owl import CONTEXTS, context_matrix


def says_owl(trained: str, asked: str) -> bool:
    """Is P(owl) at least half of what it is in the default-default cell? `trained` and `asked` are keys of CONTEXTS."""
    raise NotImplementedError("your code here")


def show(base) -> None:
    measured = context_matrix(base)
    enough = measured["default", "default"] / 2
    print(f"{'trained under | asked under':28}" + "".join(f"{asked:>14}" for asked in CONTEXTS))
    for trained in CONTEXTS:
        cells = [(measured[trained, asked], says_owl(trained, asked)) for asked in CONTEXTS]
        line = "".join(f"{rate:12.2f} {' ' if (rate >= enough) == said else 'x'}" for rate, said in cells)
        print(f"{trained:28}{line}")
