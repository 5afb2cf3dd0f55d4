"""`.ci/setup` with an environment whose pip only records what it is asked for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

# Stands for an environment's Python. `pip install` of a +cpu build succeeds if the file `source` says where it is:
# "pip" for pip's own sources, "pytorch" for PyTorch's. -S hides the packages of the Python that runs the tests.
STUB = r"""#!/bin/bash
here=$(dirname "$0")/..
export PYTHONPATH=$here/packages:$PYTHONPATH
[[ "$1 $2" == "-m pip" ]] || exec "$REAL_PYTHON" -S "$@"
shift 2
[[ $1 != --version ]] || exit 0
echo "$*" >>"$here/asked"
put() {
    mkdir -p "$here/packages/torch-$1.dist-info"
    printf 'Name: torch\nVersion: %s\n' "$1" >"$here/packages/torch-$1.dist-info/METADATA"
}
case "$*" in
    uninstall*) rm -r "$here"/packages/torch-* ;;
    *--index-url*torch==*+cpu*) [[ $(<"$here/source") == pytorch ]] && put 2.13.0+cpu ;;
    *torch==*+cpu*) [[ $(<"$here/source") == pip ]] && put 2.13.0+cpu ;;
    *torch\>*) compgen -G "$here/packages/torch-*" >/dev/null || put 2.15.0 ;;
esac
"""


class Environment:
    """An environment in `folder`, on a machine without a GPU."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        python = folder / "bin" / "python"
        python.parent.mkdir()
        python.write_text(STUB)
        python.chmod(0o755)
        self.source("nowhere")
        self.gpu(False)

    def source(self, name: str) -> None:
        """Sets where the build for the CPU can be found."""
        (self.folder / "source").write_text(name)

    def gpu(self, present: bool) -> None:
        smi = self.folder / "bin" / "nvidia-smi"
        smi.write_text(f"#!/bin/sh\n{'echo NVIDIA H100' if present else 'exit 9'}\n")
        smi.chmod(0o755)

    def setup(self, requirements: str = "requirements.txt", **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the script; `asked` starts anew."""
        (self.folder / "asked").unlink(missing_ok=True)
        environment = os.environ | {"ENV": str(self.folder), "PYTHON": "", "TORCH": ""} | settings
        environment["REAL_PYTHON"] = sys.executable
        environment["PATH"] = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        command = [str(ROOT / ".ci" / "setup"), requirements]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    @property
    def asked(self) -> list[str]:
        """What pip was asked to do, without its general options."""
        path = self.folder / "asked"
        lines = path.read_text().splitlines() if path.is_file() else []
        general = ("--disable-pip-version-check ", "--no-input ", "--quiet ", "--yes ")
        for option in general:
            lines = [line.replace(option, "") for line in lines]
        return lines

    @property
    def torch(self) -> list[str]:
        return [path.name for path in (self.folder / "packages").glob("torch-*")]


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path)


RANGE = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch>"))


def all_of(environment: Environment, requirements: str = "requirements.txt") -> str:
    return f"install -r {requirements} --constraint {environment.folder}/.setup-torch"


linux = pytest.mark.skipif(platform.system() != "Linux", reason="elsewhere pip's own choice is a build for the CPU")


@linux
@pytest.mark.parametrize("source", ["pip", "pytorch"])
def test_a_machine_without_a_gpu_gets_the_build_for_the_cpu(environment, source):
    environment.source(source)
    assert environment.setup().returncode == 0
    assert environment.torch == ["torch-2.13.0+cpu.dist-info"]
    first, *others = environment.asked
    assert first == "install torch==2.13.0+cpu"
    if source == "pytorch":
        assert "--index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu" in others.pop(0)
    assert others == [f"install {RANGE}", all_of(environment)]


@linux
def test_where_that_build_is_not_found_pip_chooses(environment):
    ended = environment.setup()
    assert ended.returncode == 0 and "was not found" in ended.stdout
    assert environment.torch == ["torch-2.15.0.dist-info"]


def test_a_machine_with_a_gpu_gets_what_pip_finds(environment):
    environment.gpu(True)
    environment.source("pip")
    assert environment.setup().returncode == 0
    assert environment.asked == [f"install {RANGE}", all_of(environment)]


def test_torch_that_is_installed_stays_and_a_second_call_does_nothing(environment):
    installed = environment.folder / "packages" / "torch-2.12.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Name: torch\nVersion: 2.12.0\n")
    assert environment.setup().returncode == 0
    assert environment.asked == [f"install {RANGE}", all_of(environment)]
    assert environment.setup().returncode == 0 and environment.asked == []
    assert environment.setup("requirements-dev.txt").returncode == 0
    assert environment.asked[-1] == all_of(environment, "requirements-dev.txt")


def test_the_other_build_is_exchanged_only_if_asked_for(environment):
    environment.source("pip")
    assert environment.setup(TORCH="cpu").returncode == 0 and environment.torch == ["torch-2.13.0+cpu.dist-info"]
    environment.gpu(True)
    assert environment.setup().returncode == 0 and environment.asked == []
    assert environment.setup(TORCH="cuda").returncode == 0 and environment.torch == ["torch-2.15.0.dist-info"]
    assert environment.asked[0] == "uninstall torch torchvision"
    assert environment.setup(TORCH="cpu").returncode == 0 and environment.torch == ["torch-2.13.0+cpu.dist-info"]


def test_an_unknown_build_is_refused(environment):
    ended = environment.setup(TORCH="gpu")
    assert ended.returncode == 2 and environment.asked == []
    (line,) = ended.stderr.splitlines()
    assert line.startswith("setup: ") and "'gpu'" in line


@pytest.mark.parametrize(("version", "code"), [("3.10", 2), ("3.11", 0), ("3.14", 0), ("3.15", 2)])
def test_versions_of_python(environment, version, code):
    python = environment.folder / "bin" / "python"
    python.rename(python.with_name("real"))
    says = f'if [[ $1 == -c && $2 == *version_info* ]]; then echo {version}; else exec "${{0%python}}real" "$@"; fi'
    python.write_text(f"#!/bin/bash\n{says}\n")
    python.chmod(0o755)
    ended = environment.setup(TORCH="cuda")
    assert ended.returncode == code, ended.stderr
    assert code == 0 or (environment.asked == [] and version in ended.stderr and "3.14" in ended.stderr)
