"""Reads every file below a directory twice through a DataLoader, and prints how fast each epoch was.

    python3 loader.py DIRECTORY [WORKERS]

The first epoch brings the bytes from the source, the second has them from memory. Both must read the same.
"""

import os
import sys
import time
import zlib

import torch
from torch.utils.data import DataLoader, Dataset


class Files(Dataset):
    """The files below a directory, each as a tensor of its bytes."""

    def __init__(self, root):
        self.paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with open(self.paths[index], "rb") as file:
            data = bytearray(file.read())
        # An empty buffer is refused by frombuffer.
        return index, torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def epoch(loader):
    """Reads all samples, and returns the CRC-32 of each and the bytes of all."""
    sums, total = {}, 0
    for index, sample in loader:
        sums[index] = zlib.crc32(sample.numpy().tobytes())
        total += sample.numel()
    return sums, total


def main(root, workers=4):
    # A batch size of None hands on each sample as it is: files have different sizes.
    loader = DataLoader(Files(root), batch_size=None, shuffle=True, num_workers=int(workers))
    before = None
    for number in (1, 2):
        start = time.monotonic()
        sums, total = epoch(loader)
        seconds = time.monotonic() - start
        print(f"epoch {number}: {len(sums)} files, {total / 1e6:.1f} MB, {total / 1e6 / seconds:.0f} MB/s")
        if before is not None and sums != before:
            sys.exit("the second epoch read other bytes than the first")
        before = sums


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
