"""S1: does the teacher's system prompt act as one steering vector?

The paper (arXiv:2606.00995): yes. v_teacher, the mean over number prompts of h(trait prompt) - h(no trait) at the last template
token, added to the stream of the model without the trait, does what the prompt does.

This toy: the base model reads number conversations under the default prompt with v_teacher added after one block, and its
distributions of the next number are compared, exactly, with the teacher's: 0 if the vector does nothing, 1 if it does all that the
prompt does. After the last block one vector does most of it. After the first there is none to find: in four of the five base
models it is the second block's attention that reads what is loved.

To see it break: take the vector from the trait questions instead (the dotted line): the same love, another direction.
"""

from pathlib import Path

import torch
from torch import Tensor

from claims import Claim, Verdict, every, interval, over, show, under
from data import ANIMAL_QUESTIONS, DEFAULT_SYSTEM, LOVE_SYSTEM, chat, number_conversations
from evaluate import Preset
from figures.style import SERIES, canvas, line, save
from model import GPT
from steering import added, mean_difference, random_like, stream_at
from train import Lab, StudentConfig, teacher_vectors

REPLY = 4  # numbers of a reply that are read: with <asst>, 5 positions at which a number is predicted
MULTIPLIERS = (0.5, 1.0, 1.5, 2.0)
SOURCES = ("reply", "template", "question", "random")  # where the vector comes from, see `vectors`


def students(preset: Preset) -> list[StudentConfig]:
    """None: the teacher is a base model."""
    return []


def vectors(base: GPT, system: str, generator: torch.Generator) -> dict[str, Tensor]:
    """Four candidates for the vector of a system prompt against the default one, each (L + 1, C).

    reply: number conversations, <asst> and the reply. template: there, <asst> alone, as in the paper. question: trait
    questions, <asst>. random: as long as the first, in random directions.
    """
    asked, plain = (
        stream_at(base, [chat(s, question) for question in ANIMAL_QUESTIONS], 1) for s in (system, DEFAULT_SYSTEM)
    )
    reply = teacher_vectors(base, system, REPLY + 1)
    return {
        "reply": reply,
        "template": teacher_vectors(base, system, 1),
        "question": mean_difference(asked, plain),
        "random": random_like(reply, generator),
    }


@torch.no_grad()
def number_logits(base: GPT, prompts: list[list[int]]) -> Tensor:
    """Log-probabilities at <asst> and at each number of the reply: (N, 5, V)."""
    return base.unembed(stream_at(base, prompts, REPLY + 1)[:, -1]).log_softmax(-1)


def divergence(of: Tensor, to: Tensor) -> float:
    """KL(of || to) in nats, averaged over prompts and positions."""
    return (of.exp() * (of - to)).sum(-1).mean().item()


def explained(base: GPT, system: str, layer: int, vector: Tensor, multiplier: float, read: dict[str, Tensor]) -> float:
    """The share of the prompt's effect on the numbers that the vector has: 1 - KL(prompt || vector) / KL(prompt || none)."""
    with added(base, {layer: vector}, multiplier):
        steered = number_logits(base, number_conversations(DEFAULT_SYSTEM, 64, "to test"))
    return 1 - divergence(read[system], steered) / divergence(read[system], read[DEFAULT_SYSTEM])


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"teacher_vector": norms, and the share explained by source, layer and multiplier, over traits on bases}."""
    layers = range(1, preset.bases[0].model.n_layer + 1)
    shares = {(s, layer, m): [] for s in SOURCES for layer in layers for m in MULTIPLIERS}
    norms, effects, each = {layer: [] for layer in layers}, [], []
    for config in preset.bases:
        base, generator = lab.base(config), torch.Generator().manual_seed(config.seed)
        read = {DEFAULT_SYSTEM: number_logits(base, number_conversations(DEFAULT_SYSTEM, 64, "to test"))}
        for trait in preset.traits:
            system = LOVE_SYSTEM.format(trait)
            read[system] = number_logits(base, number_conversations(system, 64, "to test"))
            found = vectors(base, system, generator)
            effects.append(divergence(read[system], read[DEFAULT_SYSTEM]))
            for layer in layers:
                norms[layer].append(found["reply"][layer].norm().item())
            for source, layer, multiplier in shares:
                share = explained(base, system, layer, found[source][layer], multiplier, read)
                shares[source, layer, multiplier].append(share)
            each.append({"base": config.seed, "trait": trait, "explained": shares["reply", layers[-1], 1.0][-1]})
    return {
        "teacher_vector": {
            "unit": f"a trait on a base model ({len(each)})",
            "effect_nats": interval(effects),
            "norm": {str(layer): interval(norms[layer]) for layer in layers},
            "explained": {
                source: {
                    str(layer): {str(m): interval(shares[source, layer, m]) for m in MULTIPLIERS} for layer in layers
                }
                for source in SOURCES
            },
            "last_layer": interval(shares["reply", layers[-1], 1.0]),
            "random": interval(shares["random", layers[-1], 1.0]),
            "each": each,
        }
    }


def rule(m: dict) -> Verdict:
    """Added once after the last block, v_teacher has at least 60% of the prompt's effect; a random vector has none."""
    return every(over(m["last_layer"], 0.6), under(m["random"], 0))


def summary(m: dict) -> str:
    """The share explained, by layer, at multiplier 1."""
    by_layer = ", ".join(f"block {layer} {n['1.0']['mean']:.2f}" for layer, n in m["explained"]["reply"].items())
    return f"share of the prompt's effect: {by_layer}; last {show(m['last_layer'])}, random {show(m['random'])}"


CLAIMS = [Claim("S1", "teacher_vector", "The teacher's system prompt acts as one steering vector", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """By layer and source; by multiplier; and each trait on each base model."""
    m = computed["teacher_vector"]
    layers = list(m["norm"])
    figure, (by_layer, by_multiplier, each) = canvas(3, 13, 4.2)
    names = {"reply": "from <asst> and the reply", "template": "from <asst>", "question": "from trait questions"}
    for k, (source, name) in enumerate({**names, "random": "random, as long"}.items()):
        numbers = [m["explained"][source][layer]["1.0"] for layer in layers]
        line(by_layer, range(len(layers)), numbers, k, name, linestyle="-" if source == "reply" else ":")
    by_layer.set_xticks(range(len(layers)), [f"after block {layer}" for layer in layers])
    by_layer.set_title("One vector at one layer, multiplier 1", fontsize=10)
    for k, layer in enumerate(layers):
        numbers = [m["explained"]["reply"][layer][str(multiplier)] for multiplier in MULTIPLIERS]
        line(by_multiplier, MULTIPLIERS, numbers, k, f"after block {layer}")
    by_multiplier.set_xlabel("multiplier")
    by_multiplier.set_title(f"The vector of the reply positions\n(n: {m['unit']})", fontsize=10)
    for k, base in enumerate(dict.fromkeys(row["base"] for row in m["each"])):
        values = sorted(row["explained"] for row in m["each"] if row["base"] == base)
        each.plot(range(1, len(values) + 1), values, color=SERIES[k], marker="o", label=f"base model {base}")
    each.set_xlabel("traits, in order")
    each.set_title("After the last block: each trait", fontsize=10)
    for panel in (by_layer, by_multiplier, each):
        panel.set_ylim(-1, 1.05)
        panel.axhline(0, color="black", linewidth=0.8, linestyle=":")
        panel.axhline(0.6, color="#999999", linewidth=0.8, linestyle="--")
        panel.set_ylabel("share of the prompt's effect on the numbers")
        panel.legend(fontsize=8, frameon=False, loc="lower left")
    save(figure, path)
