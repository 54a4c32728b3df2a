import json
from pathlib import Path

import evaluate
from lab.claims import entry, markdown_table

ROOT = Path(__file__).parent.parent
RESULTS = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))


def test_the_claims_tables_are_those_of_the_results_file():
    findings = (ROOT / "docs" / "FINDINGS.md").read_text(encoding="utf-8")
    for own in (False, True):
        claims = [claim for claim in RESULTS["claims"] if (claim["id"][0] == "X") == own]
        assert markdown_table(claims) in findings


def test_the_verdicts_follow_from_the_numbers():
    """The rules of today, on the numbers that were measured, give what stands in the file."""
    known = {claim["id"]: claim for claim in RESULTS["claims"]}
    assert RESULTS["preset"] == "full"
    for module in evaluate.FIGURES.values():
        for claim in module.CLAIMS:
            assert entry(claim, known[claim.id]["measured"], known[claim.id]["figure"]) == known[claim.id], claim.id


def test_every_figure_that_is_named_is_there():
    for claim in RESULTS["claims"]:
        assert (ROOT / claim["figure"]).exists()


def test_readme_is_short_and_names_what_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.split()) <= 1_300
    for part in readme.split("`"):
        if part.endswith((".py", ".md", "/")) and " " not in part and not part.startswith("runs"):
            assert (ROOT / part).exists(), part
