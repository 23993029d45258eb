"""The house: one source for each fact, and rules that the notebooks promise to keep."""

import ast
import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
ANALYSES = [path for path in NOTEBOOKS if path.parent.name == "analyses"]
MODULES = [path for path in sorted((ROOT / "cvqvae").glob("*.py")) if path.name not in ("__init__.py", "_modidx.py")]


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def settings():
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini")
    return parser["DEFAULT"]


def chapters():
    "Module -> place of the notebook that exports it, in the order of `_quarto.yml`."
    order, found = re.findall(r"(\d\d_\w+)\.ipynb", (ROOT / "_quarto.yml").read_text()), {}
    for path in NOTEBOOKS:
        text = "".join("".join(cell["source"]) + "\n" for cell in cells_of(path) if cell["cell_type"] == "code")
        if match := re.search(r"^#\|\s*default_exp\s+(\w+)", text, flags=re.M):
            found[match[1]] = order.index(path.stem)
    return found


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            yield node.module
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cvqvae."):
            yield node.module.split(".")[1]


def test_readme_is_made_from_the_index():
    pytest.importorskip("nbconvert")
    result = subprocess.run([sys.executable, ROOT / ".ci" / "readme.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_version_is_one():
    init = (ROOT / "cvqvae" / "__init__.py").read_text()
    assert re.search(r'__version__ = "(.+)"', init)[1] == settings()["version"]


def test_setup_reads_dependencies_from_settings_only():
    text = (ROOT / "setup.py").read_text() + (ROOT / "pyproject.toml").read_text()
    for requirement in settings()["requirements"].split():
        name = re.match(r"[\w-]+", requirement)[0]
        assert name == "setuptools" or not re.search(rf"[\"']{name}", text), f"{name} is named outside settings.ini"


def test_every_requirement_has_a_tested_version():
    pinned = {re.match(r"[\w.-]+", line)[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"}
    names = settings()["requirements"].split() + settings()["dev_requirements"].split()
    assert {re.match(r"[\w-]+", name)[0].lower() for name in names} <= pinned


def test_tags_survive_cleaning():
    assert settings()["allowed_cell_metadata_keys"].split() == ["tags"]


@pytest.mark.parametrize("path", ANALYSES, ids=lambda p: p.stem)
def test_an_analysis_has_exactly_one_tagged_cell(path):
    tagged = [cell["metadata"]["tags"] for cell in cells_of(path) if cell["metadata"].get("tags")]
    assert tagged == [["parameters"]]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_keep_their_size(path):
    code = [[line for line in "".join(cell["source"]).splitlines() if line.strip()] for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert max(map(len, code), default=0) <= 50
    outputs = len(json.dumps([cell.get("outputs", []) for cell in cells_of(path) if cell["cell_type"] == "code"]))
    assert outputs <= (150_000 if path.parent.name == "nbs" else 1_000_000)


def shown_text(cell):
    "Everything in a cell's outputs that can be read, pictures left out."
    for output in cell.get("outputs", []):
        shown = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")}
        yield from ("".join(part) for part in (output.get("text", []), output.get("traceback", []), *map(str, shown.values())))


PLACES = r"/(?:tmp|var/tmp|var/folders|home|Users|root)/|[A-Za-z]:\\+Users\\|\b(?:site|dist)-packages\b"


@pytest.mark.parametrize("text", ["/tmp/tmpab12cd_3/x.h5ad", "'/home/ada/cells'", r"C:\Users\ada", "/usr/lib/python3/dist-packages/x.py:5: UserWarning"])
def test_a_place_on_a_machine_is_seen(text):
    assert re.search(PLACES, text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_outputs_name_no_place_on_the_machine_that_made_them(path):
    places = re.compile(f"{PLACES}|{re.escape(str(ROOT))}")
    found = [line for cell in cells_of(path) for text in shown_text(cell) for line in text.splitlines() if places.search(line)]
    assert not found, f"print a relative path, or replace the folder: {found[:3]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_begin_with_title_and_subtitle(path):
    first = "".join(cells_of(path)[0]["source"])
    assert re.match(r"# .+\n+> .+", first), "the first cell is an H1 and a > subtitle"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_upward(path):
    order = chapters()
    late = [name for name in imports_of(path) if order[name] > order[path.stem]]
    assert not late, f"{path.stem} imports later chapters: {late}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_the_error_is_imported_from_its_home(path):
    elsewhere = [line for line in path.read_text().splitlines() if re.match(r"from \.(?!checks )\w+ import .*\b(DataError|counts_of)\b", line)]
    assert not elsewhere


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_no_pickle_and_no_star_imports(path):
    text = path.read_text()
    assert not re.search(r"^\s*(import|from)\s+(pickle|joblib|dill|cloudpickle)\b|torch\.(save|load)\(|allow_pickle=True", text, flags=re.M)
    assert not re.search(r"^from .+ import \*", text, flags=re.M)


SCRIPTS = [*sorted((ROOT / ".ci").glob("*.py")), *sorted((ROOT / "nbs" / "benchmarks").glob("*.py")), ROOT / "setup.py"]


def without_encoding(text):
    "Calls that read or write text in the encoding of the machine, which on Windows is not UTF-8."
    for node in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        called, mode = ast.unparse(node.func), " ".join(map(ast.unparse, node.args[1:]))
        opened = (called == "open" and not re.search("'[rwax]b", mode)) or (called == "gzip.open" and "t'" in mode)
        texts = opened or called.endswith((".read_text", ".write_text"))
        if texts and "encoding" not in {word.arg for word in node.keywords}:
            yield ast.unparse(node)


def test_a_call_without_encoding_is_seen():
    assert len(list(without_encoding('open(p)\nopen(p, "w")\ngzip.open(p, "rt")\np.read_text()\np.write_text(x)\n'))) == 5
    assert not list(without_encoding('open(p, "rb+")\nopen(p, "ab" if x else "wb")\ngzip.open(p)\nos.open(p, 0)\nopen(p, encoding="utf-8")\n'))


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda p: p.stem)
def test_texts_are_read_and_written_as_utf_8(path):
    assert not list(without_encoding(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_the_oldest_python_can_read_it(path):
    oldest = re.search(r"\d+\.(\d+)", settings()["min_python"])
    ast.parse(path.read_text(), feature_version=(3, int(oldest[1])))


def test_the_package_does_not_import_nbdev():
    program = "import sys, cvqvae.runs, cvqvae.integration; print([m for m in sys.modules if m.startswith(('nbdev', 'pytest'))])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_quarto_configuration_is_one_file():
    assert (ROOT / "nbs" / "_quarto.yml").resolve() == ROOT / "_quarto.yml"


# the audit of a release --------------------------------------------------------------------------------------------------------------


def audited(*holes, version="80.0", lacking=False):
    "What the audit says of setuptools with these vulnerabilities, and of a package that could not be asked after."
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        from audit import verdict
    finally:
        sys.path.pop(0)
    found = [{"name": "setuptools", "version": version, "vulns": [{"id": name, "fix_versions": ["83"], "aliases": aliases} for name, *aliases in holes]}]
    return verdict([*found, *[{"name": "lost", "skip_reason": "no answer"}][: int(lacking)]], 1 + lacking)


def test_an_accepted_vulnerability_is_told_and_passes():
    for hole in (("PYSEC-2026-3447",), ("CVE-2026-59890", "PYSEC-2026-3447")):
        code, said = audited(hole)
        assert code == 0 and "1 of 1 packages audited, 0 known" in said[0] and said[1].startswith("accepted: setuptools PYSEC-2026-3447: ")


def test_other_vulnerabilities_and_reasons_that_are_gone_fail():
    code, said = audited(("PYSEC-2026-3447",), ("PYSEC-2099-1",))
    assert code == 1 and "setuptools 80.0: PYSEC-2099-1, fixed in 83" in said
    code, said = audited(version="84.0")
    assert code == 1 and "no longer found, remove it" in said[-1]
    code, said = audited(("PYSEC-2026-3447",), lacking=True)
    assert code == 1 and "could not be fetched: lost" in said[-1]
