"""What the website and the measures are checked by is itself checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))
import measures  # noqa: E402
from links import broken_links, definitions, linked  # noqa: E402
from offline import make_offline, with_alternatives, with_mathml  # noqa: E402
from reference import Table  # noqa: E402

PAGE = '<h3 id="{0}">{0}</h3><p>{1}</p>'


@pytest.fixture
def site(tmp_path):
    "Two pages that define a name each."
    (tmp_path / "a.html").write_text(PAGE.format("half", '<a href="b.html#third">to b</a>'))
    (tmp_path / "b.html").write_text(PAGE.format("third", "<code>half</code> and <code>half(x)</code>, not <pre><code>half</code></pre>"))
    return tmp_path


def test_a_link_that_leads_nowhere_is_found(site):
    assert broken_links(site) == []
    (site / "c.html").write_text('<a href="b.html#fourth">x</a><a href="d.html">y</a><img src="z.png"><a href="https://example.org">z</a>')
    assert broken_links(site) == [("c.html", "b.html#fourth"), ("c.html", "d.html"), ("c.html", "z.png")]


def test_names_become_links_outside_of_listings(site):
    symbols = {"cvqvae.a": {"cvqvae.a.half": None, "cvqvae.a._hidden": None}, "cvqvae.b": {"cvqvae.b.third": None}}
    known = definitions(site, symbols, {"a": "a.html", "b": "b.html"})
    assert known["half"] == known["cvqvae.a.half"] == known["a.half"] == "a.html#half" and not any("_hidden" in name for name in known)
    text, count = linked((site / "b.html").read_text(), "sub/b.html", known)
    assert count == 2 and text.count('href="../a.html#half"') == 2 and "<pre><code>half</code></pre>" in text


def test_a_name_that_two_chapters_define_is_left_alone(site):
    symbols = {"cvqvae.a": {"cvqvae.a.half": None}, "cvqvae.b": {"cvqvae.b.half": None}}
    (site / "b.html").write_text(PAGE.format("half", ""))
    known = definitions(site, symbols, {"a": "a.html", "b": "b.html"})
    assert "half" not in known and known["cvqvae.b.half"] == "b.html#half"


def test_a_name_that_a_page_uses_for_something_else_is_no_link_there():
    text = '<pre><code><span>half</span>, other = <span>1</span>, 2\nthird == 3\n  f(last=4)</code></pre><code>half</code> <code>third</code> <code>last</code>'
    assert linked(text, "c.html", dict.fromkeys(("half", "other", "third", "last"), "a.html#x"))[1] == 2


def half(
    cells: list[Path] | None = None,  # a * b
    weight: float = 0.5,  # of each
    **options,  # of whatever comes
) -> dict[str, Path] | None:  # one | none
    "An example."


def test_a_type_with_a_bar_stays_in_its_cell():
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in str(Table(half)).splitlines()]
    assert {len(row) for row in rows} == {4}
    assert [cell.strip() for cell in rows[2]] == ["cells", r"list[Path] \| None", "None", r"a \* b"]
    assert rows[4][0].strip() == "options" and rows[4][3].strip() == "of whatever comes"
    assert [cell.strip() for cell in rows[5]] == ["**Returns**", r"**dict[str, Path] \| None**", "", r"**one \| none**"]


def test_formulas_are_drawn_without_a_script():
    page = '<link href="https://cdn/katex.css"><script src="https://cdn/katex.js" defer></script><p><span class="math inline">\\(a &lt; b_i\\)</span></p>'
    text, count = with_mathml(page)
    assert count == 1 and "katex" not in text and "<msub>" in text and "\\(" not in text
    assert with_mathml('<span class="math display">\\[\\frac{1}{2}\\]</span>')[0].count('display="block"') == 1


def test_a_picture_without_words_gets_those_of_its_heading():
    page = '<h1 class="title">Codes</h1><img src="a.png"><h2 id="x"><b>Dead</b> "codes"</h2><img src="b.png" alt=""><img alt="a map" src="c.png">'
    told = re.findall(r'alt="([^"]*)"', with_alternatives(page))
    assert told == ["Picture: Codes", "Picture: Dead &quot;codes&quot;", "a map"]
    assert with_alternatives(page).count("alt=") == 3 and with_alternatives(with_alternatives(page)) == with_alternatives(page)


def test_a_page_on_disk_asks_for_nothing_and_can_be_searched(tmp_path):
    (tmp_path / "site_libs").mkdir()
    (tmp_path / "site_libs" / "smalldocs.js").write_text("")
    (tmp_path / "site_libs" / "theme.css").write_text("@import url(https://fonts.example/css2?family=A:wght@300;400&display=swap);:root{--a:1}")
    (tmp_path / "search.json").write_text('[{"title": "Quantizer"}]')
    (tmp_path / "index.html").write_text('<script src="./site_libs/smalldocs.js" defer></script>')
    make_offline(tmp_path)
    assert (tmp_path / "site_libs" / "theme.css").read_text() == ":root{--a:1}"
    assert (tmp_path / "search.js").read_text() == 'window.searchIndex = [{"title": "Quantizer"}];'
    page = (tmp_path / "index.html").read_text()
    assert page.index("site_libs/search-from-disk.js") < page.index("site_libs/smalldocs.js")
    assert broken_links(tmp_path) == []


def test_the_pages_can_be_light_and_dark():
    assert re.search(r"theme:\s+light: \w+\s+dark: \w+\n", (ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    lines = (ROOT / "nbs" / "styles.css").read_text(encoding="utf-8").splitlines()
    own = [line for line in lines if not line.startswith((".smalldocs-search", ".cell-output img"))]  # these bring their background along
    fixed = [line for line in own if re.search(r"#[0-9a-fA-F]{3}|: (?:black|white)\b", line)]
    assert not fixed, f"a colour that only one of the two themes can bear: {fixed}"


def test_the_measures_hold():
    result = subprocess.run([sys.executable, ROOT / ".ci" / "measures.py", "--strict"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]


def test_a_module_past_its_limit_of_lines_fails_the_measures(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["measures.py", "--strict"])
    monkeypatch.setattr(measures, "notebooks", lambda: measures.ROOT.glob("nbs/05_package.ipynb"))
    monkeypatch.setattr(measures, "module_lines", lambda: {"short": measures.MODULE, "long": measures.MODULE + 1})
    assert measures.main() == 1
    assert capsys.readouterr().out.rstrip().endswith(f"over a limit:\ncvqvae/long.py has {measures.MODULE + 1} lines")
