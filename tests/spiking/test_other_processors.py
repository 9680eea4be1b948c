"""Other processors, had on this one: their instruction sets, their ways to add up, the same tests.

Three choose loops by the processor: oneDNN for convolutions, PyTorch for all else, the compiler for our kernels. Each
can be told to choose as on an older one, and on a processor that is older still takes what there is. What they choose
by themselves is what the tests meet when they are run as usual.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CONVOLVING = ["parity_float32", "parity_float64", "events", "networks", "sparse"]
FILES = [*CONVOLVING, "kernels", "native", "neurons", "norms"]
SETTINGS = {
    "AVX512 with bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "CXX": "-mno-amx-bf16"},
    "AVX512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2 convolutions": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "CXX": "-march=x86-64-v3"},
}


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the settings are those of x86 processors")
@pytest.mark.parametrize("name", SETTINGS)
def test_parity_and_kernels(name, tmp_path):
    settings, files = dict(SETTINGS[name]), CONVOLVING
    if "CXX" in settings:
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            pytest.skip("no C++ compiler was found")
        script = tmp_path / "compiler"  # the last of several -march holds
        script.write_text(f'#!/bin/sh\nexec {compiler} "$@" {settings["CXX"]}\n')
        script.chmod(0o700)
        settings |= {"CXX": str(script), "XDG_CACHE_HOME": str(tmp_path)}
        files = FILES
    # Building the kernels is no matter of arithmetic.
    leave_out = "not (build or compiler or folder or demand)"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", leave_out]
    done = subprocess.run(
        [*command, *(str(HERE / f"test_{file}.py") for file in files)],
        cwd=HERE.parent.parent,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    print(done.stdout.splitlines()[-1])
    assert done.returncode == 0, f"{name}: {done.stdout[-3000:]}{done.stderr[-1000:]}"
