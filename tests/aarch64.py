"""Golden payloads on another processor: `python -m tests.aarch64 [FOLDER]` builds the generic kernels for 64-bit ARM
and decodes under qemu.

Needs Debian's packages mmdebstrap, qemu-user and gcc-aarch64-linux-gnu. FOLDER keeps the ARM system and packages (about
400 MB) for the next run; without it they are thrown away. VAEformers are left out: they need torch.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = {"mmdebstrap": "mmdebstrap", "qemu-aarch64": "qemu-user", "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu"}
SYSTEM = ("python3", "python3-dev", "libgomp1", "libstdc++6")
PACKAGES = ("cf-xarray", "click", "dask", "google-crc32c", "numcodecs", "numpy", "pcodec", "pint", "platformdirs",
            "pytest", "rich", "safetensors", "xarray", "zarr")  # fmt: skip
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
LIBRARY = "_kernels.cpython-311-aarch64-linux-gnu.so"


def make_system(folder: Path) -> None:
    """Unpack an ARM Debian with Python into `folder`/root and packages into `folder`/site."""
    if not (folder / "root").exists():
        include = f"--include={','.join(SYSTEM)}"
        command = ["mmdebstrap", "--arch=arm64", "--variant=extract", "--skip=check/qemu", include, "bookworm"]
        subprocess.run([*command, str(folder / "root")], check=True)
    if not (folder / "site").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(folder / "site")]
        command += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]
        subprocess.run([*command, *(f"--platform={name}" for name in PLATFORMS), *PACKAGES], check=True)


def install(folder: Path) -> None:
    """Put isopress into `folder`/own, its kernels compiled for ARM."""
    own = folder / "own"
    shutil.rmtree(own, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(own), str(ROOT)]
    subprocess.run(command, check=True, env=os.environ | {"CC": "false"})  # kernels of this machine are not needed
    native = own / "isopress" / "codec" / "native"
    for path in native.glob("*.so"):
        path.unlink()  # of an earlier build in the source tree
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"][0]
    include = folder / "root" / "usr" / "include"
    command = ["aarch64-linux-gnu-gcc", "-shared", "-fPIC", *settings["extra-compile-args"]]
    command += [f"-I{include / 'python3.11'}", f"-I{include}", *(str(ROOT / source) for source in settings["sources"])]
    subprocess.run([*command, "-o", str(native / LIBRARY)], check=True)


def command(folder: Path) -> list[str]:
    """Return what runs the ARM Python with isopress under qemu; arguments of `python` follow."""
    path = f"PYTHONPATH={folder / 'own'}:{folder / 'site'}:{ROOT}"
    qemu = ["qemu-aarch64", "-L", str(folder / "root"), "-E", path, "-E", "PYTHONDONTWRITEBYTECODE=1"]
    return [*qemu, str(folder / "root" / "usr" / "bin" / "python3.11")]


def test(folder: Path) -> int:
    """Run the tests of golden payloads under qemu; return the exit code."""
    chosen = "decodes_to and not vaeformer"
    arguments = ["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-o", "addopts="]
    arguments += ["tests/codec/test_golden.py", "-k", chosen]
    return subprocess.run([*command(folder), *arguments], cwd=ROOT, check=False).returncode


def main() -> int:
    """Make the system, install, test."""
    if missing := [package for tool, package in TOOLS.items() if not shutil.which(tool)]:
        print(f"install Debian's {', '.join(missing)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make_system(folder)
        install(folder)
        return test(folder)


if __name__ == "__main__":
    sys.exit(main())
