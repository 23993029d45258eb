"""Pages that show kept measurements show those that are kept today: their tables come from CSV files, which change without them."""

from itertools import takewhile
from pathlib import Path

import nbformat
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
