"""What a claim is: rules, written before their numbers are known, that decide from intervals; and the table of all claims."""

import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist

import numpy as np

FEWEST = 5  # values of which an interval is taken; of fewer the values themselves are shown
RESAMPLES = 4_000
# Student's t, two-sided 95%, for 1, 2, 3, ... degrees of freedom; beyond the table, its expansion around 1.96.
T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]


@lru_cache(maxsize=64)
def resampling_weights(n: int) -> np.ndarray:
    """How much of each of n values is in the mean of each resample: (RESAMPLES, n). The same in every run."""
    return np.random.default_rng(0).multinomial(n, [1 / n] * n, size=RESAMPLES) / n


def interval(values: Iterable[float]) -> dict:
    """{"mean", "ci95": [low, high], "n"}: the mean of independent values and its 95% bootstrap interval, percentiles of resampled
    means. Those of few values would be too narrow: they are widened as Student's t is against the normal (Hesterberg 2015,
    arXiv:1411.5279, section 4.1). Fewer than FEWEST values: "ci95" is None, and "points" holds them."""
    values = np.array(list(values), dtype=float)
    n = len(values)
    found = {"mean": values.mean().item(), "ci95": None, "n": n}
    if n < FEWEST:
        return found | {"points": values.tolist()}
    t = T95[n - 2] if n - 2 < len(T95) else 1.96 + 2.5 / (n - 1)
    tail = NormalDist().cdf(-t * (n / (n - 1)) ** 0.5)
    low, high = np.quantile(resampling_weights(n) @ values, [tail, 1 - tail])
    # The mean of equal values differs from them by rounding.
    return found | {"ci95": [max(low, values.min()).item(), min(high, values.max()).item()]}


def mean(values: Iterable[float]) -> float:
    """The mean of any number of values but none."""
    values = list(values)
    return sum(values) / len(values)


def by_model(values: dict[tuple, float]) -> list[float]:
    """Values by (base model, ...) as an interval may count them: those of one base model are alike, so each base model's mean is one;
    of fewer base models than FEWEST, each value."""
    models = defaultdict(list)
    for (base, *_), value in values.items():
        models[base].append(value)
    return [mean(of) for of in models.values()] if len(models) >= FEWEST else list(values.values())


def over_models(values: dict[tuple, float | dict | list]) -> dict | list:
    """The interval of values by (base model, ...), see `by_model`. Of dictionaries or lists, all alike: one more such, with the
    interval of each number in them."""
    first = next(iter(values.values()))
    if isinstance(first, dict):
        return {name: over_models({at: value[name] for at, value in values.items()}) for name in first}
    if isinstance(first, list):
        return [over_models(dict(zip(values, each))) for each in zip(*values.values(), strict=True)]
    return interval(by_model(values))


def spearman(x: list[float], y: list[float]) -> float:
    """Rank correlation; ties share their mean rank. 0 if either has no order."""
    values = np.array([x, y], dtype=float)
    one, other = values[:, :, None], values[:, None, :]
    ranks = (one > other).sum(-1) + ((one == other).sum(-1) - 1) / 2
    return np.corrcoef(ranks)[0, 1].item() if ranks.std(axis=1).all() else 0.0


Verdict = bool | None  # None: undecided, the intervals allow either


def ci_above(number: dict, threshold: float) -> Verdict:
    """Does the whole interval lie above the threshold (True), below it (False), or across (None)?"""
    low, high = number["ci95"] or (-math.inf, math.inf)
    return True if low > threshold else False if high < threshold else None


def ci_below(number: dict, threshold: float) -> Verdict:
    """The opposite of `ci_above`, undecided where that is."""
    return {True: False, False: True, None: None}[ci_above(number, threshold)]


def equivalent(number: dict, bound: float) -> Verdict:
    """Does the whole interval lie within `bound` of 0 (True), beyond it on one side (False), or across it (None)?"""
    return all_hold(ci_above(number, -bound), ci_below(number, bound))


def all_hold(*conditions: Verdict) -> Verdict:
    """All of a rule's conditions: false if one is, else undecided if one is."""
    return False if False in conditions else None if None in conditions else True


@dataclass(frozen=True)
class Claim:
    """A claim of the papers (L1, S1) or of this project (X1), and the two rules that decide it from what is measured."""

    id: str
    name: str
    statement: str
    seen: Callable[[dict], Verdict]  # under the paper's own protocol, is it what the paper saw?
    survives: Callable[[dict], Verdict]  # is it still so beside the control: an own learning rate, a matched loss?
    why: Callable[[dict], str]  # one sentence, with the numbers that decide both rules


SEEN = {True: "reproduced", False: "not reproduced", None: "undecided"}
SURVIVES = {True: "yes", False: "no", None: "undecided"}
NOT_MEASURED = "not measured yet"


def entry(claim: Claim, measured: dict | None, figure: str) -> dict:
    """A claim as it stands in results.json, `figure` its picture. `measured` None or empty: not measured yet."""
    known = {"id": claim.id, "name": claim.name, "statement": claim.statement, "figure": figure}
    known["measured"] = measured or {}
    if not measured:
        return known | {"seen": NOT_MEASURED, "survives": NOT_MEASURED, "why": ""}
    seen = claim.seen(measured)
    survives = "-" if seen is False else SURVIVES[claim.survives(measured)]  # what is not there cannot survive
    return known | {"seen": SEEN[seen], "survives": survives, "why": claim.why(measured)}


def in_order(id: str) -> tuple[str, int]:
    """What claims are sorted by: L2 comes before L10."""
    return id[0], int(id[1:])


def show(number: dict) -> str:
    """An interval as text, 0.69 [0.59, 0.78]; of few values 0.69 (0.61, 0.77)."""
    of, brackets = (number["points"], "({})") if number["ci95"] is None else (number["ci95"], "[{}]")
    return f"{number['mean']:.2f} {brackets.format(', '.join(f'{value:.2f}' for value in of))}"


def claims_table(claims: list[dict], width: int) -> str:
    """The claims as text, the sentence of each on lines of its own, no wider than `width`."""
    lines, indent = [f"{'':4}{'claim':68}{'what the paper saw':20}survives the control"], " " * 8
    for claim in claims:
        lines.append(f"{claim['id']:4}{claim['statement']:68}{claim['seen']:20}{claim['survives']}")
        lines += textwrap.wrap(claim["why"], width, initial_indent=indent, subsequent_indent=indent)
    return "\n".join(lines)


def markdown_table(claims: list[dict]) -> str:
    """The claims as docs/FINDINGS.md shows them."""
    lines = ["| | claim | seen | survives the control | why | figure |", "|---|---|---|---|---|---|"]
    for claim in claims:
        figure = f"[{Path(claim['figure']).stem}](../{claim['figure']})" if claim["why"] else ""
        cells = [claim[name] for name in ("id", "statement", "seen", "survives", "why")]
        lines.append(f"| {' | '.join([*cells, figure])} |")
    return "\n".join(lines)
