#!/usr/bin/env python3
"""The other side of benches/store: features as TRIDENT writes them, and h5py as a training loop reads them.

`h5.py make FOLDER WIDTH ROWS...` writes a file for each number of rows. Without arguments it takes paths line by line,
and after an empty line reads them all and answers with the seconds that it took, the rows and the sum of first values.
"""
import os
import sys
import time

import h5py
import numpy as np


def make(folder, width, rows):
    """A file a slide: a chunk a row, f32, as the tool appends them."""
    draw = np.random.default_rng(1)
    for i, n in enumerate(rows):
        path = os.path.join(folder, f"SLIDE-{i:05}.h5")
        features = draw.standard_normal((n, width), dtype=np.float32)
        side = int(n**0.5) + 1
        coords = np.stack([np.arange(n) % side, np.arange(n) // side], 1).astype(np.int64) * 512
        with h5py.File(path, "w") as f:
            d = f.create_dataset("features", data=features, maxshape=(None, width), chunks=(1, width))
            d.attrs.update({"name": f"SLIDE-{i:05}", "savetodir": folder, "encoder": "synthetic"})
            d = f.create_dataset("coords", data=coords, maxshape=(None, 2), chunks=(1, 2))
            d.attrs.update({"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "overlap": 0})
        with open(path, "rb+") as f:
            os.fsync(f.fileno())


def read(paths):
    start, rows, first = time.perf_counter(), 0, 0.0
    for path in paths:
        with h5py.File(path, "r") as f:
            features = f["features"][:]
        rows += len(features)
        first += float(features[0, 0])
    print(time.perf_counter() - start, rows, first, flush=True)


def main():
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2], int(sys.argv[3]), [int(n) for n in sys.argv[4:]])
        return
    paths = []
    for line in sys.stdin:
        if line.strip():
            paths.append(line.rstrip("\n"))
        else:
            read(paths)
            paths = []


if __name__ == "__main__":
    main()
