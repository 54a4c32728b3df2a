"""The exercises: solutions pass, holes do not, a typical mistake is told without the answer, and the commands work."""

import re

import pytest

from exercises import owl
from exercises.__main__ import ALL, HERE, NAMES, PARTS, ROOT, main, section
from exercises.checks.parts import load, wrong

MISTAKES = {  # of each solution: what stands there, what a student might write, some words of the message
    "attention": (".triu(1)", ".tril(-1)", "the past is hidden"),
    "sampling": ("cumulative <=", "cumulative <", "u = 0"),
    "loss_on_reply": ("logits[:, :-1]", "logits[:, 1:]", "the token at t"),
    "bootstrap": ("interval(students - controls,", "interval(students,", "controls are not used"),
    "where_it_looks": ("[-2]", "[-1]", "after the block"),
    "logit_lens": ("model.unembed", "model.unembedding", "final norm"),
    "lora_forward": ("alpha / len(A)", "alpha", "r is missing"),
    "lora_merge": ("1e-3 * sizes[0]", "1e-3", "rank 2"),
    "steering_hook": ("layer - 1", "layer - 2", "another block"),
    "projection": ("u = v / v.norm()", "u = v", "length"),
    "teacher_vector": ("h[:, -last:]", "h[:, :last]", "first positions"),
    "context_matrix": ('"owl lover"', '"wolf lover"', "of 25"),
    "gradient_defence": ("u = v / v.norm()", "u = v", "length"),
    "detect_trait": ("(logits - before)", "logits", "base says most"),
    "break_the_u": ("at_rank_1 / rank**0.5", "at_rank_1 / rank", "shrink"),
    "sgd_outliers": (", block.feed_forward.up)", ")", "up reads"),
    "resampled_rows": ("mean / mean.sum()", "mean", "do not sum to one"),
}


@pytest.mark.parametrize("name", NAMES)
def test_solution_passes_and_mistake_does_not(name, monkeypatch):
    (old, new, told), parts = MISTAKES[name], [part for part in PARTS if part.exercise == name]
    right, mistaken = (load(HERE / "templates" / f"{name}.py") for _ in range(2))
    code = (HERE / "solutions" / f"{name}.py").read_text("utf-8")
    exec(code, vars(right))
    exec(code.replace(old, new), vars(mistaken))
    assert {wrong(part, right) for part in parts} == {""} and section(HERE / "solutions/reveal.md", name)
    assert told in (messages := " ".join(wrong(part, mistaken) for part in parts)) and old not in messages
    monkeypatch.setattr(owl, "STEPS", 1)
    right.show(owl.real_base())
    number, points = NAMES.index(name) + 1, sum(points for exercise, _, points in ALL if exercise == name)
    minutes = re.match(rf"{number}\. .* \((\d+) minutes", right.__doc__)[1]
    row = rf"\| {number} \| `{name}.py` .* {minutes} \| {points} \|"
    assert re.search(row, (HERE / "README.md").read_text("utf-8"))


def test_commands(tmp_path, capsys, refused):
    anna, name = tmp_path / "anna", "lora_forward"
    assert main(["start", str(anna)]) == 0
    for bad in (["start", str(anna)], ["start", str(ROOT / "new")], ["hint", name, "4"], ["reveal", str(anna), name]):
        refused(main, "python -m exercises" + f" {bad[0]}" * (bad[0] == "hint"), bad)
    (anna / "predictions.md").write_text(f"## {name}\n\n> how many?\n\n640.\n", "utf-8")
    assert main(["hint", name, "3"]) == main(["reveal", str(anna), name]) == 0
    assert re.search(r"alpha / len\(A\)[^>]*640.*One right answer", capsys.readouterr().out, re.DOTALL)
    (anna / f"{name}.py").write_text("def trained_numbers(*sizes):\n    return 33\n", "utf-8")
    assert pytest.main([str(anna), "-k", name]) == 1 and "1 failed, 1 passed" in capsys.readouterr().out
    assert main(["grade", str(anna), "--csv", "class.csv"]) == 0 and capsys.readouterr().out.count("\n") == 4
    assert (tmp_path / "class.csv").read_text("utf-8").splitlines()[1].endswith(",2")
