"""The folder works where torch is not installed."""

import pkgutil
import subprocess
import sys

import tdcompress.onnxfile

BLOCK = """
import sys, importlib
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "onnxscript", "sklearn", "safetensors"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Block())
for name in sys.argv[1:]:
    importlib.import_module(name)
print(len(sys.argv) - 1)
"""


def test_every_module_imports_with_torch_blocked() -> None:
    modules = [m.name for m in pkgutil.walk_packages(tdcompress.onnxfile.__path__, "tdcompress.onnxfile.")]
    assert "tdcompress.onnxfile.encodings.gap8" in modules
    done = subprocess.run([sys.executable, "-c", BLOCK, *modules], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(len(modules)), done.stderr
