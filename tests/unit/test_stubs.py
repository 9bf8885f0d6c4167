"""The .pyi agree with the compiled modules: each has one, and mypy's stubtest finds nothing that differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILED = sorted(path.with_suffix("") for path in (ROOT / "vppaio").rglob("*.pyx"))


@pytest.mark.parametrize("module", COMPILED, ids=lambda path: path.name)
def test_compiled_module_has_a_stub(module: Path) -> None:
    assert module.with_suffix(".pyi").exists()


def test_no_stub_is_left_over() -> None:
    assert {path.with_suffix("") for path in (ROOT / "vppaio").rglob("*.pyi")} == {*COMPILED}


@pytest.mark.timeout(180)
def test_stubs_agree_with_the_compiled_modules() -> None:
    pytest.importorskip("mypy")
    modules = [".".join(path.relative_to(ROOT).parts) for path in COMPILED]
    command = [sys.executable, "-m", "mypy.stubtest", *modules, "--mypy-config-file", str(ROOT / "pyproject.toml")]
    command += ["--allowlist", str(ROOT / ".ci" / "stubtest-allowlist"), "--ignore-disjoint-bases"]
    environment = {**os.environ, "MYPY_CACHE_DIR": os.devnull}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
