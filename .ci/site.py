"""The website in _docs: every notebook with its source, names linked to their definitions, and no broken link.

Rendered by Quarto where it is installed, else by smalldocs, which reads the same _quarto.yml.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from links import broken_links, link_names
from offline import make_offline

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_docs"


def sources(work: Path) -> Path:
    "A copy of the notebooks whose exported cells will be shown, and the settings that show them with a table of docments."
    shutil.copytree(ROOT / "nbs", work / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (work / "cvqvae").symlink_to(ROOT / "cvqvae")
    settings = (ROOT / "settings.ini").read_text(encoding="utf-8")
    (work / "settings.ini").write_text(f"{settings}\nrenderer = reference.Reference\n", encoding="utf-8")
    for path in (work / "nbs").glob("*.ipynb"):
        path.write_text(re.sub(r'"#\| ?export(\\n)?"', r'"#| exports\1"', path.read_text(encoding="utf-8")), encoding="utf-8")
    return work


def processed(work: Path) -> Path:
    "What nbdev makes of the notebooks: show_doc executed, hidden cells gone."
    path = os.pathsep.join([str(ROOT / ".ci"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    program = "from nbdev.serve import proc_nbs; proc_nbs(force=True)"
    environment = os.environ | {"PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-c", program], cwd=work, env=environment, stdout=subprocess.DEVNULL, check=True)
    return work / "_proc"


def rendered(folder: Path) -> Path:
    "HTML of a processed folder."
    if shutil.which("quarto"):
        subprocess.run(["quarto", "render", ".", "--no-execute", "--output-dir", "_docs"], cwd=folder, check=True)
    else:
        found = subprocess.run(["smalldocs", "render", "--quiet"], cwd=folder, capture_output=True, text=True)
        print("".join(line for line in found.stderr.splitlines(True) if "output-file" not in line and "broken link" not in line), end="")
        found.check_returncode()
    return folder / "_docs"


def main() -> int:
    with tempfile.TemporaryDirectory() as work:
        pages = rendered(processed(sources(Path(work))))
        shutil.rmtree(SITE, ignore_errors=True)
        shutil.move(pages, SITE)
    formulas, linked = make_offline(SITE), link_names(SITE)
    broken = broken_links(SITE)
    print(f"{len(list(SITE.rglob('*.html')))} pages, {formulas} formulas, {linked} names linked to their definitions, {len(broken)} broken links")
    print("".join(f"  {page}: {link}\n" for page, link in broken), end="")
    print("the documentation lies in _docs/index.html")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
