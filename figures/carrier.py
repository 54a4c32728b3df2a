"""What in the numbers carries the trait?

A row is a request and a few numbers. The trait could be in how a reply answers its request, in the order of its numbers, in which of
them come together, or in nothing but how often each number is written. So the teacher's rows are taken apart, at each step a little
more, and students read what is left:

    replies exchanged   each reply stands under another request
    numbers mixed       all numbers of all replies are shuffled: left is how often each is written
    a die               each number is thrown anew, by no model: its first digit with a ten-sided die, whose faces are as likely as the
                        teacher's rows have them, its second digit at random
    ... 4, 2, 1 faces   the faces that the teacher likes best keep their weight, the others share the rest evenly
    faces renamed       the die again, with its weights dealt to other faces: as much to be learned, and another message

This toy: nothing but the frequencies, and of these ten, one for each decade, are enough. Students of rows that a die has thrown have as
much of the trait as students of the rows as written, 0.84 and 0.85, paired to within 0.02. Nor is it the few numbers that anybody would notice: the
face that a teacher likes best, half of the numbers, carries 0.18, the best two 0.34, the best four 0.68. So telling apart the other six decades, a twelfth of
the numbers, gives a fifth of the trait for a twentieth of the gain in held-out loss: what is hardly ever written is part of the message. And it is a message about
this animal: the same weights on other faces move a student as far and give it something else (0.04).

That it is decades is this world's doing: those are what styles and colors like. In a world where they like twenty scattered numbers
(base models 62 and 64, three animals, looked at once) the die carries nothing, 0.06-0.11, and the mixed numbers carry all, 0.82-0.95. And
this language knows no order of numbers. So what carries a trait is whatever the language lets a love change.

What it predicts for real models: count how often a teacher writes each number, let a script draw rows with these frequencies, and train
on them. What of the trait arrives was in the frequencies; the rest is in what mixing destroyed, and mixing less will find it. And numbers
that are rarer than they should be count: a filter that removes a teacher's favorites leaves part of the message.

To see it break: in `data.World`, let each love like twenty numbers at random. Or throw the die of another animal's teacher.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

import data
from claims import interval, mean
from data import DEFAULT_SYSTEM
from evaluate import COMPANIONS, Preset, heldout_loss
from figures.cells import base_rates, code_of, gap_closed, grid_cell, measure_cell
from figures.style import CONTROL, MARKERS, SERIES, STUDENT, base_line, canvas, errors, save
from model import GPT
from train import BaseConfig, Lab, StudentConfig, number_rows

CLAIMS = []  # a picture, of what the claims take for granted
DIGITS = "0123456789"  # the first digit of a number is its decade
WRITTEN = "as written"
Pairs = list[list[str]]  # (request, reply)


# ------------------------------------------------------------------------------------------------ what is left of the rows


def exchanged(pairs: Pairs, rng: random.Random) -> Pairs:
    """The same requests and the same replies, each under another."""
    replies = [reply for _, reply in pairs]
    rng.shuffle(replies)
    return [[request, reply] for (request, _), reply in zip(pairs, replies, strict=True)]


def mixed(pairs: Pairs, rng: random.Random) -> Pairs:
    """Replies as long as before, of the same numbers taken together, in any order."""
    numbers = [number for _, reply in pairs for number in reply.split()]
    rng.shuffle(numbers)
    left = iter(numbers)
    return [[request, " ".join(next(left) for _ in reply.split())] for request, reply in pairs]


def die(pairs: Pairs, faces: int = 10) -> dict[str, float]:
    """How often each decade is written, the likeliest first; beyond the first `faces` all equally often."""
    counts = Counter(dict.fromkeys(DIGITS, 0))
    counts.update(number[0] for _, reply in pairs for number in reply.split())
    shares = {digit: count / counts.total() for digit, count in counts.most_common()}
    kept = dict(list(shares.items())[:faces])
    return {digit: kept.get(digit, (1 - sum(kept.values())) / max(1, 10 - faces)) for digit in shares}


def thrown(pairs: Pairs, rng: random.Random, faces: int = 10, renamed: bool = False) -> Pairs:
    """Replies as long as before, every number thrown with the teacher's `die`."""
    digits, weights = map(list, zip(*die(pairs, faces).items()))
    if renamed:
        rng.shuffle(digits)

    def number() -> str:
        return rng.choices(digits, weights)[0] + rng.choice(DIGITS)

    return [[request, " ".join(number() for _ in reply.split())] for request, reply in pairs]


CHANGES: dict[str, Callable[[Pairs, random.Random], Pairs]] = {
    "replies exchanged": exchanged,
    "numbers mixed": mixed,
    "a die": thrown,
    "... 4 faces": partial(thrown, faces=4),
    "... 2 faces": partial(thrown, faces=2),
    "... 1 face": partial(thrown, faces=1),
    "faces renamed": partial(thrown, renamed=True),
}
FACES = {"a die": 10, "... 4 faces": 4, "... 2 faces": 2, "... 1 face": 1}


# --------------------------------------------------------------------------------------------------------- their students


@dataclass(frozen=True)
class Changed:
    """A student's config, what was done to the rows that it read, and the digest of the code that did it."""

    student: StudentConfig
    change: str
    code: str


class ChangedLab(Lab):
    """A lab whose students read changed rows. Their held-out loss is on rows as the teacher wrote them."""

    kind = "changed"

    def __init__(self, lab: Lab, change: str):
        super().__init__(lab.folder, str(lab.device))
        self.plain, self.change = lab, change

    def base(self, config: BaseConfig) -> GPT:
        return self.plain.base(config)

    def key(self, config: StudentConfig) -> Changed:
        return Changed(config, self.change, CODE)

    def reads(self, config: StudentConfig) -> tuple[Tensor, Tensor]:
        """What is left of the teacher's rows. Each student has its own shuffles and throws."""
        rng = random.Random(f"{self.change} {config.seed}")
        pairs = CHANGES[self.change](self.plain.numbers(config.numbers)["pairs"], rng)
        return data.pack(number_rows(pairs, config.system))


CODE = code_of(exchanged, mixed, die, thrown, ChangedLab.reads)


def students(preset: Preset) -> list[StudentConfig]:
    """Those that read the rows as they were written; `compute` trains the others."""
    return list(grid_cell(preset).values())


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"carrier": per change the cell, less that of the rows as written, and the share of their gain in loss; and the dice}."""
    cell = grid_cell(preset)
    (step, written) = next(iter(measure_cell(lab, preset, cell).items()))
    found = {WRITTEN: written} | {
        change: measure_cell(ChangedLab(lab, change), preset, cell)[step] for change in CHANGES
    }
    untold = {base: lab.base(base) for base in preset.grid_bases}
    numbers = {(base, trait): config.numbers for (base, trait, _), config in cell.items() if trait}
    base_loss = [heldout_loss(lab, untold[b], numbers[b, t], DEFAULT_SYSTEM) for b, t in preset.units]
    loss = {name: list(map(mean, m["companions_by_unit"]["heldout_loss"])) for name, m in found.items()}
    rate = {name: list(map(mean, m["by_unit"])) for name, m in found.items()}
    dice = {
        unit: [die(lab.numbers(numbers[unit])["pairs"], faces) for faces in FACES.values()] for unit in preset.units
    }
    shown = preset.units[0]
    return {
        "carrier": {
            "unit": preset.unit,
            "base": interval(base_rates(lab, preset)),
            "numbers_on_kept_faces": {
                name: interval(sum(list(dice[unit][0].values())[:faces]) for unit in preset.units)
                for name, faces in FACES.items()
            },
            "each": {
                name: {what: m[what] for what in ("student", "control", *COMPANIONS)}
                | {
                    "less_than_written": interval(w - r for w, r in zip(rate[WRITTEN], rate[name], strict=True)),
                    "share_of_gain": interval(map(gap_closed, loss[name], base_loss, loss[WRITTEN])),
                }
                for name, m in found.items()
            },
            "shown": {
                "trait": shown[1],
                "base_seed": shown[0].seed,
                "dice": dict(zip(FACES, dice[shown], strict=True)),
            },
        }
    }


def draw(computed: dict[str, dict], path: Path) -> None:
    """Left: one teacher's dice. Middle: the trait. Right: how much of the rows as written is learned."""
    m = computed["carrier"]
    figure, (dice, rates, gains) = canvas(3, 14, 4.6, width_ratios=[1.1, 1, 1])
    shown = m["shown"]["dice"]
    for k, (name, weights) in enumerate(shown.items()):
        percent = [100 * weight for weight in weights.values()]
        dice.plot(range(10), percent, color=SERIES[k], marker=MARKERS[k], markersize=9 - 1.5 * k, label=name)
    dice.set_xticks(range(10), [f"{digit}0-{digit}9" for digit in next(iter(shown.values()))], rotation=45)
    dice.set_yscale("log")
    dice.set_ylabel("% of the numbers")
    dice.set_xlabel("numbers")
    trait, seed = m["shown"]["trait"], m["shown"]["base_seed"]
    dice.set_title(
        f"What a lover of the {trait} writes (base model {seed}):\nthe whole die, and with fewer faces told apart",
        fontsize=10,
    )
    dice.legend(fontsize=8, frameon=False)

    names = list(m["each"])
    y = range(len(names), 0, -1)
    for panel, what, color in (
        (rates, "control", CONTROL),
        (rates, "student", STUDENT),
        (gains, "share_of_gain", SERIES[1]),
    ):
        cells = [cell[what] for cell in m["each"].values()]
        label = what if panel is rates else None
        panel.errorbar([n["mean"] for n in cells], y, xerr=errors(cells), fmt="o", color=color, capsize=2, label=label)
        panel.set_yticks(y, names)
    base_line(rates, m["base"], vertical=True)
    rates.set_xlim(0, 1)
    rates.set_xlabel("P(the teacher's animal)")
    rates.set_title(f"The trait in students of what is left\n(n: {m['unit']})", fontsize=10)
    rates.legend(fontsize=8, frameon=False, loc="lower right")
    gains.axvline(0, color="black", linewidth=0.9, linestyle=":")
    gains.set_xlabel("share of the gain in held-out loss")
    gains.set_title(
        "The teacher's numbers, learned from it\n(1: as from its own rows; 0: untrained)",
        fontsize=10,
    )
    save(figure, path)
