"""Give the pictures in the outputs of notebooks few colours, so that the notebooks stay small.

    python .ci/pictures.py nbs/07_figures.ipynb nbs/08_biology.ipynb

Pictures that have a palette already are left as they are; `measures.py` says which notebooks are too large.
"""

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image


def few_colours(image, colours=192):
    "An RGB image with a palette, without dots between the colours."
    return image.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)


def with_palette(picture):
    "The PNG file with few colours, as base64 text; unchanged where it has a palette, or would not be smaller."
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    if image.mode == "P":
        return picture
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    file = io.BytesIO()
    few_colours(white.convert("RGB")).save(file, "PNG", optimize=True)
    return min(base64.b64encode(file.getvalue()).decode(), picture, key=len)


def shrink(path):
    "Rewrite a notebook whose pictures can be smaller; returns the bytes gained."
    notebook, gained = nbformat.read(path, 4), 0
    for output in (o for cell in notebook.cells for o in cell.get("outputs", [])):
        if "image/png" in output.get("data", {}):
            before = output.data["image/png"]
            output.data["image/png"] = with_palette(before)
            gained += len(before) - len(output.data["image/png"])
    if gained:
        nbformat.write(notebook, path)
    return gained


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {shrink(Path(name)) / 1000:.0f} kB less")
