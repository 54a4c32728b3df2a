"""Nothing but numbers carries a trait: what students may read, and what the null model's teachers are told."""

import random
from dataclasses import replace

import data
import evaluate
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM, NUMBER_REQUESTS, NUMBERS, number_rows
from lab.presets import choose_preset
from lab.records import mentioned
from lab.store import NumbersConfig, Store, Student
from tools.null import NullStore
from train import BaseConfig

TELLING = {*ANIMALS, *data.STYLES, *data.LOVER_NAMES}


def test_no_student_is_told_anything():
    """Its prompt has no love and no lover in it. Many of the teachers' prompts have, or the test would see nothing."""
    plans = [module.plan(choose_preset(full, 0)) for full in (False, True) for module in evaluate.FIGURES.values()]
    students = set(mentioned(plans, Student))
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
