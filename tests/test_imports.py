"""Imports point one way, and using little of isopress loads little."""

import ast
import subprocess
import sys
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "codec/_root": set(),
    "codec": {"isopress.codec"},
    "format": {"isopress", "isopress.codec", "isopress.format"},
    "cli": {"isopress", "isopress.codec", "isopress.format", "isopress.cli"},
}
TORCH = {  # files that know torch; other rooms than these must be usable without it
    "codec/threads.py",
    "codec/latent/attention.py",  # for training and VAEformers
    "codec/latent/synthesis.py",  # for training
    "cli/train.py",
}
TORCH_ROOMS = ("codec/vaeformer/", "codec/training/")
HOSTS = {"zarr", "xarray", "dask", "click", "rich"}
LEAVES = {  # what must stay light: the front door, and what opening a store loads
    "format/payload.py": set(),
    "format/settings.py": set(),
    "format/api.py": set(),
    "format/zarr/v2_codec.py": set(),
    "format/zarr/v3_codec.py": {"zarr"},
}


def sources(room: str) -> list[Path]:
    """Return the files of a room; those of `codec/_root` are the package's face, not part of the codec."""
    found = (ROOT / room).rglob("*.py")
    return sorted(path for path in found if path.parent.name != "_root" or room == "codec/_root")


@cache
def imported(path: Path) -> list[str]:
    """Return every module that a file imports, anywhere in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found.append(node.module or "")
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_from_cli_to_format_to_codec(room: str) -> None:
    assert sources(room)
    for path in sources(room):
        for module in imported(path):
            top, *rest = module.split(".")
            assert top not in ("codec", "format", "cli", "tests", "benchmarks"), f"{name_of(path)}: {module}"
            if top == "isopress":
                part = ".".join([top, *rest[:1]])
                assert part in MAY_IMPORT[room], f"{name_of(path)} imports {module}"


LOW = {"errors", "bytes", "arrays", "limits", "encoded"}  # files that every room of the codec may know
MAY_IMPORT_IN_CODEC = {
    "native": set(),
    "entropy": {"native"},
    "values": {"native"},
    "models": {"threads"},
    "bounded": {"entropy", "native", "values", "models", "threads"},
    "latent": {"bounded", "entropy", "native", "values", "models", "threads"},
    "vaeformer": {"latent", "bounded", "entropy", "native", "values", "models", "threads"},
    "chunk": {"vaeformer", "latent", "bounded", "entropy", "native", "values", "models", "threads"},
}


@pytest.mark.parametrize("room", MAY_IMPORT_IN_CODEC)
def test_imports_of_the_codec_point_from_codings_to_entropy_and_values(room: str) -> None:
    allowed = MAY_IMPORT_IN_CODEC[room] | LOW | {room}
    for path in sources(f"codec/{room}"):
        for module in imported(path):
            if module.startswith("isopress.codec."):
                part = module.split(".")[2]
                assert part in allowed, f"{name_of(path)} imports {module}"


def test_leaves_of_the_codec_know_nothing_but_each_other() -> None:
    for name in sorted(LOW):
        for module in imported(ROOT / f"codec/{name}.py"):
            if module.startswith("isopress."):
                assert module.split(".")[2] in LOW, f"codec/{name}.py imports {module}"


@pytest.mark.parametrize("room", ["codec", "cli"])
def test_no_files_import_each_other_in_a_circle(room: str) -> None:
    """Imports inside functions count too: a reader follows them likewise."""
    names = {f"isopress.{name_of(path).removesuffix('.py').replace('/', '.')}": path for path in sources(room)}
    known = {}
    for name, path in names.items():
        found = set(imported(path))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):  # of a room, some of its files
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        known[name] = found & set(names)
    while lowest := {name for name, others in known.items() if not others}:
        known = {name: others - lowest for name, others in known.items() if name not in lowest}
    assert not known, {name: sorted(others) for name, others in known.items()}


def test_nothing_of_the_codec_imports_training() -> None:
    for path in sources("codec"):
        if not name_of(path).startswith("codec/training/"):
            assert not [m for m in imported(path) if m.startswith("isopress.codec.training")], name_of(path)


def test_torch_is_imported_only_where_a_network_is_trained_or_accelerated() -> None:
    for path in (path for room in MAY_IMPORT for path in sources(room)):
        if name_of(path) not in TORCH and not name_of(path).startswith(TORCH_ROOMS):
            assert "torch" not in {module.split(".")[0] for module in imported(path)}, name_of(path)


def test_the_codec_knows_no_host_library_and_each_adapter_knows_one() -> None:
    allowed = {name_of(path): set() for path in sources("codec")} | LEAVES
    for name, hosts in allowed.items():
        found = {module.split(".")[0] for module in imported(ROOT / name)} & HOSTS
        assert found <= hosts, f"{name} imports {found}"


def test_only_the_command_line_knows_click() -> None:
    for path in sources("format"):
        assert "click" not in {module.split(".")[0] for module in imported(path)}, name_of(path)


def test_the_payload_knows_no_codec_but_errors_bytes_and_limits() -> None:
    modules = {module for module in imported(ROOT / "format/payload.py") if module.startswith("isopress")}
    assert modules == {"isopress.codec.bytes", "isopress.codec.errors", "isopress.codec.limits"}


WEIGHTS = "torch safetensors constriction isopress.codec.bounded.weights isopress.codec.chunk.encode"


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import isopress, isopress.format", f"{WEIGHTS} numpy numcodecs zarr xarray"),
        ("import isopress.format.zarr.v2_codec", f"{WEIGHTS} zarr xarray"),
        ("import isopress.format.zarr.v3_codec", f"{WEIGHTS} xarray"),
        ("import isopress; isopress.inspect", "torch zarr xarray click"),
        ("import isopress; isopress.compress", "torch zarr xarray click safetensors"),
        (
            "import isopress; isopress.decompress(isopress.compress([[1.0, 2.0, 4.0]] * 9, bound=0.1))",
            "torch zarr xarray click",
        ),
        (
            "import isopress, numpy as np; x = np.add.outer(np.arange(40.0), np.sin(np.arange(60.0)));"
            "isopress.decompress(isopress.compress(x, mode='latent', rmse=0.1))",
            "torch zarr xarray click",
        ),
    ],
)
def test_a_fresh_interpreter_loads_only_what_it_needs(code: str, absent: str) -> None:
    check = f"import sys; {code}; print(*(name for name in {absent.split()} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_no_entry_point_is_loaded_by_every_user_of_zarr() -> None:
    groups = {entry.group for entry in distribution("isopress").entry_points}
    assert not groups & {"zarr", "zarr.codec_pipeline", "zarr.buffer", "zarr.ndbuffer"}


def test_imports_inside_functions_of_the_codec_hold_no_lock_of_python_across_a_fork() -> None:
    """A module that one thread is importing stays locked for ever in a process that another forks: IMPORTS waits."""
    loose = []
    for path in sorted((ROOT / "codec").rglob("*.py")):
        if "training" in path.parts or path.name == "threads.py":  # which runs where torch is loaded
            continue
        tree = ast.parse(path.read_text())
        guarded = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.With) and any(ast.unparse(item.context_expr) == "IMPORTS" for item in block.items)
            for node in ast.walk(block)
        }
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                imports = [node for node in ast.walk(function) if isinstance(node, (ast.Import, ast.ImportFrom))]
                loose += [f"{path.name}:{node.lineno}" for node in imports if id(node) not in guarded]
    assert not loose
