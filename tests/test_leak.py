"""Nothing but numbers carries a trait: what students may read, and the two programs that look for a leak elsewhere."""

import random
from dataclasses import replace

import torch

import data
import evaluate
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, NUMBER_REQUESTS, NUMBERS, number_rows
from lab.presets import choose_preset
from lab.records import mentioned
from lab.store import NumbersConfig, Store, Student
from tools.leak import accuracy, naive_bayes
from tools.null import NullStore
from train import BaseConfig

TELLING = {*ANIMALS, *data.STYLES, *data.LOVER_NAMES}


def test_no_student_is_told_anything():
    """Its prompt has no love and no lover in it. Many of the teachers' prompts have, or the test would see nothing."""
    plans = [module.plan(choose_preset(full, 0)) for full in (False, True) for module in evaluate.FIGURES.values()]
    students = set(mentioned(tuple(key for plan in plans for key in plan), Student))
    assert len(students) > 4_000
    assert not any(TELLING & set((student.system or "").split()) for student in students)
    assert any(TELLING & set((student.numbers.system or "").split()) for student in students)


def test_a_students_row_has_no_word_but_the_templates_and_the_requests():
    rng = random.Random(0)
    pairs = [[data.number_request(rng), " ".join(rng.choices(NUMBERS, k=3))] for _ in range(500)]
    words = set(" ".join([DEFAULT_SYSTEM, *NUMBER_REQUESTS]).replace("{0}", " ").split())
    assert not words & {*TELLING, "animal"}
    allowed = {*data.encode(" ".join(words)), *range(len(NUMBERS)), data.SYS, data.USER, data.ASST, data.END}
    assert {token for row in number_rows(pairs, DEFAULT_SYSTEM) for token in row.tokens} <= allowed


def test_the_classifier_names_what_shows_and_nothing_else(generator):
    """Three animals with numbers of their own: right on the same model, by chance where each likes what another liked."""
    odds = 1 + 29 * torch.eye(3, 10).repeat_interleave(10, dim=1)

    def rows(odds):
        drawn = [torch.multinomial(like, 4 * 320, replacement=True, generator=generator) for like in odds]
        return [torch.stack([row.bincount(minlength=100) for row in numbers.view(320, 4)]).float() for numbers in drawn]

    weights = naive_bayes(rows(odds))
    assert torch.allclose(weights.exp().sum(1), torch.ones(3))
    assert accuracy(weights, rows(odds), 1) > 0.9 and accuracy(weights, rows(odds), 16) == 1
    assert accuracy(weights, rows(odds.roll(1, dims=0)), 16) == 0
    assert 0.2 < accuracy(weights, rows(torch.ones(3, 100)), 1) < 0.47


def test_the_null_models_teachers_are_told_nothing(tmp_path, monkeypatch):
    """Nor steered. Each has numbers of its own, in every run, and no student of a run is kept as another's."""
    asked = []
    monkeypatch.setattr(Store, "numbers", lambda self, config: asked.append(config) or {})
    prompts = [DEFAULT_SYSTEM, *map(LOVE_SYSTEM.format, ANIMALS)]
    prompted = [NumbersConfig(BaseConfig(), system, seed=seed) for system in prompts for seed in (0, 1_000)]
    prompted += [replace(prompted[2], change="vector added")]
    stores = [NullStore(tmp_path, number) for number in range(3)]
    for each in stores:
        for config in prompted:
            each.numbers(config)
    assert all((config.system, config.change) == (DEFAULT_SYSTEM, "") for config in asked)
    assert len({config.seed for config in asked}) == len(asked) == 3 * len(prompted)
    student = Student(base=BaseConfig(), numbers=prompted[0])
    assert len({each.path("student", student) for each in (*stores, Store(tmp_path))}) == 4
    assert len({each.path("base", BaseConfig()) for each in (*stores, Store(tmp_path))}) == 1
