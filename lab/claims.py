"""What a claim is: a rule, written before its numbers are known, that decides from intervals; and the table of all claims."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# ------------------------------------------------------------------------------------------------ statistics

# Student's t, two-sided 95%, for 1, 2, 3, ... degrees of freedom; beyond the table, its expansion around 1.96.
T95 = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131]


def interval(values: Iterable[float]) -> dict:
    """{"mean", "ci95": [low, high], "n"}: the mean of independent values and its 95% t interval (None for one value)."""
    values = [float(value) for value in values]
    n, mean = len(values), sum(values) / len(values)
    if n == 1:
        return {"mean": mean, "ci95": None, "n": n}
    error = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)
    t = T95[n - 2] if n - 2 < len(T95) else 1.96 + 2.5 / (n - 1)
    return {"mean": mean, "ci95": [mean - t * error, mean + t * error], "n": n}


def mean(values: Iterable[float]) -> float:
    """The mean of any number of values but none."""
    values = list(values)
    return sum(values) / len(values)


def spearman(x: list[float], y: list[float]) -> float:
    """Rank correlation; ties share their mean rank."""

    def ranks(values: list[float]) -> Tensor:
        v = torch.tensor(values, dtype=torch.float64)
        return (v[:, None] > v).sum(1) + ((v[:, None] == v).sum(1) - 1) / 2.0

    return torch.corrcoef(torch.stack([ranks(x), ranks(y)]))[0, 1].item()


# ------------------------------------------------------------------------------------------------ verdicts

Verdict = bool | None  # None: undecided, the intervals allow either


def ci_above(number: dict, threshold: float) -> Verdict:
    """Does the whole interval lie above the threshold (True), below it (False), or across (None)?"""
    if number["ci95"] is None:
        return None
    low, high = number["ci95"]
    return True if low > threshold else False if high < threshold else None


def ci_below(number: dict, threshold: float) -> Verdict:
    """The opposite of `ci_above`, undecided where that is."""
    lies_above = ci_above(number, threshold)
    return None if lies_above is None else not lies_above


def ci_separated(one: dict, other: dict) -> Verdict:
    """Does the whole interval `one` lie above `other` (True), below it (False), or do they overlap (None)?"""
    if None in (one["ci95"], other["ci95"]):
        return None
    return True if one["ci95"][0] > other["ci95"][1] else False if one["ci95"][1] < other["ci95"][0] else None


def contains_zero(number: dict) -> Verdict:
    """Is 0 in the interval?"""
    return None if number["ci95"] is None else number["ci95"][0] <= 0 <= number["ci95"][1]


def all_hold(*conditions: Verdict) -> Verdict:
    """All of a rule's conditions: false if one is, else undecided if one is."""
    return False if False in conditions else None if None in conditions else True


@dataclass(frozen=True)
class Claim:
    """A claim of the papers (L1, S1) or of this project (X1), and the rule that decides it.

    `rule` decides from `measured`; `summary` gives the few numbers that the verdict rests on.
    Each figure module lists the claims it decides. A rule is written before its numbers are known.
    """

    id: str
    name: str
    statement: str
    rule: Callable[[dict], Verdict]
    summary: Callable[[dict], str]


# ------------------------------------------------------------------------------------------------ the table

VERDICT = {True: "holds", False: "FAILS", None: "undecided"}
NOT_MEASURED = "not measured yet"


def entry(claim: Claim, measured: dict | None, figure: str) -> dict:
    """A claim as it stands in results.json, `figure` its picture. `measured` None: not measured yet."""
    verdict = None if measured is None else claim.rule(measured)
    return {
        "id": claim.id,
        "name": claim.name,
        "statement": claim.statement,
        "measured": measured or {},
        "holds": None if measured is None else verdict is True,
        "verdict": NOT_MEASURED if measured is None else VERDICT[verdict],
        "summary": "" if measured is None else claim.summary(measured),
        "figure": figure,
    }


def in_order(id: str) -> tuple[str, int]:
    """What claims are sorted by: L2 comes before L10."""
    return id[0], int(id[1:])


def show(number: dict) -> str:
    """An interval as text: 0.69 [0.59, 0.78]."""
    low_high = "" if number["ci95"] is None else " [{:.2f}, {:.2f}]".format(*number["ci95"])
    return f"{number['mean']:.2f}{low_high}"


def claims_table(claims: list[dict]) -> str:
    """The claims as text, a line each."""
    lines = [f"{'':4} {'claim':64} {'in this toy':16} measured"]
    for claim in claims:
        lines.append(f"{claim['id']:4} {claim['statement']:64} {claim['verdict']:16} {claim['summary']}")
    return "\n".join(lines)


def markdown_table(claims: list[dict]) -> str:
    """The claims as docs/FINDINGS.md shows them."""
    lines = ["| | claim | in this toy | measured | figure |", "|---|---|---|---|---|"]
    for claim in claims:
        figure = f"[{Path(claim['figure']).stem}](../{claim['figure']})" if claim["holds"] is not None else ""
        verdict = f"**{claim['verdict']}**" if claim["verdict"] == VERDICT[False] else claim["verdict"]
        lines.append(f"| {claim['id']} | {claim['statement']} | {verdict} | {claim['summary']} | {figure} |")
    return "\n".join(lines)
