import json
from pathlib import Path

import evaluate
from claims import VERDICT, markdown_table

ROOT = Path(__file__).parent.parent


def test_the_claims_tables_are_those_of_the_results_file():
    results = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for own in (False, True):
        claims = [claim for claim in results["claims"] if (claim["id"][0] == "X") == own]
        assert markdown_table(claims) in readme


def test_the_verdicts_follow_from_the_numbers():
    """The rules of today, on the numbers that were measured, give the verdicts that stand in the file."""
    results = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))
    measured = {claim["id"]: claim for claim in results["claims"] if claim["holds"] is not None}
    assert results["preset"] == "full" and measured
    for claim in evaluate.decided_claims():
        if claim.id in measured:
            found, verdict = measured[claim.id], claim.rule(measured[claim.id]["measured"])
            assert (verdict is True, VERDICT[verdict]) == (found["holds"], found["verdict"]), claim.id


def test_every_figure_that_is_named_is_there():
    results = json.loads((ROOT / "figures" / "results.json").read_text(encoding="utf-8"))
    for claim in results["claims"]:
        if claim["holds"] is not None:
            assert (ROOT / claim["figure"]).exists()
