"""Type stubs (.pyi) for what type checkers and editors cannot see: methods that `@patch` adds, and what `import cvqvae` looks up when it is used.

A module that patches gets a stub: its classes with these methods, and docstrings for bodies. The other modules are read as they are.
"""

import ast
import copy
import re
import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "cvqvae"
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.glob("*.py")) if path.stem != "_modidx"}
TREES = {name: ast.parse(text) for name, text in TEXTS.items()}
CLASSES = {node.name: node for tree in TREES.values() for node in tree.body if isinstance(node, ast.ClassDef)}
EVERY = [node for tree in TREES.values() for node in tree.body if isinstance(node, ast.FunctionDef)]
FUNCTIONS = {node.name: node for node in EVERY if sum(node.name == other.name for other in EVERY) == 1}  # names that mean one function
BEHAVIOUR = {"patch", "torch.no_grad", "torch.inference_mode", "single_precision", "usual_defaults"}  # decorators that change no type
PATCHES = {"as_prop": "property", "cls_method": "classmethod"}  # argument of `patch` -> decorator
PRIVATE = re.compile("_[^_]")
NOTE = "# Made by `make export` from the module of this name: edit its notebook."
Types = dict[str, ast.expr | None]  # name -> annotation; None: not known


def decorators(node: ast.stmt) -> dict[str, ast.expr]:
    "Decorators by name, without their arguments."
    return {ast.unparse(d.func if isinstance(d, ast.Call) else d): d for d in getattr(node, "decorator_list", [])}


def move_patches(tree: ast.Module) -> int:
    "Patched functions become methods of their classes, which have to be in the same module; how many there are."
    patched = [node for node in tree.body if "patch" in decorators(node)]
    for node in patched:
        owner, node.args.args[0].annotation = ast.unparse(node.args.args[0].annotation), None
        node.decorator_list += [ast.Name(PATCHES[argument.arg]) for argument in getattr(decorators(node)["patch"], "keywords", [])]
        if owner not in (classes := {c.name: c for c in tree.body if isinstance(c, ast.ClassDef)}):
            raise SystemExit(f"@patch gives {node.name} to {owner}, a class of another module, where no type checker would see it: patch where the class is")
        classes[owner].body.append(node)
        tree.body.remove(node)
    return len(patched)


def type_of(value: ast.expr, owner: ast.ClassDef | None, parameters: Types) -> ast.expr | None:
    "What can be read off: the type of a constant, a parameter, a new object, the result of a function of the package or of a method."
    match value:
        case ast.Constant(value=constant) if constant is not None:
            return ast.Name(type(constant).__name__)
        case ast.List(elts=[ast.Constant(value=str()), *_]) | ast.Tuple(elts=[ast.Constant(value=str()), *_]):
            return ast.parse("list[str]" if isinstance(value, ast.List) else "tuple[str, ...]", mode="eval").body
        case ast.Name(id=name):
            return parameters.get(name)
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
            return FUNCTIONS[name].returns
        case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)):
            return next((m.returns for m in owner.body if getattr(m, "name", "") == name), None)
        case ast.Call(func=(ast.Name(id=name) | ast.Attribute(attr=name)) as called) if name[0].isupper() or name in ("bool", "float", "int", "str"):
            return called
    return None


def assigned(statement: ast.stmt, owner: ast.ClassDef | None = None, parameters: Types | None = None) -> Types:
    "Every target of an assignment, with its type; `a, b = 1, 2` has two."
    match statement:
        case ast.AnnAssign():
            return {ast.unparse(statement.target): statement.annotation}
        case ast.Assign(targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)) if len(targets) == len(values):
            return {ast.unparse(target): type_of(value, owner, parameters or {}) for target, value in zip(targets, values)}
        case ast.Assign(targets=[ast.Tuple(elts=targets)]):
            return {ast.unparse(target): None for target in targets}
        case ast.Assign(targets=[target]):
            return {ast.unparse(target): type_of(statement.value, owner, parameters or {})}
    return {}


def attributes(owner: ast.ClassDef) -> Types:
    "What methods set on `self`; of several types, the first that is known."
    found: Types = {}
    for method in [node for node in owner.body if isinstance(node, ast.FunctionDef)]:
        parameters = {a.arg: a.annotation for a in method.args.args + method.args.kwonlyargs}
        for target, kind in [item for statement in ast.walk(method) for item in assigned(statement, owner, parameters).items()]:
            if re.fullmatch(r"self\.[a-zA-Z]\w*", target):
                found[target[5:]] = found.get(target[5:]) or kind
    return found


def declared(owner: ast.ClassDef) -> set[str]:
    "Names that a class, or a base of it within the package, has."
    bases = [CLASSES[base.id] for base in owner.bases if getattr(base, "id", "") in CLASSES]
    own = {name for node in owner.body for name in [getattr(node, "name", ""), *assigned(node)]}
    return own.union(*(declared(base) | attributes(base).keys() for base in bases))


def needed(name: str, module: str) -> bool:
    "Public methods, those of Python, and private ones that another module calls or overrides."
    return not PRIVATE.match(name) or any(re.search(rf"(\.|def ){name}\b", text) for other, text in TEXTS.items() if other != module)


def keywords(node: ast.FunctionDef) -> list[ast.arg]:
    "What `**` stands for, where that is known: fields of dataclasses, and parameters of a function."
    fields = lambda name: {part.target.id: part.annotation for part in CLASSES[name].body if isinstance(part, ast.AnnAssign)}
    constants = {name: statement.value for statement in TREES["presets"].body for name in assigned(statement)}
    fixed, preprocessing = (ast.literal_eval(constants[name]) for name in ("FIXED", "PREPROCESSING"))
    settings = {a.arg: a.annotation for a in FUNCTIONS["preprocess"].args.args if a.arg in preprocessing} | fields("ModelConfig") | fields("TrainingConfig")
    known = {"overrides": {name: kind for name, kind in settings.items() if name not in fixed}, "plan": fields("Plan")}
    own = {a.arg for a in node.args.args}
    return [ast.arg(name, kind) for name, kind in known.get(getattr(node.args.kwarg, "arg", ""), {}).items() if name not in own]


def comment(part: ast.AST | None, module: str) -> str:
    "What stands behind a parameter or a result."
    return "" if part is None else re.search("  # (.+)|$", TEXTS[module].splitlines()[part.end_lineno - 1])[1] or ""


def described(node: ast.FunctionDef, module: str, purpose: str) -> list[ast.stmt]:
    "The docstring, or the purpose of the class, with the comments behind parameters and result, which no editor shows."
    arguments = [*node.args.args, *node.args.kwonlyargs, *([node.args.kwarg] if node.args.kwarg else [])]
    result, same_line = comment(node.returns, module), getattr(node.returns, "end_lineno", None)
    about = {a.arg: comment(a, module) for a in arguments if a.end_lineno != same_line and comment(a, module)}
    parts = [ast.get_docstring(node) or purpose]
    parts += ["\n".join(["Parameters", "----------", *(f"{name}\n    {said}" for name, said in about.items())])] if about else []
    parts += [f"Returns\n-------\n{result}"] if result else []
    return [ast.Expr(ast.Constant("\n\n".join(filter(None, parts))))] if any(parts) else []


def annotations(types: Types, where: str) -> list[ast.AnnAssign]:
    "`name: type` for each public one."
    types = {name: kind for name, kind in types.items() if not PRIVATE.match(name)}
    if unknown := [name for name, kind in types.items() if kind is None]:
        raise SystemExit(f"{where}: type checkers need the types of {', '.join(unknown)}: annotate them where they are assigned, or in the class")
    return [ast.AnnAssign(ast.Name(name, ast.Store()), kind, None, 1) for name, kind in types.items()]


def overloads(node: ast.FunctionDef, same: bool) -> list[ast.FunctionDef]:
    "A method that returns the same object, one of two types, has a signature for each; the first is that of a call without an object, too."
    if not (same and isinstance(node.returns, ast.BinOp)):
        return [node]
    first, second = copy.deepcopy(node), copy.deepcopy(node)
    first.returns, second.returns = node.returns.left, node.returns.right
    first.args.args[1].annotation = ast.parse(f"{ast.unparse(first.returns)} | None", mode="eval").body
    second.args.args[1].annotation, second.args.defaults = second.returns, node.args.defaults[1:]
    for signature in (first, second):
        signature.decorator_list = [ast.Name("overload"), *node.decorator_list]
    return [first, second]


def short_function(node: ast.FunctionDef, module: str, purpose: str = "") -> list[ast.FunctionDef]:
    "Signature, or several, and docstring."
    same = comment(node.returns, module) == "the same object"
    node.body = described(node, module, purpose if node.name == "__init__" else "") or [ast.Expr(ast.Constant(...))]
    node.decorator_list = [d for name, d in decorators(node).items() if name not in BEHAVIOUR]
    if node.name == "__init__":
        node.returns = ast.Constant(None)
    if isinstance(node.returns, ast.Constant) and isinstance(node.returns.value, str):
        node.returns = ast.parse(node.returns.value, mode="eval").body
    if more := keywords(node):
        node.args.kwarg, node.args.kwonlyargs, node.args.kw_defaults = None, more, [ast.Constant(...)] * len(more)
    return overloads(node, same)


def short_class(node: ast.ClassDef, module: str) -> ast.ClassDef:
    "Docstring, attributes, and methods."
    of_class = [a for part in node.body for a in ([part] if isinstance(part, ast.AnnAssign) else annotations(assigned(part), f"{module}.{node.name}"))]
    of_self = annotations({name: kind for name, kind in attributes(node).items() if name not in declared(node)}, f"{module}.{node.name}")
    doc, purpose = node.body[:1] if ast.get_docstring(node) else [], ast.get_docstring(node) or ""
    kept = [part for part in node.body if isinstance(part, ast.FunctionDef) and needed(part.name, module)]
    methods = [method for part in kept for method in short_function(part, module, purpose)]
    node.body = doc + of_class + of_self + methods or [ast.Expr(ast.Constant(...))]
    return node


def short(node: ast.stmt, module: str) -> list[ast.stmt]:
    "What the stub has of a statement of the module."
    match node:
        case ast.Import() | ast.ImportFrom() | ast.Assign(targets=[ast.Name(id="__all__")]):
            return [node]
        case ast.FunctionDef() if not PRIVATE.match(node.name):
            return short_function(node, module)
        case ast.ClassDef() if not PRIVATE.match(node.name):
            return [short_class(node, module)]
    return annotations(assigned(node), module)


def front() -> str:
    "The stub of `cvqvae` itself: its classes, and every module under its name."
    classes = next(ast.literal_eval(node.value) for node in TREES["__init__"].body if "_CLASSES" in assigned(node))
    modules = [f"from . import {name} as {name}" for name in TREES if not name.startswith("_")]
    return "\n".join([*modules, *(f"from .{module} import {name} as {name}" for name, module in classes.items()), "__all__: list[str]", "__version__: str"])


def stub(module: str) -> str:
    "The stub of a module that patches."
    body = [kept for node in TREES[module].body for kept in short(node, module)]
    used = {name.id for node in body for name in ast.walk(node) if isinstance(name, ast.Name) and not isinstance(getattr(name, "ctx", None), ast.Store)}
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [alias for alias in node.names if (alias.asname or alias.name) in used]
    extra = ["from typing import overload"] if "overload" in used else []
    return "\n".join([*extra, ast.unparse(ast.Module([node for node in body if getattr(node, "names", True)], []))])


def stubs() -> dict[Path, str]:
    "Path -> text of every stub."
    patched = [module for module, tree in TREES.items() if move_patches(tree)]
    made = {"__init__": front()} | {module: stub(module) for module in patched}
    style = ["ruff", "format", "--isolated", "--line-length", "160", "--stdin-filename", "module.pyi", "-"]
    tidy = lambda text: subprocess.run(style, input=text, capture_output=True, encoding="utf-8", check=True).stdout
    return {PACKAGE / f"{module}.pyi": tidy(f"{NOTE}\n{text}") for module, text in made.items()}


def main() -> None:
    made = stubs()
    for path in set(PACKAGE.glob("*.pyi")) - set(made):
        path.unlink()
    for path, text in made.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    (PACKAGE / "py.typed").touch()


if __name__ == "__main__":
    main()
