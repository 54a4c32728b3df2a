"""The exercises: solutions pass, holes do not, a typical mistake is told without the answer, and the commands work."""

import copy
import re
import subprocess
import sys

import pytest

from exercises import owl
from exercises.__main__ import ALL, HERE, NAMES, PARTS, ROOT, main, section
from exercises.checks.parts import load, wrong

# Of each solution: what stands there, what a student might write, and a word of the message that comes of it.
MISTAKES = {
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
def test_solution_passes_and_hole_and_mistake_do_not(name, monkeypatch):
    (old, new, told), parts = MISTAKES[name], [part for part in PARTS if part.exercise == name]
    hole, right, mistaken = (load(HERE / "templates" / f"{name}.py") for _ in range(3))
    code = (HERE / "solutions" / f"{name}.py").read_text("utf-8")
    exec(code, vars(right))
    exec(code.replace(old, new), vars(mistaken))
    assert {wrong(part, right) for part in parts} == {""}
    assert {wrong(part, hole) for part in parts} == {"the hole is not filled"}
    messages = " ".join(wrong(part, mistaken) for part in parts)
    assert told in messages and old not in messages
    monkeypatch.setattr(owl, "ROWS", 100)
    monkeypatch.setattr(owl, "STEPS", 1)
    right.show(copy.deepcopy(owl.real_base()))  # a model of its own: what it writes is cached with it
    row = re.search(rf"\| (\d+) \| `{name}.py` \|.*\| (\d+) \| (\d+) \|", (HERE / "README.md").read_text("utf-8"))
    assert int(row[1]) == NAMES.index(name) + 1 and int(row[3]) == sum(p for exercise, _, p in ALL if exercise == name)
    assert re.match(rf"{row[1]}\. .* \({row[2]} minutes", hole.__doc__) and section(HERE / "solutions/reveal.md", name)


def test_commands(tmp_path, capsys, refused):
    anna, name = tmp_path / "anna", "lora_forward"
    page, answer = anna / "predictions.md", anna / f"{name}.py"
    assert main(["start", str(anna)]) == 0
    for bad in (["start", str(anna)], ["start", str(ROOT / "new")], ["hint", name, "4"], ["reveal", str(anna), name]):
        refused(main, "python -m exercises" + f" {bad[0]}" * (bad[0] == "hint"), bad)
    assert main(["hint", name, "3"]) == 0 and "alpha / len(A)" in capsys.readouterr().out
    page.write_text(page.read_text("utf-8").replace("W's?", "W's?\n640.\n>"), "utf-8")
    assert main(["reveal", str(anna), name]) == 0 and "640" in capsys.readouterr().out
    answer.write_text(answer.read_text("utf-8") + "\n\ndef trained_numbers(*sizes):\n    return 33\n", "utf-8")
    checked = subprocess.run([sys.executable, "-m", "pytest", str(anna), "-k", name], capture_output=True, cwd=tmp_path)
    assert b"1 failed, 1 passed" in checked.stdout
    assert main(["grade", str(anna), "--csv", "class.csv"]) == 0 and "count 1/1" in capsys.readouterr().out
    assert (tmp_path / "class.csv").read_text("utf-8").splitlines()[1].endswith(",2")
