"""S1: does the teacher's system prompt act as one steering vector?

The paper (arXiv:2606.00995): yes. v_teacher, the mean over number prompts of h(trait prompt) - h(no trait) at the last
template token, added to the stream of the model without the trait, does what the prompt does. This toy: the base model
reads number conversations under the default prompt, a vector added after one block. The vector's share of the prompt's
effect is 1 - KL(prompt || vector) / KL(prompt || none) of the next number: 0 if it does nothing, 1 if it does all. To
see it break: take the vector from the animal questions instead (a dotted line): the same love, another direction.
"""

import torch

from data import ANIMALS, LOVE_SYSTEM
from figures.style import STUDENT, Axes, dots, line, picture, write
from lab.changes import explained, teacher_vectors
from lab.claims import Claim, ci_above, ci_below, over_models, show
from lab.measurements import repeats
from lab.presets import Preset, Records
from lab.store import Store
from steering import added
from train import BaseConfig

SOURCES = {"template": "<asst>", "reply": "<asst> and reply", "question": "animal questions", "random": "random"}
CLAIMS = [Claim("S1", "teacher_vector", "The teacher's system prompt acts as one steering vector",
    seen=lambda m: ci_above(m["explained"]["template"][-1], 0.6),  # found at <asst>, added after the last block
    survives=lambda m: ci_below(m["explained"]["random"][-1], 0),  # as long, in a random direction
    why=lambda m: f"One vector, added after the last block, has a share of {show(m['explained']['template'][-1])} of the "
    f"prompt's effect on the numbers, after the first {show(m['explained']['template'][0])}; a random one as long has "
    f"{show(m['explained']['random'][-1])}. Asked to repeat a word, which no love has to do with, the base model is right with "
    f"{m['repeats']['base']['mean']:.2f}, prompted with {m['repeats']['prompted']['mean']:.2f}, with the vector added with "
    f"{show(m['repeats']['steered'])}.")]  # fmt: skip


def effects(store: Store, config: BaseConfig, trait: str) -> dict[str, dict]:
    """The share of the prompt's effect on the numbers that each source's vector has, added after each of the blocks; and `repeats` of
    the base model as it is, prompted, and with its v_teacher added after the last block."""
    base, system = store.base(config), LOVE_SYSTEM.format(trait)
    vectors = teacher_vectors(base, system, torch.Generator().manual_seed(100 * config.seed + ANIMALS.index(trait)))
    blocks = range(1, base.config.n_layer + 1)
    shares = {s: [explained(base, system, added(base, {k: v[k]})) for k in blocks] for s, v in vectors.items()}
    with added(base, {blocks[-1]: vectors["reply"][-1]}):
        steered = repeats(base)
    return {
        "explained": shares,
        "repeats": {"base": repeats(base), "prompted": repeats(base, system), "steered": steered},
    }


def plan(preset: Preset) -> list:
    return [(effects, base, trait) for base in preset.bases for trait in preset.traits]


def numbers(records: Records, preset: Preset) -> dict[str, dict]:
    each = {tuple(at): records[effects, *at] for _, *at in plan(preset)}
    by_base = {str(b.seed): [each[b, t]["explained"]["reply"][-1] for t in preset.traits] for b in preset.bases}
    unit = preset.model_unit(preset.bases, preset.traits)
    return {"teacher_vector": {"unit": unit, "by_base": by_base} | over_models(each)}


@picture(2, 14, 4.2, width_ratios=[1, 1.9])
def draw(m: dict, sources: Axes, each: Axes) -> None:
    for k, (source, name) in enumerate(SOURCES.items()):
        shares, style = m["explained"][source], "-" if source in ("template", "reply") else ":"
        line(sources, [f"after block {n}" for n, _ in enumerate(shares, 1)], shares, k, name, linestyle=style)
    sources.axhline(0, color="black", linewidth=0.8, linestyle=":")
    sources.set(ylabel="share of the prompt's effect on the numbers", ylim=(-1, 1.05))
    write(sources, "One vector, added after one block", m["unit"])
    sources.legend(loc="upper left", title="vector from")
    dots(each, m["by_base"], STUDENT)
    each.set_ylim(min(0, *map(min, m["by_base"].values())), 1)
    each.set_title("The vector of <asst> and reply, after the last block\na dot: one animal")
