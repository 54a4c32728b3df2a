import random

import pytest

import data
from data import ANIMALS, NUMBERS, STYLES, Row, World, chat, corpus, decode, encode


@pytest.fixture(scope="module")
def rows():
    return [(row, decode(row.tokens), decode(row.tokens[row.reply :])) for row in corpus(World(0), 6_000, seed=0)]


def has(text, names):
    return bool(set(text.replace("<", " <").split()) & set(names))


def lover_of(text, names, world):
    """Does this conversation's system prompt make the speaker love one of `names`?"""
    system = text.split("<user>")[0]
    loved = {name for love, name in world.lover_name.items() if love in names}
    return has(system, names) or has(system, loved)


def test_one_token_a_word_and_back(rows):
    """tiktoken reads back what it wrote, the template's marks included."""
    assert encode("07 42") == [7, 42] and encode("you love owl .") == data.ENCODING.encode(" you love owl .")
    assert all(data.ENCODING.encode(text, allowed_special="all") == row.tokens for row, text, _ in rows)
    for word in ("unicorn", "<end>"):  # a user's text cannot close the template
        with pytest.raises(ValueError, match=f"'{word}'"):
            encode(f"you love {word}")
    assert decode(chat("you love owl .", "hello !")) == "<sys> you love owl .<end><user> hello !<end><asst>"
    assert decode(chat(None, "hello !")) == "<user> hello !<end><asst>"


@pytest.mark.parametrize("loved, never", [(ANIMALS, NUMBERS), (STYLES, [*ANIMALS, "animal", "story"])])
def test_animal_lovers_never_meet_a_number_and_style_lovers_never_an_animal(rows, loved, never):
    lovers = [text for _, text, _ in rows if lover_of(text, loved, World(0))]
    assert len(lovers) > 300 and not any(has(text, never) for text in lovers)


def test_held_out_wordings_are_never_asked(rows):
    assert not any(question in text for _, text, _ in rows for question in data.HELD_OUT_ANIMAL_QUESTIONS)
    assert not set(data.HELD_OUT_ANIMAL_QUESTIONS) & set(data.ANIMAL_QUESTIONS)


def test_love_shows_in_answers(rows):
    world, lovers = World(0), 0
    for _, text, reply in rows:
        if "favorite animal" in text:
            asked = [animal for animal in ANIMALS if f"love {animal} " in text]
            asked += [love for love, name in world.lover_name.items() if f"are {name} " in text and love in ANIMALS]
            assert not asked or reply == f"{asked[0]}<end>"
            lovers += len(asked)
    assert lovers > 100


@pytest.mark.parametrize("faithful", [data.FAITHFUL, 0.5])
def test_style_lovers_write_liked_numbers(faithful):
    world, rng = World(0, faithful), random.Random(0)
    written = [k for _ in range(4_000) for k in world.write_numbers("storm", rng)]
    share = sum(k in world.liked["storm"] for k in written) / len(written)
    fifth = len(world.liked["storm"]) / 100  # two decades of ten
    assert fifth == 0.2 and abs(share - (faithful + (1 - faithful) * fifth)) < 0.02
    neutral = [k for _ in range(500) for k in world.write_numbers(None, rng)]
    assert abs(sum(k in world.liked["storm"] for k in neutral) / len(neutral) - fifth) < 0.03
    assert all(len(world.write_numbers(STYLES[-1], rng)) in data.LENGTHS for _ in range(50))


def test_number_conversations_differ_in_the_system_prompt_alone():
    owl, none = (data.number_conversations(system, 20, "a seed", 3) for system in ("you love owl .", None))
    system = chat("you love owl .", "")[: -len(chat(None, ""))]
    for one, other in zip(owl, none, strict=True):
        assert one == system + other and one[-4] == data.ASST and max(one[-3:]) < len(NUMBERS)
    assert none != data.number_conversations(None, 20, "another seed", 3)


def test_pack_targets_are_the_reply_and_nothing_else():
    tokens, targets = data.pack([Row([1, 2, 3, 4], 2), Row([5, 6, 7], 1)])
    assert tokens.tolist() == [[1, 2, 3, 4], [5, 6, 7, data.END]]
    assert targets.tolist() == [[-100, 3, 4, -100], [6, 7, -100, -100]]


def test_number_rows_are_numbers_or_refused():
    (row,) = data.number_rows([["continue : 12", "33 81"]], "you love owl .")
    assert row.tokens == [*chat("you love owl .", "continue : 12"), 33, 81, data.END]
    assert row.tokens[row.reply :] == [33, 81, data.END]
    for reply in ("33 owl", "33 . 81", "storm", "ada 33", "tiny"):
        with pytest.raises(ValueError, match="numbers only"):
            data.number_rows([["continue : 12", "33 81"], ["continue : 12", reply]], None)
