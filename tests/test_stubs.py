"""The type stubs say what the package is: names, attributes, parameters and which of them have a default."""

import ast
import importlib
import inspect
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import cvqvae
from cvqvae.kept import Plan
from cvqvae.labels import LabelTransfer
from cvqvae.presets import _NAMES as SETTINGS
from cvqvae.simulation import simulate

ROOT = Path(__file__).resolve().parents[1]
STUBS = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "cvqvae").glob("*.pyi"))}
PATCHING = [name for name in STUBS if name != "__init__"]
MEANT = {"overrides": set.union(*SETTINGS.values()), "plan": {field.name for field in fields(Plan)}}  # what `**` of this name takes


def named(nodes):
    "Name -> functions or classes of this name; several are overloads."
    found = {}
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
    return found


def variables(nodes):
    return {node.target.id for node in nodes if isinstance(node, ast.AnnAssign)}


def members(name):
    "Names that the stubs give to a class, with those of its bases in the package."
    found = set()
    for base in next(cls for module in PATCHING for cls in [getattr(importlib.import_module(f"cvqvae.{module}"), name, None)] if cls).__mro__:
        module = base.__module__.removeprefix("cvqvae.")
        if module in STUBS:
            body = named(STUBS[module].body)[base.__name__][0].body
            found |= variables(body) | named(body).keys()
    return found


def agree(function, stub, bound=False):
    "The same parameters in the same order, and the same ones may be left out."
    runtime = [p for p in inspect.signature(function).parameters.values()]
    places = [*stub.args.args][int(bound) :]
    optional = {a.arg for a in places[len(places) - len(stub.args.defaults) :]} if stub.args.defaults else set()
    starred = {p.name: p.kind for p in runtime if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    plain = [p for p in runtime if p.name not in starred]
    assert [p.name for p in plain] == [a.arg for a in places]
    assert {p.name for p in plain if p.default is not p.empty} == optional
    if stub.args.kwonlyargs:  # what `**` stands for
        told = {a.arg for a in stub.args.kwonlyargs}
        assert told == MEANT[next(iter(starred))] - {p.name for p in plain} and not stub.args.kwarg
    else:
        assert set(starred) == {a.arg for a in (stub.args.vararg, stub.args.kwarg) if a}


def test_stubs_are_those_of_the_package():
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        made = importlib.import_module("stubs").stubs()
    finally:
        sys.path.pop(0)
    assert set(made) == {ROOT / "cvqvae" / f"{name}.pyi" for name in STUBS}
    old = [path.name for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert not old, f"make export: {old}"
    assert (ROOT / "cvqvae" / "py.typed").is_file()


def test_every_module_that_patches_has_a_stub():
    patching = [path.stem for path in (ROOT / "cvqvae").glob("*.py") if "\n@patch" in path.read_text(encoding="utf-8")]
    assert sorted(patching) == PATCHING


def test_the_front_is_what_can_be_imported_from_it():
    body = STUBS["__init__"].body
    told = {alias.asname for node in body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert told | {"__version__"} == set(dir(cvqvae)) and "CVQVAE" in told and variables(body) == {"__all__", "__version__"}


@pytest.mark.parametrize("module", PATCHING)
def test_names_of_a_module_are_in_its_stub(module):
    runtime, stub = importlib.import_module(f"cvqvae.{module}"), STUBS[module].body
    assert set(runtime.__all__) <= named(stub).keys() | variables(stub)
    for name in set(runtime.__all__) & named(stub).keys():
        if inspect.isfunction(getattr(runtime, name)):
            agree(getattr(runtime, name), named(stub)[name][0])


def methods():
    "(module, class, method) of everything public that is written in a class, or patched into it."
    for module in PATCHING:
        runtime = importlib.import_module(f"cvqvae.{module}")
        for cls in [getattr(runtime, name) for name in runtime.__all__ if inspect.isclass(getattr(runtime, name))]:
            for name, value in vars(cls).items():
                called = inspect.isroutine(value) or isinstance(value, property)
                if called and getattr(value, "__module__", cls.__module__) == cls.__module__ and (name == "__init__" or not name.startswith("_")):
                    yield module, cls.__name__, name


@pytest.mark.parametrize("module, owner, name", list(methods()))
def test_a_method_is_in_the_stub_as_it_is(module, owner, name):
    cls = getattr(importlib.import_module(f"cvqvae.{module}"), owner)
    stub = named(STUBS[module].body)[owner][0]
    if name == "__init__" and any("dataclass" in ast.unparse(d) for d in stub.decorator_list):
        return  # made of the fields
    value, found = vars(cls)[name], named(stub.body)[name][0]
    decorators = {ast.unparse(d) for d in found.decorator_list}
    of_class = inspect.ismethod(getattr(cls, name))
    assert (isinstance(value, property), of_class) == ("property" in decorators, "classmethod" in decorators)
    if not isinstance(value, property):
        agree(getattr(cls, name), found, bound=of_class)
    words = lambda text: " ".join((text or "").split())
    assert words(ast.get_docstring(found)).startswith(words(value.__doc__))


def test_attributes_of_objects_are_in_the_stubs():
    trainers = []

    class Keep(cvqvae.callbacks.Callback):
        def after_epoch(self, trainer):
            trainers.append(trainer)

    model = cvqvae.CVQVAE(simulate(n_cells=60, n_genes=150, n_peaks=200), device="cpu").fit(epochs=1, progress=False, callbacks=[Keep()])
    z = model.latents()["joint"].z.numpy()
    labels = LabelTransfer().fit(z, np.repeat(["a", "b"], [30, len(z) - 30]))
    for thing in (model, trainers[0], labels, model.reader, *model.transforms.values()):
        missing = {name for name in vars(thing) if not name.startswith("_")} - members(type(thing).__name__)
        assert not missing, f"{type(thing).__name__}: {missing}"
    modules = set(dict(model.module.named_children())) | {"config", "routes", "sources"}
    assert modules <= members("CrossVQVAE")
    assert set(dict(next(iter(model.module.bottlenecks.values())).named_buffers())) <= members("VectorQuantizer")
