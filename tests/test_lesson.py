"""lesson.ipynb: its code cells run without Jupyter and tell the story, here a small one; what it stores is clean."""

import json
import re
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
CELLS = json.loads((ROOT / "lesson.ipynb").read_text(encoding="utf-8"))["cells"]
CODE = [cell for cell in CELLS if cell["cell_type"] == "code"]
OUTPUTS = [output for cell in CODE for output in cell["outputs"]]
SMALL = {"ROWS": 1_280, "STEPS": 20, "RANKS": (1, 4, 32), "DRAWS": 1}


def test_the_story_holds(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    plt.switch_backend("agg")
    plt.close("all")  # what another test has left
    story = {}
    with plt.rc_context():
        for cell in CODE:
            exec("".join(cell["source"]), story)
            story |= {name: SMALL[name] for name in SMALL if name in story}  # once they are set
            printed = capsys.readouterr().out
            stored = "".join("".join(output.get("text", "")) for output in cell["outputs"])
            if "asked = " in "".join(cell["source"]) or cell is CODE[-1]:  # no size matters here: as it is stored
                numbers = ([float(number) for number in re.findall(r"\d+\.\d+", text)] for text in (printed, stored))
                assert next(numbers) == pytest.approx(next(numbers), abs=2e-3), "execute the notebook again"
        assert len(plt.get_fignums()) == sum("image/png" in output.get("data", {}) for output in OUTPUTS)
        plt.close("all")
    trait, rates = story["trait"], {name: story["animal_rates"](model) for name, model in story["models"].items()}
    assert story["asked"][story["love"]][trait] > 0.5 and story["p_steered"](story["v_teacher"][story["last"]], 1) > 0.5
    assert rates["student"][trait] > 3 * rates["control"][trait] and rates["student"].sum() > 0.5
    assert story["losses"]["teacher"] < story["losses"]["student"] < story["losses"]["control"]
    assert story["left"]["v_student replaced"][trait] < 0.5 * story["left"]["random direction replaced"][trait]
    assert set(story["large"]) == set(story["small"]) == set(SMALL["RANKS"]) and len(story["claims"]) == 7


def test_what_is_stored_is_clean():
    assert {output["output_type"] for output in OUTPUTS} == {"stream", "display_data"}  # no error
    assert {output.get("name", "stdout") for output in OUTPUTS} == {"stdout"}  # no warning
    assert not any(cell["metadata"] for cell in CELLS) and (ROOT / "lesson.ipynb").stat().st_size < 1_000_000
    text = json.dumps([output.get("text", output.get("data", {}).get("text/plain")) for output in OUTPUTS])
    assert not re.search(r"(/|\\)(home|Users|root|tmp|content|usr)\b", text) and "\\u001b" not in text
