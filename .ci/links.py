"""Links of the website: from every `name` in the text to its definition, and a check that none leads nowhere."""

import html
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    "The anchors of a page and the links that leave it."

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.update(found[name] for name in ("id", "name") if found.get(name))
        self.links += [found[name] for name in ("href", "src") if found.get(name)]


def pages_of(site: Path) -> dict[Path, Page]:
    "Every page of a folder, parsed."
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


def broken_links(site: Path) -> list[tuple[str, str]]:
    "(page, link) of every local link whose file or anchor does not exist."
    pages, broken = pages_of(site), []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].ids):
                broken.append((str(path.relative_to(site)), link))
    return broken


def chapter_pages(notebooks: Path) -> dict[str, str]:
    "Module -> page of the chapter that exports it."
    found = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        if match := re.search(r'"#\| ?default_exp (\w+)', path.read_text(encoding="utf-8")):
            found[match[1]] = f"{path.stem}.html"
    return found


def definitions(site: Path, symbols: dict[str, dict], chapters: dict[str, str]) -> dict[str, str]:
    "Name as it is written in the text -> page and anchor; a short name that two chapters define is left out."
    pages, full, short = pages_of(site), {}, {}
    for module, names in symbols.items():
        page = chapters.get(module.removeprefix("cvqvae."))
        if page is None or site / page not in pages:
            continue
        full[module] = page
        for name in names:
            own = name.removeprefix(f"{module}.")
            anchors = [own.lower(), own.lower().rsplit(".", 1)[-1]]
            anchor = next((a for a in anchors if a in pages[site / page].ids), None)
            if anchor is None or own.rsplit(".", 1)[-1].startswith("_"):
                continue
            full[name] = full[f"{module.removeprefix('cvqvae.')}.{own}"] = f"{page}#{anchor}"
            short.setdefault(own, set()).add(f"{page}#{anchor}")
    return full | {name: places.pop() for name, places in short.items() if len(places) == 1}


_CODE = re.compile(r"<(pre|a|h\d|title|script|nav)\b.*?</\1>|<code>([^<>]+)</code>", re.S)


def own_names(text: str) -> set[str]:
    "Names to which the listings of a page assign something: there they mean that, and not a function of another page."
    listings = html.unescape("\n".join(re.sub(r"<[^>]+>", "", listing) for listing in re.findall(r"<pre\b.*?</pre>", text, re.S)))
    return {name for names in re.findall(r"^([\w, ]+) = ", listings, re.M) for name in re.findall(r"\w+", names)}


def linked(text: str, page: str, known: dict[str, str]) -> tuple[str, int]:
    "The page with every inline code that names a known symbol made a link, except inside listings, links and headings."
    count, own = 0, own_names(text)

    def link(match: re.Match) -> str:
        nonlocal count
        name = re.sub(r"\(.*", "", html.unescape(match[2] or ""), flags=re.S)
        if name not in known or name in own:
            return match[0]
        count += 1
        target = os.path.relpath(known[name], os.path.dirname(page) or ".")
        return f'<a class="name" href="{target}">{match[0]}</a>'

    return _CODE.sub(link, text), count


def link_names(site: Path) -> int:
    "Link the names on every page; the number of links made."
    from cvqvae._modidx import d

    known = definitions(site, d["syms"], chapter_pages(Path(__file__).resolve().parents[1] / "nbs"))
    known |= {f"cvqvae.{name}": known[name] for name in ("CVQVAE", "DataError") if name in known}
    total = 0
    for path in sorted(site.rglob("*.html")):
        text, count = linked(path.read_text(encoding="utf-8"), str(path.relative_to(site)), known)
        path.write_text(text, encoding="utf-8")
        total += count
    return total
