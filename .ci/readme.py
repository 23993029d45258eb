"""Makes README.md from nbs/index.ipynb with nbconvert; `--check` only compares."""

import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
NOTE = "<!-- Made from nbs/index.ipynb by `make readme`: edit that notebook. -->\n\n"


def _shown(cell: nbformat.NotebookNode) -> nbformat.NotebookNode:
    "A cell flagged `echo: false` shows what it gave and not how."
    if not cell.source.startswith("#| echo: false"):
        return cell
    return nbformat.v4.new_markdown_cell("\n".join(output["data"]["text/markdown"] for output in cell.outputs))


def readme() -> str:
    "The text that README.md should have."
    notebook = nbformat.read(ROOT / "nbs" / "index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not cell.source.startswith(("#| hide", "#|hide"))]
    notebook.cells = [_shown(cell) for cell in notebook.cells]
    for cell in notebook.cells:
        cell.source = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M)
    notebook.metadata.language_info = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    links = re.sub(r"\]\((?!https?:|#|\.\./)([^)]+\.(?:ipynb|png))\)", r"](nbs/\1)", text).replace("](../", "](")
    return NOTE + re.sub(r"\n{3,}", "\n\n", links).strip() + "\n"


if __name__ == "__main__":
    target = ROOT / "README.md"
    if "--check" in sys.argv:
        sys.exit(None if target.read_text(encoding="utf-8") == readme() else "README.md is not what nbs/index.ipynb gives: make readme")
    target.write_text(readme(), encoding="utf-8", newline="\n")
