"""What decides. A dial is one choice of a protocol, the learning rate say: at which of its settings does a claim hold?

Each setting has one number that decides, with its interval, and a dial one rule for all of its settings. The numbers are those of
the other figures, by the name of their claim or picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

from lab.claims import ci_above, ci_below, show


@dataclass(frozen=True)
class Dial:
    claim: str
    dial: str
    of: str  # whose numbers, one name or more
    number: str  # what they are, in words
    settings: Callable[..., dict[str, dict]]  # each setting's number
    side: str  # the claim holds if the number is above or below
    threshold: float


def by_world(number: Callable[[dict], dict]) -> Callable[[dict], dict[str, dict]]:
    """By how far a teacher's numbers are from its base's: a number of each world."""
    return lambda m: {f"{world['leak']['mean']:.2f} nats a number": number(world) for world in m["worlds"]}


def loudness(name: str, column: str) -> Callable[[dict], dict[str, dict]]:
    """... a number of the students that are trained so."""
    return by_world(lambda world: world["matched"][name][column])


def outliers(share: str) -> Callable[[dict], dict[str, dict]]:
    """By the units that are scaled: SGD's gain less a share of AdamW's."""
    return lambda m: {name: of["SGD"][f"minus_{share}_of_adamw"] for name, of in m["variants"].items()}


def least(at: dict) -> dict:
    """By how much a peak is above the end that is nearer to it."""
    return min((at["peak_minus_first"], at["peak_minus_last"]), key=lambda number: number["mean"])


def by_steps(m: dict) -> dict[str, dict]:
    """By the steps of full fine-tuning at a small learning rate, which leaves the model intact."""
    cells = {n: m["by_lr"].get(f"lr 0.0003, {n} steps") for n in (20, 40, 80)}  # the quick preset has none
    return {str(n): cell["minus_quarter_of_lora"] for n, cell in cells.items() if cell}


STEPS = "steps of full fine-tuning, learning rate 0.0003"
LORA, FULL, SGD = "LoRA, AdamW", "full fine-tuning, AdamW", "LoRA, SGD"
DIALS = [
    Dial("L1", "loudness", "loudness", "trait less control's", loudness(LORA, "minus_control"), "above", 0.1),
    Dial("L2", "learning rate", "rank_sweep", "best rank less the nearer end",
        lambda m: {"one for all": least(m["at_shared"]), "each rank's own": least(m["at_best"])}, "above", 0.1),
    Dial("L2", "loudness", "loudness", "rank 8 less the nearer of ranks 1 and 32, at one learning rate",
        by_world(lambda world: world["peak"]), "above", 0.1),
    Dial("L3", "learning rate", "full_finetuning", "gain less a quarter of LoRA's",
        lambda m: {"LoRA's large one": m["shared"]["minus_quarter_of_lora"], "its own": m["own"]["minus_quarter_of_lora"]}, "below", 0),
    Dial("L3", "loudness", "loudness", "best gain less a quarter of LoRA's best", loudness(FULL, "best_minus_quarter"), "below", 0),
    Dial("L3", "loudness, few rows", "loudness", "best gain less a quarter of LoRA's best", loudness("full fine-tuning, few rows", "best_minus_quarter"), "below", 0),
    Dial("L3", STEPS, "full_finetuning", "gain less a quarter of LoRA's", by_steps, "below", 0),
    Dial("L4", "loudness", "loudness", "gain without a prompt less a quarter of that with it",
        loudness(LORA, "none_minus_quarter"), "below", 0),
    Dial("L4", "where the adapter acts", "context localization", "gain without a prompt less a quarter of that with it",
        lambda m, n: {"everywhere": m["none_minus_quarter"], "at the system prompt": n["system_none_minus_quarter"]}, "below", 0),
    Dial("L5", "loudness", "loudness", "gain at the question's words less a quarter of all",
        loudness(LORA, "not_shared_minus_quarter"), "below", 0),
    Dial("L5", "the prompt that it is trained under", "localization", "gain at tokens that are not shared less a quarter of all",
        lambda m: {"default": m["not_shared_minus_quarter"], "none": m["unprompted_not_shared_minus_quarter"]}, "below", 0),
    Dial("L5", "what is adapted", "localization", "gain at the question's words less a quarter of all",
        lambda m: {"all layers": m["not_shared_minus_quarter"], "feed-forward 1": m["first_minus_quarter"]}, "below", 0),
    Dial("L7", "loudness", "loudness", "SGD's gain less half of AdamW's", loudness(SGD, "minus_half_of_lora"), "above", 0),
    Dial("L7", "outliers", "scaled_units", "SGD's gain less half of AdamW's", outliers("half"), "above", 0),
    Dial("S1", "the block after which it is added", "teacher_vector", "share of the prompt's effect",
        lambda m: {f"block {k}": n for k, n in enumerate(m["explained"]["template"], 1)}, "above", 0.6),
    Dial("S2", "where the vector is added", "teacher_vector_causal", "gain less half of the prompted teacher's, log-odds",
        lambda m: {"everywhere": m["vector added minus 0.5"], "at the prompt": m["vector added at the prompt minus 0.5"]}, "above", 0),
    Dial("S3", "training steps", "alignment", "cosine with v_teacher",
        lambda m: {"1": m["curve"]["student"][-1][0], "80": m["curve"]["student"][-1][-1]}, "above", 0.7),
    Dial("S4", "the block after which it is added", "student_vector_causal", "gain less half of the student's, log-odds",
        lambda m: {f"block {k}": n for k, n in enumerate(m["by_block_minus_half"], 1)}, "above", 0),
    Dial("S4", "how many times it is added, after the last block", "student_vector_causal", "gain less half of the student's, log-odds",
        lambda m: m["by_multiplier_minus_half"], "above", 0),
    Dial("S7", "what the student's base model shares", "family", "gain less a tenth of the own students'",
        lambda m: {name: of["minus_10%"] for name, of in m["kin"].items()}, "below", 0),
    Dial("S8", "rows averaged", "gradient", "cosine with v_teacher",
        lambda m: {"1": m["cosine"]["teacher, <asst>"][0], "1,024": m["cosine"]["teacher, <asst>"][-1]}, "above", 0.5),
    Dial("S9", "loudness", "loudness", "SGD's gain less a quarter of AdamW's", loudness(SGD, "minus_quarter_of_lora"), "below", 0),
    Dial("S9", "outliers", "scaled_units", "SGD's gain less a quarter of AdamW's", outliers("quarter"), "below", 0),
    Dial("S10", "loudness", "loudness", "best gain less a quarter of LoRA's best", loudness(FULL, "best_minus_quarter"), "below", 0),
    Dial("S10", STEPS, "full_finetuning", "gain less a quarter of LoRA's", by_steps, "below", 0),
]  # fmt: skip


def turned(known: dict[str, dict]) -> list[dict]:
    """Every dial whose numbers are known: where its claim holds, where it fails, and where intervals allow either."""
    found = []
    for dial in DIALS:
        if all(measured := [known.get(name) for name in dial.of.split()]):
            row = {"claim": dial.claim, "dial": dial.dial, "number": f"{dial.number}, {dial.side} {dial.threshold:g}"}
            row |= {"holds": [], "fails": [], "undecided": []}
            rule = ci_above if dial.side == "above" else ci_below
            for setting, number in dial.settings(*measured).items():
                side = {True: "holds", False: "fails", None: "undecided"}[rule(number, dial.threshold)]
                row[side].append(f"{setting}: {show(number)}")
            found.append(row)
    return found


def markdown(rows: list[dict]) -> str:
    """The dials as docs/FINDINGS.md shows them."""
    lines = ["| claim | the dial | it holds if | holds | fails | undecided |", "|---|---|---|---|---|---|"]
    for row in rows:
        sides = (", ".join(row[side]) or "-" for side in ("holds", "fails", "undecided"))
        lines.append(f"| {' | '.join([row['claim'], row['dial'], row['number'], *sides])} |")
    return "\n".join(lines)
