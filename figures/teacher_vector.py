"""S1: does the teacher's system prompt act as one steering vector?

The paper (arXiv:2606.00995): yes. v_teacher, the mean over number prompts of h(trait prompt) - h(no trait) at the last template
token, added to the stream of the model without the trait, does what the prompt does.

This toy: the base model reads number conversations under the default prompt, a vector added after one block. The vector's share
of the prompt's effect is 1 - KL(prompt || vector) / KL(prompt || none) of the next number: 0 if it does nothing, 1 if it does all.

To see it break: take the vector from the animal questions instead (a dotted line): the same love, another direction.
"""

from pathlib import Path

import torch

from data import ANIMALS, LOVE_SYSTEM
from figures.style import SERIES, bars, canvas, line, save
from lab.changes import teacher_vectors
from lab.claims import Claim, Verdict, all_hold, ci_above, ci_below, interval, show
from lab.measurements import explained
from lab.presets import Preset
from lab.records import Measurement, Records
from lab.store import Store
from train import BaseConfig

SOURCES = {"reply": "<asst> and reply", "template": "<asst>", "question": "animal questions", "random": "random"}


def shares(store: Store, config: BaseConfig, trait: str) -> dict[str, list[float]]:
    """The share of the prompt's effect on the numbers that each source's vector has, added after each of the blocks."""
    base, system = store.base(config), LOVE_SYSTEM.format(trait)
    vectors = teacher_vectors(base, system, torch.Generator().manual_seed(100 * config.seed + ANIMALS.index(trait)))
    blocks = range(1, base.config.n_layer + 1)
    return {source: [explained(base, system, block, v[block]) for block in blocks] for source, v in vectors.items()}


def plan(preset: Preset) -> list[Measurement]:
    return [(shares, base, trait) for base in preset.bases for trait in preset.traits]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    """{"teacher_vector": `shares`, as intervals over animals on base models, and v_teacher's on each base model}."""
    each = {base.seed: [records[shares, base, trait] for trait in preset.traits] for base in preset.bases}
    units = [found for of_base in each.values() for found in of_base]
    by_block = {source: list(map(interval, zip(*(found[source] for found in units)))) for source in SOURCES}
    return {
        "teacher_vector": {
            "unit": f"an animal on a base model ({len(units)})",
            "explained": by_block,
            "last_layer": by_block["reply"][-1],
            "random": by_block["random"][-1],
            "by_base": {str(seed): interval(found["reply"][-1] for found in of_base) for seed, of_base in each.items()},
        }
    }


def rule(m: dict) -> Verdict:
    """Added once after the last block, v_teacher has at least 60% of the prompt's effect; a random vector has none."""
    return all_hold(ci_above(m["last_layer"], 0.6), ci_below(m["random"], 0))


def summary(m: dict) -> str:
    """The share explained, by block."""
    by_block = ", ".join(f"block {k} {share['mean']:.2f}" for k, share in enumerate(m["explained"]["reply"], 1))
    return f"share of the prompt's effect: {by_block}; last {show(m['last_layer'])}, random {show(m['random'])}"


CLAIMS = [Claim("S1", "teacher_vector", "The teacher's system prompt acts as one steering vector", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """By source and block; v_teacher after the last block, on each base model."""
    m = computed["teacher_vector"]
    figure, (sources, each) = canvas(2, 10, 4.2)
    blocks = [f"after block {k}" for k in range(1, len(m["explained"]["reply"]) + 1)]
    for k, (source, name) in enumerate(SOURCES.items()):
        line(sources, blocks, m["explained"][source], k, name, linestyle="-" if source == "reply" else ":")
    sources.set(ylabel="share of the prompt's effect on the numbers", ylim=(-1, 1.05))
    sources.set_title(f"One vector, added after one block\n(n: {m['unit']})", fontsize=10)
    sources.axhline(0, color="black", linewidth=0.8, linestyle=":")
    sources.legend(fontsize=8, frameon=False, loc="upper left", title="vector from", title_fontsize=8)
    bars(each, [f"base model {seed}" for seed in m["by_base"]], list(m["by_base"].values()), SERIES[0])
    each.set_xlabel("share of the prompt's effect on the numbers")
    each.set_title("The vector of <asst> and reply, after the last block", fontsize=10)
    save(figure, path)
