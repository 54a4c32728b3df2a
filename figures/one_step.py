"""X4: how much of all this is in the very first step?

Neither paper computes it. In the first step of training B is zero, and the first-order change of anything that the model says is an
inner product of two gradients: of the loss, which decides the step, and of what is asked. Written out at a projection W,
with x_q and y_q = W x_q at the tokens q of a question and T the log-odds of the animal:

    step       dW  = -E[(alpha / r) dB A],   dB = sign(dLoss/dB)      AdamW's first step; the mean over A's random start
    change     dT  = sum over q and W of  dT/dy_q . dW x_q

The mean over A can be done on paper: sign(G a) a, for a random row a of A, points on average along each row of G = dLoss/dW, whatever
that row's length. So AdamW with LoRA begins with the gradient, each of its rows made equally long. And the sum has a term for every
token and layer: before any student is trained it says under which prompt, at which token and in which layer the trait will be.

This toy: from base models alone, the terms are compared with what the other figures measure on trained students: their contexts
(L4), the tokens at which their adapters act (L5), and the layers and tokens (L6); and, over all traits and base models, with how much each student gains.

To see it break: return the gradient of clean rows from `first_step` (it is the control).

What it predicts for real models: before fine-tuning on a data set, take the gradient of its loss and the gradients of the log-odds
of some candidate answers, under the system prompts that will be used. Their inner products, a few backward passes, should rank
the answers by how far fine-tuning will move them, and the prompts by how well they will show it.
"""

import copy
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from claims import Claim, Verdict, every, interval, mean, over, show, spearman
from data import ANIMAL_TOKENS, ANIMALS, DEFAULT_SYSTEM, chat
from evaluate import Preset, student_of
from figures import context, localization, modules
from figures.context import CONTEXTS
from figures.localization import ONLY, PLACES, QUESTIONS
from figures.style import MARKERS, SERIES, canvas, heat, save, top_of
from lora import PROJECTIONS
from model import GPT
from train import BaseConfig, Lab, StudentConfig, animal_rates, reply_loss

ROWS = 1_024  # of a teacher, whose gradient is taken


def students(preset: Preset) -> list[StudentConfig]:
    """Those of transmission (each base model's own) and of context: only what is compared with has to be trained."""
    own = [student_of(base, base, trait) for base in preset.bases for trait in preset.costly_traits]
    return own + context.students(preset)


def projections(model: GPT) -> dict[str, nn.Linear]:
    """The layers that LoRA changes, by name."""
    return {name: layer for name, layer in model.named_modules() if name.split(".")[-1] in PROJECTIONS}


def first_step(base: GPT, tokens: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The mean over A of AdamW's first step dW on packed rows, up to a factor that all layers share: {layer: (out, in)}."""
    model = copy.deepcopy(base)
    for layer in projections(model).values():
        layer.weight.requires_grad_(True)
    reply_loss(model, tokens, targets).backward()
    # An entry of A has standard deviation 1 / sqrt(3 in); the mean of sign(g . a) a is along g / |g|, as long as that.
    return {
        name: -nn.functional.normalize(layer.weight.grad, dim=1) / math.sqrt(layer.in_features)
        for name, layer in projections(model).items()
    }


def log_odds_gradients(base: GPT, prompt: list[int], animals: list[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """{layer: (its input at each token, (P, in); the gradients of each animal's log-odds at its output, (N, P, out))}."""
    model, seen = copy.deepcopy(base), {}
    for name, layer in projections(model).items():
        layer.weight.requires_grad_(True)  # so that what it computes has a gradient
        layer.register_forward_hook(lambda _, args, y, name=name: seen.update({name: (args[0], y)}))
    device = model.device
    answer = model(torch.tensor([prompt], device=device))[0, -1].softmax(-1)
    log_odds = answer[[ANIMAL_TOKENS[ANIMALS.index(animal)] for animal in animals]].logit()
    each = [torch.autograd.grad(t, [y for _, y in seen.values()], retain_graph=True) for t in log_odds]
    return {
        name: (x[0].detach(), torch.stack([gradients[k][0] for gradients in each]))
        for k, (name, (x, _)) in enumerate(seen.items())
    }


def questions(base: GPT, system: str | None, animals: list[str]) -> list[dict]:
    """`log_odds_gradients` of every wording of the animal question, asked under `system`."""
    return [log_odds_gradients(base, chat(system, question), animals) for question in QUESTIONS]


def changes(gradients: dict[str, tuple[Tensor, Tensor]], step: dict[str, Tensor]) -> dict[str, Tensor]:
    """dT by the layer and the token at which the step acts: {layer: (N, P)}."""
    return {name: (gradient * (x @ step[name].T)).sum(-1) for name, (x, gradient) in gradients.items()}


def gain(asked: list[dict], step: dict[str, Tensor]) -> Tensor:
    """dT of each animal, all layers and tokens together, averaged over the questions: (N,)."""
    return sum(change.sum(-1) for gradients in asked for change in changes(gradients, step).values()) / len(asked)


def by_place(asked: list[dict], step: dict[str, Tensor]) -> dict[tuple[str, str], float]:
    """dT of the one animal asked about, by site (as in L6) and place of the token (as in L5)."""
    found = {}
    for question, gradients in zip(QUESTIONS, asked, strict=True):
        for layer, change in changes(gradients, step).items():
            site = layer.rpartition(".")[0]
            for place, value in zip(localization.places(question), change[0].tolist(), strict=True):
                found[site, place] = found.get((site, place), 0.0) + value / len(asked)
    return found


def step_of(lab: Lab, config: StudentConfig) -> dict[str, Tensor]:
    """`first_step` of a student, before it is trained."""
    tokens, targets = (tensor[:ROWS].to(lab.device) for tensor in lab.rows(config.numbers, config.system))
    return first_step(lab.base(config.base), tokens, targets)


def gains(lab: Lab, preset: Preset) -> list[dict]:
    """A row for each trait on each base model: the predicted and the measured gain in log-odds, and the controls."""
    rows = []
    for base_config in preset.bases:
        base = lab.base(base_config)
        asked = questions(base, DEFAULT_SYSTEM, ANIMALS)
        clean = gain(asked, step_of(lab, student_of(base_config, base_config, None)))
        before = animal_rates(base).logit()
        for trait in preset.costly_traits:
            i, config = ANIMALS.index(trait), student_of(base_config, base_config, trait)
            predicted = gain(asked, step_of(lab, config))
            rows.append(
                {
                    "base": base_config.seed,
                    "trait": trait,
                    "predicted": predicted[i].item(),
                    "measured": (animal_rates(lab.student(config)).logit() - before)[i].item(),
                    "clean": clean[i].item(),
                    "named": ANIMALS[predicted.argmax()] == trait,
                }
            )
    return rows


def unit_maps(
    lab: Lab, preset: Preset, cells: dict[str, dict], base_config: BaseConfig, trait: str
) -> dict[str, tuple[dict, dict]]:
    """Of one trait on one base model: {map: (predicted, measured, in the same order)}; measured over all seeds."""
    base, i = lab.base(base_config), ANIMALS.index(trait)
    asked = {name: questions(base, system, [trait]) for name, system in CONTEXTS.items()}
    trained = {name: [cell[base_config, trait, seed] for seed in preset.grid_seeds] for name, cell in cells.items()}
    steps = {name: step_of(lab, configs[0]) for name, configs in trained.items()}
    contexts = {(one, other): gain(asked[other], step)[0].item() for one, step in steps.items() for other in CONTEXTS}
    sites = by_place(asked["default"], steps["default"])
    tokens = {place: sum(value for (_, at), value in sites.items() if at == place) for place in PLACES}

    students = {name: [lab.student(config) for config in configs] for name, configs in trained.items()}
    untrained = animal_rates(base)[i].item()
    masked = [localization.masked_rates(student, trait, ONLY) for student in students["default"]]
    kept = [modules.rates(student, trait) for student in students["default"]]
    return {
        "context": (
            contexts,
            {
                (one, other): mean(animal_rates(student, CONTEXTS[other])[i].item() for student in students[one])
                for one, other in contexts
            },
        ),
        "token": (tokens, {place: mean(rates[f"only {place}"] for rates in masked) - untrained for place in tokens}),
        "layer": (sites, {(site, at): mean(rates[f"{site} only {at}"] for rates in kept) for site, at in sites}),
    }


def compute(lab: Lab, preset: Preset) -> dict[str, dict]:
    """{"one_step": predicted against measured: gains of all students; contexts, tokens and layers of the grid's units}."""
    rows = gains(lab, preset)
    cells = context.cells(preset)
    maps = [unit_maps(lab, preset, cells, base, trait) for base, trait in preset.units]

    def order(name: str) -> dict:
        return interval(spearman(list(unit[name][0].values()), list(unit[name][1].values())) for unit in maps)

    def averaged(name: str, side: int) -> dict[str, float]:
        return {
            " / ".join(key) if isinstance(key, tuple) else key: mean(unit[name][side][key] for unit in maps)
            for key in maps[0][name][side]
        }

    by_base = [[row for row in rows if row["base"] == base.seed] for base in preset.bases]
    return {
        "one_step": {
            "unit": preset.unit,
            "gains": rows,
            "gain_order": spearman([row["predicted"] for row in rows], [row["measured"] for row in rows]),
            "gain_order_clean": spearman([row["clean"] for row in rows], [row["measured"] for row in rows]),
            "gain_order_within_base": (
                interval(
                    spearman([row["predicted"] for row in each], [row["measured"] for row in each]) for each in by_base
                )
                if len(preset.costly_traits) > 2
                else None  # too few to rank
            ),
            "named": interval(mean(row["named"] for row in each) for each in by_base),
            **{f"{name}_order": order(name) for name in maps[0]},
            **{name: {"predicted": averaged(name, 0), "measured": averaged(name, 1)} for name in maps[0]},
        }
    }


def rule(m: dict) -> Verdict:
    """Over units, the rank correlations with the measured contexts and with the measured tokens both lie above 0.5."""
    return every(over(m["context_order"], 0.5), over(m["token_order"], 0.5))


def summary(m: dict) -> str:
    """The rank correlations of what is predicted with what is measured."""
    orders = ", ".join(f"{name}s {show(m[f'{name}_order'])}" for name in ("context", "token", "layer"))
    return f"rank correlation with what training does: {orders}; with the gains of {len(m['gains'])} students {m['gain_order']:.2f}"


CLAIMS = [Claim("X4", "one_step", "One step's gradient predicts context and place", rule, summary)]


def draw(computed: dict[str, dict], path: Path) -> None:
    """Gains, predicted against measured; the context matrix, both; the tokens, both."""
    m = computed["one_step"]
    figure, ((gained, tokens), (before, after)) = canvas(2, 12, 9, rows=2)
    for k, seed in enumerate(dict.fromkeys(row["base"] for row in m["gains"])):
        rows = [row for row in m["gains"] if row["base"] == seed]
        gained.scatter(
            [row["predicted"] for row in rows], [row["measured"] for row in rows],
            color=SERIES[k], marker=MARKERS[k], label=f"base model {seed}",
        )  # fmt: skip
    gained.scatter(
        [row["clean"] for row in m["gains"]], [row["measured"] for row in m["gains"]],
        color="#999999", marker="x", s=14, label="control: gradient of clean rows",
    )  # fmt: skip
    gained.set_xlabel("predicted from the base model, log-odds, up to a common factor")
    gained.set_ylabel("gained by the student, log-odds")
    gained.set_title(f"{len(m['gains'])} students: rank correlation {m['gain_order']:.2f}", fontsize=10)
    gained.legend(fontsize=8, frameon=False, loc="lower right")

    for k, side in enumerate(("predicted", "measured")):
        values = m["token"][side]
        top = max(values.values())
        x = [place + 0.2 * (2 * k - 1) for place in range(len(values))]
        tokens.bar(x, [value / top for value in values.values()], 0.38, color=SERIES[1 - k], label=side)
    tokens.set_xticks(range(len(PLACES)), [place.strip() for place in PLACES], rotation=45)
    tokens.axhline(0, color="black", linewidth=0.8)
    tokens.set_ylabel("gain, as a share of the largest")
    tokens.set_title(
        f"The token at which the change acts (L5): {show(m['token_order'])}\n(n: {m['unit']})", fontsize=10
    )
    tokens.legend(fontsize=8, frameon=False)

    names = list(CONTEXTS)
    for panel, side, title in (
        (before, "predicted", "log-odds, predicted from the base model"),
        (after, "measured", "P(the teacher's animal), of trained students"),
    ):
        cells = [[m["context"][side][f"{one} / {other}"] for other in names] for one in names]
        image = heat(panel, cells, names, names, top_of(cells[:1]))
        panel.tick_params(axis="x", rotation=20)
        panel.set_xlabel("system prompt it is asked under")
        panel.set_ylabel("system prompt it was trained under")
        panel.set_title(f"{title}\n(L4: rank correlation {show(m['context_order'])})", fontsize=10)
        figure.colorbar(image, ax=panel)
    save(figure, path)
