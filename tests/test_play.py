import matplotlib
import pytest
import torch

import play
from data import ANIMAL_TOKENS, DEFAULT_SYSTEM, LOVE_SYSTEM, chat, number_conversations


@pytest.fixture
def window(base):
    figure = play.FigureCanvasAgg(play.Figure(figsize=play.SIZE)).figure
    return play.Window(figure, play.Models(base, play.StudentConfig(steps=5, lr=0.05)), "owl")


def bars(window, *strengths):
    for slider, strength in zip(window.sliders, strengths):
        slider.set_val(strength)
    return [bar.get_width() for bar in window.rate_bars] + [bar.get_height() for bar in window.decade_bars]


def asked(model, system=DEFAULT_SYSTEM):
    rates = model.next_token([chat(system, "what is your favorite animal ?")])[0, ANIMAL_TOKENS].tolist()
    numbers = model.next_token(number_conversations(system, 64, "to play", 0)).mean(0).tolist()
    return pytest.approx(rates + [sum(numbers[10 * ten : 10 * ten + 10]) for ten in range(10)], rel=1e-4)


def test_what_the_widgets_set_is_a_known_model(window, base):
    student, love = window.models.learned("owl")[0], LOVE_SYSTEM.format("owl")
    assert bars(window) == asked(student) != bars(window, 0, 0, 0) == asked(base)
    window.layers.set_active(1)
    with play.added(base, {1: play.teacher_vector(base, love)[1]}, -1.5):
        assert bars(window, -1.5, 0, 0) == asked(base)
    for k, system in enumerate(play.SYSTEMS.values()):  # love comes last
        window.systems.set_active(k)
        assert bars(window, 0, 0, 1) == asked(student, system and system.format("owl"))
    for box in range(18):
        window.boxes.set_active(box, False)
    assert bars(window, 0, 0, 4) == asked(base, love)
    window.boxes.set_active(17, True)  # where the reply begins
    with play.masked(student, torch.tensor([14 * [0] + [2.5]])):
        rates = student.next_token([chat(love, play.QUESTION)])[0, ANIMAL_TOKENS].tolist()
    assert bars(window, 0, 0, 2.5)[:16] == pytest.approx(rates, rel=1e-4)
    assert play.prompts(love)[1][0, :15].tolist() == [*range(6), *range(9, 18)]  # the boxes of "you love owl ."


def test_what_moves_is_painted_as_if_all_were_drawn(window):
    window.animals.set_active(14)
    assert list(window.models.made) == ["owl", "whale"] and not any(part.get_visible() for part in window.hidden)
    window.show(True)
    bars(window, 1.5, -1, 0.5)
    painted = bytes(window.figure.canvas.buffer_rgba())
    window.figure.canvas.draw()
    assert painted == bytes(window.figure.canvas.buffer_rgba())


def test_no_window_without_a_screen_but_a_picture(base, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(play, "base_model", lambda *_: base)
    matplotlib.use("agg")  # what pyplot falls back to where there is no screen
    assert refused(play.main, "play.py", []) == ""  # and we are in tmp_path now
    assert play.main(["--save", "a.png"]) == 0 and (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
