"""Rules about imports and modules that hold everywhere, each run against the whole program."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("protocol", "storage", "node", "simulations", "cli")
LINES_MAX = 600  # longer than this, a module has more than one subject

# Loaded beforehand in one process, so that importing a module alone costs only that module.
SHARED = ("aiohttp.web", "lmdb", "sqlite3", "nacl.bindings", "cbor2", "msgspec", "click")
# What a start must not wait for: each takes 50 ms and more, and is imported when it is first used.
LATE = ("pycrdt", "jwt", "prometheus_client", "rich", "jsonschema_rs", "cryptography", "graphql")

# Layer by layer, each loaded before the next: what a lower one imports is in no circle with a module of a higher one,
# because imports point one way.
IMPORT_EACH_ALONE = """
import importlib, os, sys, traceback, warnings
shared, late, *layers = (argument.split(",") for argument in sys.argv[1:])
warnings.simplefilter("error")
failed = []

def imports(name, unwanted=()):
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(name)
            early = [other for other in unwanted if other in sys.modules]
            if early:
                raise ImportError(f"imported before it is needed: {early}")
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)

for name in shared:
    importlib.import_module(name)
imports("node.process", late)
for layer in layers:
    for name in layer:
        imports(name)
    if not failed:
        for name in layer:
            importlib.import_module(name)
sys.exit(f"cannot be imported alone: {failed}" if failed else 0)
"""


def modules() -> dict[str, Path]:
    """Every module of the program by its name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_every_module_can_be_imported_alone() -> None:
    layers = [",".join(name for name in modules() if name.split(".")[0] == package) for package in PACKAGES]
    arguments = [",".join(SHARED), ",".join(LATE), *layers]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EACH_ALONE, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_imports_point_one_way() -> None:
    command = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_api_surface_is_named_in_the_contract_that_keeps_them_apart() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}
    surfaces = {
        f"node.api.{path.parent.name}"
        for path in (ROOT / "node" / "api").glob("*/__init__.py")
        if path.parent.name != "docs"
    }
    assert surfaces == set(contracts["surfaces"]["modules"])


def test_protocol_reads_no_clock_and_draws_nothing_by_a_back_door() -> None:
    hidden = {"now", "utcnow", "today", "fromtimestamp", "generate", "uuid4", "urandom", "token_bytes"}
    found = [
        f"{name}: {node.attr} in line {node.lineno}"
        for name, path in modules().items()
        if name.split(".")[0] == "protocol"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in hidden
    ]
    assert found == []


def client_modules() -> dict[str, Path]:
    """Every module of the Python client, which apps install without this program."""
    return {path.stem: path for path in (ROOT / "sdk" / "python" / "cosmicsync").glob("*.py")}


def test_the_python_client_imports_nothing_of_the_program() -> None:
    allowed = {*sys.stdlib_module_names, "aiohttp", "cosmicsync"}
    found: set[str] = set()
    for path in client_modules().values():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or ".").split(".")[0])
    assert "aiohttp" in found and found <= allowed, found - allowed


def test_no_module_grows_into_a_monolith() -> None:
    every = {**modules(), **client_modules()}
    lengths = {name: len(path.read_text().splitlines()) for name, path in every.items()}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_MAX} == {}
