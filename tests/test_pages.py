"""Pages that show kept measurements show those that are kept today: their tables come from CSV files, which change without them."""

import re
from itertools import takewhile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient

NBS = Path(__file__).parents[1] / "nbs"
PAGES = ["index", *(f"benchmarks/{name}" for name in ("results", "results_paper", "held_out", "batch_effects", "translation", "time_to_quality"))]


def texts(cells):
    "The tables and texts under each cell, without pictures and the warnings of libraries."
    return [[dict(output.data) for output in cell.get("outputs", []) if "data" in output and "image/png" not in output.data] for cell in cells]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_is_kept(page):
    path = NBS / f"{page}.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells = list(takewhile(lambda cell: "CVQVAE(" not in cell.source, notebook.cells))  # what follows trains, and runs as a notebook of its own
    shown = texts(notebook.cells)
    assert sum(map(len, shown)) >= 3
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    stale = [cell.source for cell, one, other in zip(notebook.cells, shown, texts(notebook.cells)) if one != other]
    assert not stale, f"execute nbs/{page}.ipynb again, for what it reads has changed"


def test_the_summary_of_the_results_follows_from_their_tables():
    cells = nbformat.read(NBS / "benchmarks/results.ipynb", 4).cells
    (summary,) = (cell.source.split("**How to read them.**")[0] for cell in cells if cell.source.startswith("**What the tables say**"))
    joint, stacked, aligned = (
        next(line for line in summary.splitlines() if line.startswith(start)) for start in ("- *One point", "- *Two points", "- *The two points")
    )
    for name in ("bmmc-cite-starter", "pbmc10k-cite", "snare-cortex"):
        scores = pd.read_csv(NBS / f"benchmarks/results/benchmark/{name}/scores.csv")
        means = scores.pivot_table(index=["view", "metric"], columns="method", values="value")
        ahead = {view: means.loc[(view, "score")].round(3).pipe(lambda row: row["cvqvae"] - row["raw"]) for view in ("joint", "stacked")}
        assert means.loc[("joint", "score")].idxmax() == "cvqvae" and set(means.loc[("stacked", "foscttm")].nsmallest(2).index) == {"cvqvae", "cvqvae-paper"}
        assert f"{ahead['joint']:.3f}" in joint and f"{ahead['stacked']:.2f}" in stacked and f"{means.loc[('stacked', 'foscttm'), 'cca']:.3f}" in aligned


# exercises ---------------------------------------------------------------------------------------------------------------------------

ANSWER = re.compile(r"\n\n   <details>\n   <summary>Answer</summary>\n\n(   \S.*?)\n\n   </details>\s*(?:\Z|\nNext: |\n\w)", re.S)


def prose(path):
    return "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")


def exercises(text):
    "The numbered exercises of a page, each with what stands under it."
    return re.split(r"^\d+\. ", text.partition("## Try it yourself\n")[2], flags=re.M)[1:]


def unanswered(text):
    "Exercises that have no answer folded under them, or one that a notebook would not fold."
    return [exercise for exercise in exercises(text) if not ANSWER.search(exercise) or exercise.count("<details>") != 1]


def test_an_exercise_without_an_answer_is_seen():
    answer = "\n\n   <details>\n   <summary>Answer</summary>\n\n   Four, with `f(2)`.\n\n   </details>\n"
    page = f"## Try it yourself\n\n1. Two and two?{answer}2. And three?{{}}\nNext: more."
    assert not unanswered(page.format(answer)) and len(exercises(page)) == 2
    for bad in ("\n", answer.replace("Four, with `f(2)`.", ""), answer.replace("Answer</summary>\n", "Answer</summary>"), answer.replace("   </d", "</d")):
        assert unanswered(page.format(bad)) == [exercises(page.format(bad))[1]]


def test_every_lesson_has_exercises():
    lessons = sorted((NBS / "tutorials").glob("*.ipynb"))
    assert len(lessons) == 8 and all(len(exercises(prose(path))) >= 3 for path in lessons)


@pytest.mark.parametrize("path", sorted(NBS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_an_exercise_has_its_answer_folded_under_it(path):
    text = prose(path)
    assert "on your own:" not in text, "make it an exercise under 'Try it yourself'"
    assert text.count("## Try it yourself") <= 1 and not unanswered(text)
