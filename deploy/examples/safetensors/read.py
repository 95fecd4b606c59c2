"""Reads the tensors of safetensors files by mmap, and prints the name, type, shape and CRC-32 of each.

    python3 read.py FILE.safetensors ...

What it prints depends on the files alone. How long each took is said on the standard error.
"""

import sys
import time
import zlib

from safetensors import safe_open


def read(path):
    """Prints each tensor of one file, and returns their bytes."""
    total = 0
    with safe_open(path, framework="numpy") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            total += tensor.nbytes
            shape = "x".join(str(n) for n in tensor.shape)
            print(f"{name} {tensor.dtype} {shape} {zlib.crc32(tensor.tobytes()):08x}")
    return total


def main(paths):
    if not paths:
        sys.exit(__doc__)
    for path in paths:
        start = time.monotonic()
        total = read(path)
        seconds = time.monotonic() - start
        print(f"{path}: {total / 1e6:.1f} MB in {seconds:.2f} s", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
