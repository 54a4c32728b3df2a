"""`python play.py` opens a window to play with: a model, what it answers, and sliders that change it.

The model is a base model with a student's LoRA adapter and two steering vectors, each times what its slider says. Bars
are probabilities, not samples. Grey and black: the base under the default prompt. Try, and first say what you expect:

1. Adapter 0, v_student 1; then v_teacher alone 1. Can you tell from the bars which of the three is on?
2. Move each of the three far beyond 1, and below 0. When does P(any animal) fall? Do the numbers suffer too?
3. Adapter 1, vectors 0: under which system prompts does the trait survive? Which tokens does the adapter need for it?
"""

import argparse
from contextlib import suppress
from functools import cache

import torch
from matplotlib.artist import setp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.widgets import Button, CheckButtons, RadioButtons, Slider

import data
from console import STORY, run
from data import ANIMALS, DEFAULT_SYSTEM, LOVE_SYSTEM
from figures.style import BASE, FULL, STUDENT, Figure
from lab.measurements import CONTEXTS
from lora import masked
from model import GPT, pad
from steering import added, student_vector, teacher_vector
from train import BaseConfig, StudentConfig, base_model, fine_tune, write_numbers

SIZE = (12, 7)  # inches
SYSTEMS = CONTEXTS | {"loves the animal": LOVE_SYSTEM}
SLIDERS = {"v_teacher": (-2, 8, 0), "v_student": (-2, 8, 0), "the adapter": (-1, 4, 1)}  # from, to, at the start
QUESTION = data.ANIMAL_QUESTIONS[0]
WORDS = [data.decode([token]) for token in data.chat(DEFAULT_SYSTEM, QUESTION)]  # a box for each of the 18


@cache
def prompts(system: str | None) -> tuple[list[list[int]], torch.Tensor]:
    """The animal question, 64 requests for numbers; and the box of each token (65, T), by its place in the question."""
    asked = [data.chat(system, QUESTION), *data.number_conversations(system, 64, "to play", 0)]
    start, user = asked[0].index(data.USER), WORDS.index("<user>")
    words = [range(user, user + len(prompt) - start - 2) for prompt in asked]  # past the question's last, 15: that one
    return asked, pad([[*range(start), *(min(box, 15) for box in boxes), 16, 17] for boxes in words])[0]


class Models:
    """A base model and, for each animal that a teacher has loved, its student, v_teacher and v_student."""

    def __init__(self, base: GPT, config: StudentConfig):
        self.base, self.config, self.made = base, config, {}

    def learned(self, animal: str) -> tuple[GPT, torch.Tensor]:
        """The animal's student, and v_teacher and v_student at each layer (2, L + 1, C). Made once, in seconds."""
        if animal not in self.made:
            system, n = LOVE_SYSTEM.format(animal), self.config.batch_size * self.config.steps
            pairs = write_numbers(self.base, system, n, f"the teacher {self.config.seed}")
            student = fine_tune(self.base, *data.pack(data.number_rows(pairs, DEFAULT_SYSTEM)), self.config)
            vectors = torch.stack([teacher_vector(self.base, system), student_vector(student, self.base)])
            self.made[animal] = student, vectors
        return self.made[animal]

    def answers(self, animal: str, system: str | None, strengths=(0, 0, 0), layer=0, boxes=(True,) * 18) -> tuple:
        """P(first word) of animals, P(first number) of decades. Strengths: v_teacher, v_student, adapter; 0 is base."""
        (student, vectors), (*multipliers, adapter) = self.learned(animal), strengths
        asked, where = prompts(system)
        mask = adapter * torch.tensor(boxes).float()[where].to(vectors)  # multiplies the adapter's change, (65, T)
        with masked(student, mask), added(student, {layer: torch.tensor(multipliers).to(vectors) @ vectors[:, layer]}):
            p = student.next_token(asked)
        return p[0, data.ANIMAL_TOKENS].tolist(), p[1:, :100].mean(0).view(10, 10).sum(1).tolist()


class Window:
    """Menus choose what is asked of whom, and hide the model's bars. The button shows them. The rest moves them."""

    def __init__(self, figure: Figure, models: Models, animal: str):
        self.figure, self.models, self.sliders = figure, models, []
        self.says = figure.text(0.02, 0.955, "", size=12)
        self.button = Button(figure.add_axes((0.885, 0.94, 0.1, 0.045)), "")
        self.button.on_clicked(lambda _: self.show(not self.titles[0].get_visible()))
        self.animals = self.menu(0.4, 0.48, "the teacher loves", ANIMALS, ANIMALS.index(animal))
        self.systems = self.menu(0.16, 0.175, "system prompt", list(SYSTEMS), 0)
        self.layers = self.menu(0.015, 0.1, "vectors added after", ["the embedding", "block 1", "block 2"], 2)

        left, right = figure.add_axes((0.14, 0.4, 0.36, 0.48)), figure.add_axes((0.55, 0.4, 0.435, 0.48))
        rates, decades = models.answers(animal, DEFAULT_SYSTEM)  # of the base
        rows, tens = [label.get_position()[1] for label in self.animals.labels], range(10)  # the menu names its bars
        self.rate_bars = left.barh(rows, rates, height=0.04, color=STUDENT)
        left.set(xlim=(0, 1), ylim=(0, 1), yticks=[], xlabel=f'P(first word of the reply to "{QUESTION}")')
        right.bar([ten - 0.28 for ten in tens], decades, 0.26, color=BASE, label="base")
        self.teacher_bars = right.bar(tens, decades, 0.26, color=FULL, label="teacher")
        self.decade_bars = right.bar([ten + 0.28 for ten in tens], decades, 0.26, color=STUDENT, label="model as set")
        right.set(ylim=(0, 1), xticks=tens, xticklabels=[f"{k}0s" for k in tens], xlabel="P(first number of the reply)")
        self.titles = [axes.set_title("", loc="left") for axes in (left, right)]
        self.hidden = [*self.rate_bars, *self.decade_bars, *self.titles]
        self.moving = [*self.hidden, *left.plot(rates, rows, "|", color="black", ms=11, mew=2, label="base")]
        for axes in (left, right):
            axes.legend(loc="lower right", bbox_to_anchor=(1.02, 0.98), ncols=3, columnspacing=1)
        for y, (name, (low, high, start)) in zip((0.275, 0.23, 0.185), SLIDERS.items()):
            axes = figure.add_axes((0.3, y, 0.63, 0.03))
            slider = Slider(axes, f"{name} times", low, high, valinit=start, valstep=0.1, initcolor="black")
            slider.poly.set(x=0, width=start, color=STUDENT)  # from 0 on, not from the left end
            slider.drawon = False  # `paint` draws it
            slider.on_changed(self.update)
            self.sliders.append(slider)
            self.moving += [slider.poly, slider.valtext, *axes.lines]
        axes = figure.add_axes((0.2, 0, 0.8, 0.12), frameon=False)
        self.boxes = CheckButtons(axes, WORDS, [True] * 18, layout=(2, 9))
        axes.set_title("the adapter acts at (another system prompt's tokens go by their places)", loc="left")
        self.boxes.on_clicked(self.update)
        self.stage = figure.add_axes((0.14, 0.145, 0.86, 0.785), visible=False).bbox  # where all that moves is
        setp(self.moving, animated=True)  # left out when the rest is drawn
        figure.canvas.mpl_connect("draw_event", lambda drawn: figure.canvas.is_saving() or self.paint(drawn))
        self.choose()

    def menu(self, y: float, h: float, title: str, names: list[str], active: int) -> RadioButtons:
        menu = RadioButtons(self.figure.add_axes((0.01, y, 0.13, h), frameon=False), names, active, activecolor=STUDENT)
        menu.ax.set_title(title, loc="left", x=0.08)
        menu.on_clicked(self.choose)
        return menu

    def choose(self, _=None) -> None:
        """Take what the menus say, with the model's bars hidden. A student that is not there yet is trained."""
        setp(self.hidden, visible=False)
        animal = self.animals.value_selected
        if animal not in self.models.made:
            self.says.set_text(f"training the student of {animal} ...")
        self.figure.canvas.draw()
        self.figure.canvas.flush_events()  # or this would be seen when it is over
        _, self.teacher = self.models.answers(animal, LOVE_SYSTEM.format(animal))
        self.show(False)

    def show(self, shown: bool) -> None:
        setp(self.hidden, visible=shown)
        self.button.label.set_text("hide" if shown else "reveal")
        self.says.set_text("Choose on the left. Say what you expect. Press reveal. Then move sliders and boxes.")
        self.update()
        self.figure.canvas.draw_idle()

    def update(self, _=None) -> None:
        """Bars and titles, as the menus, sliders and boxes are now."""
        animal, system = self.animals.value_selected, SYSTEMS[self.systems.value_selected]
        setting = [slider.val for slider in self.sliders], self.layers.index_selected, self.boxes.get_status()
        rates, decades = self.models.answers(animal, system and system.format(animal), *setting)
        for bar, p, name in zip(self.rate_bars, rates, ANIMALS):
            bar.set(width=p, alpha=1 if name == animal else 0.5)
        for bar, p in zip([*self.teacher_bars, *self.decade_bars], [*self.teacher, *decades]):
            bar.set_height(p)
        self.titles[0].set_text(f"P({animal}) = {rates[ANIMALS.index(animal)]:.2f}    P(any animal) = {sum(rates):.2f}")
        self.titles[1].set_text(f"P(any number) = {sum(decades):.2f}")
        self.paint()

    def paint(self, drawn=None) -> None:
        """Draw what moves upon a copy of the rest, which is kept whenever it was drawn."""
        if drawn:
            self.background = self.figure.canvas.copy_from_bbox(self.stage)
        self.figure.canvas.restore_region(self.background)
        for artist in self.moving:
            self.figure.draw_artist(artist)
        if not drawn:
            self.figure.canvas.blit(self.stage)


def story(args: argparse.Namespace) -> None:
    """A window to play with: what a student's adapter and two steering vectors do to a model's answers."""
    figure = FigureCanvasAgg(Figure(figsize=SIZE)).figure
    if not args.save:
        with suppress(ImportError):  # of a kind of window, chosen by name, that needs a screen
            from matplotlib import pyplot  # not before: it chooses the kind

            figure = pyplot.figure("subliminal learning", figsize=SIZE)
        if not figure.canvas.required_interactive_framework:
            raise ValueError("no window can be opened here; --save FILE draws the picture without one")
    base = base_model(BaseConfig(seed=args.seed), args.device, not args.pretrain)
    window = Window(figure, Models(base, StudentConfig(seed=args.seed)), args.trait)
    if args.save:
        window.show(True)
        figure.savefig(args.save, dpi=120)
    else:
        pyplot.show()


def main(argv: list[str] | None = None) -> int:
    options = STORY | {"save": {"metavar": "FILE", "help": "draw the picture into a file, without a window, and end"}}
    return run(story, "play.py", argv, **options)


if __name__ == "__main__":
    raise SystemExit(main())
