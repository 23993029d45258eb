"""Pages that show kept measurements show those that are kept today: their tables come from CSV files, which change without them."""

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
