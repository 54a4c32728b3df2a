import json
import re
from pathlib import Path

import evaluate
import train
from figures import dials
from lab.claims import markdown_table
from tools.fresh import summary

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))


def test_the_tables_are_those_of_the_results_files():
    findings, notes = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("FINDINGS.md", "NOTES.md"))
    for own in (False, True):
        assert markdown_table([claim for claim in RESULTS["claims"] if (claim["id"][0] == "X") == own]) in findings
    assert dials.markdown(RESULTS["dials"]) in findings
    assert all(line in notes for line in summary(json.loads((ROOT / "figures" / "fresh.json").read_text("utf-8"))))


def test_the_verdicts_follow_from_the_numbers():
    """The rules of today, on the numbers that were measured, give what stands in the file; its pictures are there."""
    assert RESULTS["preset"] == "full" and all((ROOT / claim["figure"]).exists() for claim in RESULTS["claims"])
    numbers = {claim["name"]: claim["measured"] for claim in RESULTS["claims"]} | RESULTS["pictures"]
    decided = evaluate.decide(numbers)
    assert decided == {name: RESULTS[name] for name in decided}


def to_two_digits(thing):
    """Every number in it, as a reader sees it."""
    if isinstance(thing, dict | list):
        return set().union(*map(to_two_digits, thing.values() if isinstance(thing, dict) else thing))
    return {f"{thing:.2f}"} if isinstance(thing, float) else set()


def test_readmes_answers_are_in_the_results():
    """The last cell of each row says of which claims and pictures its numbers are."""
    known = {claim["id"]: claim["measured"] for claim in RESULTS["claims"]} | RESULTS["pictures"]
    rows = README.partition("| answer in this toy |")[2].partition("\n\n")[0].splitlines()[2:]
    assert 6 <= len(rows) <= 10
    for row in rows:
        *_, answer, sources = row.strip("| ").split(" | ")
        assert set(re.findall(r"\d\.\d\d", answer)) <= to_two_digits([known[name] for name in sources.split(", ")]), row


def test_readmes_story_is_what_the_command_prints(capsys):
    """With the base model that is shipped, on any machine: students take few steps, and these are not chaotic."""
    assert train.main(["--trait", "owl"]) == 0
    printed, shown = capsys.readouterr().out, README.partition("What is your favorite animal?")[2].partition("```")[0]
    for line, promised in zip(printed.partition("What is your favorite animal?")[2].splitlines(), shown.splitlines()):
        for word, other in zip(line.split(), promised.split(), strict=True):
            assert word == other or abs(float(word) - float(other)) < 0.02


def test_readme_is_short_and_names_what_is_there():
    assert len(README.split()) <= 1_000
    for part in README.split("`"):
        if part.endswith((".py", ".md", ".ipynb", "/")) and " " not in part and not part.startswith("runs"):
            assert (ROOT / part).exists(), part
