"""The shape of the package, read from its syntax trees without importing it.

Imports only go down the floors below; within a floor they may go sideways as long as
there is no cycle. A new module of the package root that is not in the table counts as
a command, on the top floor: a library module belongs into the table.
"""

import ast
import graphlib
import pathlib

import pytest

PACKAGE = "tufl_jax"
ROOT = pathlib.Path(__file__).parents[1] / PACKAGE
FLOORS = (
    {"", "errors", "labels", "config", "validation"},
    {"presets", "paper_recipes", "paper"},
    {"ops"},
    {"losses", "thresholds", "mixing", "augment", "metrics", "fourier", "pool"},
    {"models"},
    {"data"},
    {"state", "optim", "checkpoint", "events", "writer", "pictures"},
    {"steps"},
    {"journal", "export", "windows", "inference", "evaluation"},
    {"startup", "workdir", "train", "cost", "samples", "translation"},
)
COMMANDS = len(FLOORS)
NEVER_AT_IMPORT = {"tensorflow", "torch"}
LAZY = {"grain", "clu", "tensorboard", "tensorflow_datasets"}
MAY_BE_EAGER = {
    f"{PACKAGE}.data.pipeline",
    f"{PACKAGE}.writer",
    # Subclasses of its classes; imported by the one command that runs them.
    f"{PACKAGE}.data.builders",
    f"{PACKAGE}.data.builders.base",
    f"{PACKAGE}.data.builders.shards",
}


def module_name(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def parse_package() -> dict[str, ast.Module]:
    return {
        module_name(path): ast.parse(path.read_text(), str(path))
        for path in sorted(ROOT.rglob("*.py"))
    }


TREES = parse_package()
IS_PACKAGE = {module_name(path) for path in ROOT.rglob("__init__.py")}


def imported_by(node, module, modules=None):
    """Modules that an import statement names, e.g. {'tufl_jax.models.resnet'}.

    `from a import b` names the module a.b where there is one, and a otherwise.
    """
    modules = TREES if modules is None else modules
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if not isinstance(node, ast.ImportFrom):
        return set()
    base = node.module or ""
    if node.level:
        up = node.level - (module in IS_PACKAGE)
        parent = module.split(".")[: len(module.split(".")) - up]
        base = ".".join([*parent, *([node.module] if node.module else [])])
    children = {f"{base}.{alias.name}" for alias in node.names}
    found = {child for child in children if child in modules}
    return found if len(found) == len(children) else found | {base}


def imports(module, *, at_import_time=False):
    """(line, imported module) for all imports, or those that run with the module."""
    nodes = import_time_nodes(TREES[module]) if at_import_time else None
    for node in ast.walk(TREES[module]) if nodes is None else nodes:
        for name in imported_by(node, module):
            yield getattr(node, "lineno", 0), name


def import_time_nodes(node):
    """All nodes outside functions and lambdas."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from import_time_nodes(child)


def ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(PACKAGE + ".")


def floor(module: str) -> int:
    room = module.removeprefix(PACKAGE).strip(".").split(".")[0]
    for number, rooms in enumerate(FLOORS):
        if room in rooms:
            return number
    return COMMANDS


def is_command(module: str) -> bool:
    """On the top floor, or what `python -m package` runs: these talk to a terminal."""
    return floor(module) == COMMANDS or module.endswith(".__main__")


def test_the_package_was_found():
    assert {f"{PACKAGE}.metrics", f"{PACKAGE}.errors"} <= set(TREES)


@pytest.mark.parametrize("module", TREES)
def test_imports_go_down(module):
    for line, name in imports(module):
        if ours(name):
            assert name in TREES, f"{module}:{line} imports {name}: no such module"
            assert floor(name) <= floor(module), (
                f"{module}:{line} is on floor {floor(module)} and imports {name} of "
                f"floor {floor(name)}"
            )


def test_imports_have_no_cycles():
    graph = {
        module: {
            name
            for _, name in imports(module, at_import_time=True)
            # A package that collects its modules is no cycle: they name each other.
            if ours(name) and not (name in IS_PACKAGE and module.startswith(name + "."))
        }
        for module in TREES
    }
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", TREES)
def test_imports_are_explicit(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), (
                f"{module}:{node.lineno}: star import"
            )


@pytest.mark.parametrize("module", TREES)
def test_heavy_packages_are_imported_where_they_are_used(module):
    forbidden = NEVER_AT_IMPORT | (set() if module in MAY_BE_EAGER else LAZY)
    for line, name in imports(module, at_import_time=True):
        assert name.split(".")[0] not in forbidden, (
            f"{module}:{line}: import {name} inside the function that needs it"
        )


@pytest.mark.parametrize("module", TREES)
def test_only_commands_print(module):
    if is_command(module):
        return
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", (
                f"{module}:{node.lineno}: print; use absl.logging"
            )


def test_forms_of_imports_are_understood():
    modules = dict.fromkeys(["p", "p.a", "p.data", "p.data.x"])

    def names(source):
        node = ast.parse(source).body[0]
        return imported_by(node, f"{PACKAGE}.data.sources", modules)

    assert names("import p.data.x as y, p.a") == {"p.data.x", "p.a"}
    assert names("from p import a") == {"p.a"}
    assert names("from p import a, thing") == {"p.a", "p"}
    assert names("from p.data import x as y") == {"p.data.x"}
    assert names("from p.data.x import f") == {"p.data.x"}
    assert names("from . import x") == {f"{PACKAGE}.data"}
    assert names("from ..errors import UserError") == {f"{PACKAGE}.errors"}
    lazy = ast.parse("import a\nif a:\n    import b\ndef f():\n    import c")
    eager = {
        n for node in import_time_nodes(lazy) for n in imported_by(node, "m", modules)
    }
    assert eager == {"a", "b"}
