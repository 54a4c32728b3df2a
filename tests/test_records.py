"""From a plan to records: what is made, and what is measured of it, against one student alone and by hand."""

import copy
import csv
from dataclasses import replace

import pytest
import torch

import lora
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, chat, encode, number_rows, pack
from lab import changes, first_step, measurements, records
from lab.presets import COMPANIONS, Grid, choose_preset, grid_cell
from lab.store import NumbersConfig, Store, fresh
from metrics import QUESTIONS, animal_rates, delta_norm, gap_closed, reply_loss, teacher_loss
from optimizers import OPTIMIZERS
from steering import student_vector, teacher_vector
from tests.test_store import BASE, NUMBERS, OTHER, STUDENT
from train import BaseConfig

CONTROL = replace(STUDENT, base=OTHER, numbers=replace(NUMBERS, base=OTHER, system=DEFAULT_SYSTEM), seed=1)
ROWS = pack(number_rows([["continue : 12 45", "33 81 07"], ["continue : 99 00", "10"]], DEFAULT_SYSTEM))


def known(store, plan):
    return records.make_and_measure(lambda do, jobs: [do(store, job) for job in jobs], plan)


def rank_of(store, config, more):
    """A named measurement: it finds its student made."""
    return [len(lora.adapters(store.student(config))["blocks.0.attention.q"].A), more]


def test_all_that_a_plan_mentions_is_made_before_it_is_measured(store, monkeypatch):
    """Inside arguments too. A student that is only mentioned there has no row. The second time nothing is made."""
    key = (rank_of, STUDENT, "more")
    found = known(store, [key, CONTROL, key, CONTROL])
    assert list(found) == [CONTROL, key] and found[key] == [2, "more"]
    mentioned = [config for kind in (BaseConfig, NumbersConfig) for config in records.mentioned((key, CONTROL), kind)]
    assert set(mentioned) == {BASE, OTHER, NUMBERS, CONTROL.numbers}
    for name in ("base_model", "write_numbers", "fine_tune_together"):
        monkeypatch.setattr(f"lab.store.{name}", None)
    assert known(store, [CONTROL, key]) == found and store.path("numbers", fresh(NUMBERS)).exists()
    assert fresh(NUMBERS) == replace(NUMBERS, rows=256, seed=1_000)


@pytest.mark.parametrize("how", [{}, {"rank": None, "base_change": "numbers units x10"}])
def test_a_row_is_what_is_measured_of_its_student_alone(store, how):
    """In a group of other base models and teachers, whose fresh rows are more or fewer; at each moment."""
    found = known(store, [replace(config, steps=steps, **how) for config in (STUDENT, CONTROL) for steps in (1, 3)])
    assert len({row["id"] for row in found.values()}) == 4
    for config, row in found.items():
        student, base = store.student(config), store.base(config.base, config.base_change)
        rates, vectors = animal_rates(student), [student_vector(student, base), teacher_vector(base, NUMBERS.system)]
        assert how or torch.equal(records.vector_of(store, student, config.base), vectors[0])
        own, prompted = (store.fresh_rows(config.numbers, system) for system in (config.system, config.numbers.system))
        losses = [reply_loss(model, *own).item() for model in (student, base)] + [teacher_loss(base, *prompted)]
        alone = {f"p_{animal}": rate for animal, rate in zip(ANIMALS, rates.tolist(), strict=True)}
        alone |= dict(zip(("heldout_loss", "heldout_loss_base", "heldout_loss_teacher"), losses, strict=True))
        alone |= {"p_any_animal": rates.sum().item(), "gap_closed": gap_closed(*losses)}
        alone |= {"delta_norm": delta_norm(student, base)}
        if config.numbers.system == NUMBERS.system:
            alone |= {"p_trait": rates[0].item(), "p_trait_base": animal_rates(base)[0].item()}
            for name, model in (("p_trait_story", student), ("p_trait_story_base", base)):
                assert row[name] == pytest.approx(records.story_rates(model)[0].item(), rel=1e-4, abs=0)
            assert row["cosine"] == pytest.approx(torch.cosine_similarity(*vectors, dim=1)[-1].item(), abs=1e-3)
        else:
            of_trait = "p_trait p_trait_base p_trait_story p_trait_story_base cosine".split()
            assert row["trait"] == "" and {row[name] for name in of_trait} == {None}
        assert row["favorite"] == ANIMALS[rates.argmax()] and row["delta_norm"] > 0
        assert {name: row[name] for name in alone} == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_the_trait_of_a_teacher():
    name_of, someone = BASE.world.lover_name, "you are {} a helpful assistant ."
    prompts = {LOVE_SYSTEM.format("cat"): "cat", DEFAULT_SYSTEM: "", None: "", "there was a fox in the wood .": "fox"}
    prompts |= {someone.format(name_of["owl"]): "owl", someone.format(name_of["storm"]): ""}
    assert {system: records.trait_of(NumbersConfig(BASE, system)) for system in prompts} == prompts


def test_the_table_of_students_is_read_back_and_added_to(tmp_path):
    path, other = tmp_path / "records.csv", replace(STUDENT, seed=1)
    records.write_csv({(rank_of, STUDENT): 3}, path)
    assert not path.exists()  # no student, no table
    records.write_csv({STUDENT: {"id": "a", "p_trait": 0.25}, (rank_of, STUDENT): 3}, path)
    records.write_csv({other: {"id": "b", "p_trait": None, "new": "x, y"}, STUDENT: {"id": "a", "p_trait": 0.5}}, path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows == [["a", "0.5", ""], ["b", "", "x, y"]]


def test_a_cells_units_are_base_models():
    preset = choose_preset(True, 0)
    cell = grid_cell(preset, rank=4, lr=1e-3, rows=640)
    assert len(cell) == 10 * (2 * 2 + 1)
    for (base, trait, seed), s in cell.items():
        assert (s.base, s.seed, s.rank, s.alpha, s.lr, s.numbers.rows) == (base, seed, 4, 4.0, 1e-3, 640)
        assert s.numbers.system == (LOVE_SYSTEM.format(trait) if trait else DEFAULT_SYSTEM)
    constant = dict.fromkeys(COMPANIONS, 2.0) | {f"p_{animal}": 0.01 for animal in ANIMALS}
    rows = {config: constant | {"p_trait": 0.1 * config.seed} for config in cell.values()}
    grid = Grid(rows, {"": cell})
    numbers = grid.reported("")
    assert (numbers["student"]["n"], numbers["student"]["mean"]) == (10, pytest.approx(0.05))
    assert numbers["control"]["mean"] == pytest.approx(0.01) and numbers["delta_norm"]["mean"] == 2
    assert (grid.choose, grid.test) == (slice(0, 1), slice(1, 2))
    assert grid.units("", seeds=grid.test) == [pytest.approx(0.1)] * 10
    few = Grid(rows, {"": {at: s for at, s in cell.items() if at[0] in preset.bases[:2]}})
    quick = Grid({}, {"": grid_cell(choose_preset(False, 0))})
    assert quick.choose == quick.test == slice(0, 1)  # one seed chooses and tests
    assert few.units("") == [pytest.approx(0.05)] * 4  # of two base models each animal counts


def test_adapters_at_some_tokens_and_in_some_layers(student, store, monkeypatch):
    """At all places a student is itself, at none its base; kept in a layer it is what is left when the others are taken away."""

    def left(lost):
        model = copy.deepcopy(student)
        for name, layer in lora.adapters(model).items():
            layer.B.data *= not lost(name)
        return pytest.approx(animal_rates(model)[ANIMALS.index("cat")].item(), rel=1e-4)

    monkeypatch.setattr(Store, "student", lambda *_: student)
    rates = measurements.token_rates(store, None, "cat")
    assert rates["all"] == rates["up to <asst>"] == left(lambda _: False) and rates["none"] == left(lambda _: True)
    assert len({rates[name] for name in measurements.SETS}) == len(measurements.SETS)
    rates = measurements.layer_rates(store, None, "cat")
    places = torch.arange(max(len(chat(DEFAULT_SYSTEM, question)) for question in QUESTIONS))
    but_the_name = (places != chat(DEFAULT_SYSTEM, "").index(*encode("tiny"))).float()[None]
    for site in measurements.sites(2):
        assert rates[f"only {site}"] == left(lambda name, site=site: not name.startswith(site))
        assert rates[f"without {site}"] == left(lambda name, site=site: name.startswith(site))
        with lora.masked(student, but_the_name, site):
            assert rates[f"{site} not at the name"] == left(lambda _: False)


def test_the_words_of_the_system_prompt_are_moved_to_the_users_turn(store, base, monkeypatch):
    monkeypatch.setattr(Store, "base", lambda *_: base)
    rates, asked = measurements.context_rates(store, BASE), [f"{DEFAULT_SYSTEM} {question}" for question in QUESTIONS]
    answers = [base(torch.tensor([chat(None, words)]))[0, -1].softmax(-1) for words in asked]
    own = torch.stack(answers)[:, encode(" ".join(ANIMALS))].mean(0).tolist()
    assert rates.pop(measurements.MOVED) == pytest.approx(own, rel=1e-4) and own not in rates.values()
    assert rates == {name: animal_rates(base, system).tolist() for name, system in measurements.CONTEXTS.items()}


def test_a_vector_explains_all_of_a_prompt_that_does_nothing_else(base, generator, monkeypatch):
    """And of many vectors, added so many times, the one that does is found."""
    vectors, number_logits = torch.randn(3, 8, generator=generator), changes.number_logits
    push = [changes.added_at_prompt(base, {1: vectors[1]}, multiplier) for multiplier in (3.0, 3.0, 0.0)]
    with push[0]:
        pushed = number_logits(base, DEFAULT_SYSTEM)
    monkeypatch.setattr(changes, "number_logits", lambda b, s: pushed if s == "pushed" else number_logits(b, s))
    assert changes.explained(base, "pushed", push[1]) == pytest.approx(1, abs=1e-5)
    assert changes.explained(base, "pushed", push[2]) == pytest.approx(0, abs=1e-5)
    with changes.best_at_prompt(base, "pushed", vectors):
        assert torch.equal(number_logits(base, DEFAULT_SYSTEM), pushed)


def test_the_first_step_is_the_mean_of_adamw_on_lora(base, generator):
    step, total = first_step.first_step(base, *ROWS), {}
    for _ in range(60):
        student = copy.deepcopy(base)
        lora.attach(student, 8, 8.0, generator=generator)
        optimizer = OPTIMIZERS["adamw"]([p for p in student.parameters() if p.requires_grad], 1e-3)
        reply_loss(student, *ROWS).backward()
        optimizer.step()
        for name, adapter in lora.adapters(student).items():
            total[name] = total.get(name, 0.0) + adapter.delta().detach()
    # Rows without a gradient do not move; of the others only the direction and the relative length count.
    assert all(torch.cosine_similarity(total[name].flatten(), own.flatten(), dim=0) > 0.9 for name, own in step.items())
    lengths = [(total[name].norm() / own.norm()).item() for name, own in step.items()]
    assert max(lengths) < 1.3 * min(lengths)


def test_the_gain_is_the_derivative_of_the_log_odds_and_the_sum_of_its_parts(base):
    step = first_step.first_step(base, *ROWS)

    def log_odds(size):
        moved = copy.deepcopy(base).double()
        for name, layer in first_step.projections(moved).items():
            layer.weight += size * step[name]
        answers = moved.next_token([chat(DEFAULT_SYSTEM, question) for question in QUESTIONS])
        return answers[:, encode("owl")[0]].logit().mean().item()

    asked = first_step.questions(base, DEFAULT_SYSTEM, ["owl"])
    gain, parts = first_step.gain(asked, step).item(), first_step.by_place(asked, step)
    assert gain == pytest.approx((log_odds(1e-5) - log_odds(-1e-5)) / 2e-5, rel=1e-2)
    assert sum(parts.values()) == pytest.approx(gain, rel=1e-3)
    assert {place for _, place in parts} == set(measurements.PLACES)
