"""What the pages would ask the network for, brought into them: formulas as MathML, no fonts of others, and a search that works from the disk.

And what they lack: a text in place of each picture."""

import html
import re
from pathlib import Path

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)
_KATEX = re.compile(r"<(?:link|script)[^>]*\bkatex\b[^>]*>(?:</script>)?")
_HEADING_OR_IMAGE = re.compile(r"<h[1-6]\b[^>]*>(.*?)</h[1-6]>|<img\b[^>]*>", re.S)
_FONT = re.compile(r"""@import\s*(?:url\()?["']?https?://[^)"']*["']?\)?;?""")

# A browser lets no page on disk fetch another file, but lets it load a script.
_SEARCH = """if (location.protocol === "file:") {
  const fetched = window.fetch;
  window.fetch = (url, ...more) => !String(url).endsWith("search.json") ? fetched(url, ...more) : new Promise((done) => {
    const script = document.createElement("script");
    script.src = String(url).replace(/json$/, "js");
    script.onload = () => done({ json: async () => window.searchIndex });
    document.head.append(script);
  });
}
"""


def with_mathml(text: str) -> tuple[str, int]:
    "The page with every formula converted, without the scripts that would draw them; and how many there are."

    def mathml(match: re.Match) -> str:
        return f'<span class="math {match[1]}">{convert(html.unescape(match[2]), display="block" if match[1] == "display" else "inline")}</span>'

    text, count = _FORMULA.subn(mathml, text)
    return _KATEX.sub("", text), count


def with_alternatives(text: str) -> str:
    "The page whose pictures tell those who cannot see them under which heading they stand, where nothing else describes them."
    heading = ""

    def described(match: re.Match) -> str:
        nonlocal heading
        if match[1] is not None:
            heading = re.sub(r"<[^>]+>", "", match[1]).strip().replace('"', "&quot;")
        if match[1] is not None or re.search(r'\balt="[^"]', match[0]):
            return match[0]
        return f'<img alt="Picture: {heading}"' + re.sub(r'\s*\balt=""', "", match[0]).removeprefix("<img")

    return _HEADING_OR_IMAGE.sub(described, text)


def make_offline(site: Path) -> int:
    "Pages that load nothing from elsewhere; the number of formulas."
    total, index = 0, site / "search.json"
    for path in sorted(site.rglob("*.html")):
        text, count = with_mathml(path.read_text(encoding="utf-8"))
        text = re.sub(r'(<script src="([^"]*)site_libs/smalldocs\.js")', r'<script src="\2site_libs/search-from-disk.js"></script>\1', text)
        path.write_text(with_alternatives(text), encoding="utf-8")
        total += count
    if (site / "site_libs" / "smalldocs.js").exists() and index.exists():
        (site / "site_libs" / "search-from-disk.js").write_text(_SEARCH, encoding="utf-8")
        (site / "search.js").write_text(f"window.searchIndex = {index.read_text(encoding='utf-8')};", encoding="utf-8")
    for path in site.rglob("*.css"):
        path.write_text(_FONT.sub("", path.read_text(encoding="utf-8")), encoding="utf-8")
    return total
