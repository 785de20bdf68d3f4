#!/usr/bin/env python3
"""Joins what `benches/gpu/run` logged into a short table and a record: <records>/<card>/<date>.json."""
import datetime
import json
import pathlib
import re
import sys

log, commit, records = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
# Milliseconds of performance targets for an H200: what must be reached, and what would be good.
TARGETS = {
    "attention_mil/N 1000000 B 100 L 1024 D 256 K 1/BF16/forward/bf16": (1.90, 1.60),
    "attention_mil/N 1000000 B 100 L 1024 D 256 K 1/BF16/forward_backward/bf16": (4.1, 3.4),
    "attention_mil/N 1000000 B 100 L 1024 D 256 K 1/F32/forward": (10.0, 8.0),
    "cade/N 331 + 1000000 D 256 B 1 masked/F32/forward": (0.53, 0.41),
    "cox/n 1000000 efron/F32/forward_backward": (0.025, 0.015),
    "cox/n 10000 efron/F32/forward_backward": (0.012, 0.008),
}


def read(name):
    try:
        return json.loads((log / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def name(row):
    products = "" if row["precision"] == "f32" else "/" + row["precision"]
    return f"{row['op']}/{row['shape']}/{row['dtype']}/{row['pass']}{products}"


bench, peers = read("bench.json"), read("peers.json")
if bench is None:
    sys.exit("there is no benchmark to report")
card = re.sub(r"[^a-z0-9]+", "-", bench["ceilings"]["device"].lower()).strip("-")
# Milliseconds with products by cuBLASLt, where it was.
library = [read(f"bench_cublaslt_{op}.json") for op in ("linear", "fusion")]
by_library = {name(row): row["seconds"] for report in library if report for row in report["rows"]}
by_case = {}
for row in (peers or {}).get("rows", []):
    by_case.setdefault(row["case"], []).append(row)
copy = (peers or {}).get("copy_gb_per_s") or bench["ceilings"]["copy_gb_per_s"]
product = (peers or {}).get("bf16_product_gflop_per_s") or bench["ceilings"]["product_gflop_per_s"]
print(f"{card} at {commit[:7]}: copy {copy:.0f} GB/s, bf16 product {product / 1e3:.0f} TFLOP/s")
print(f"{'case':<76} {'ms':>9} {'copy':>5} {'prod':>5} {'target':>8}  peers: ratio")
for row in bench["rows"]:
    ms, target = row["seconds"] * 1e3, TARGETS.get(name(row))
    reached = "" if not target else f"{target[0]:>6} {'ok' if ms <= target[0] else 'NO'}"
    others = [f"{p['way']} {p['seconds'] / row['seconds']:.2f}x" if "seconds" in p else f"{p['way']} failed" for p in by_case.get(name(row), [])]
    if name(row) in by_library:
        others.append(f"cuBLASLt {by_library[name(row)] / row['seconds']:.2f}x")
    shares = f"{row['gb_per_s'] / copy:>5.0%} {row['gflop_per_s'] / product:>5.0%}"
    print(f"{name(row):<76} {ms:>9.4f} {shares} {reached:>8}  {'; '.join(others)}")
for what, error in (peers or {}).get("onkos_from_float64", {}).items():
    print(f"{what}: {error:.1e} from float64")
tests = {}
for path in sorted(log.glob("*.log")):
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^test result: (.*?);? finished", text, re.M) + re.findall(r"ERROR SUMMARY: .*|RACECHECK SUMMARY: .*", text)
    if found:
        tests[path.stem] = found
to = records / card / f"{datetime.date.today()}.json"
to.parent.mkdir(parents=True, exist_ok=True)
record = {"command": "benches/gpu/run", "commit": commit, "targets_ms": TARGETS, "tests": tests, "doctor": read("doctor.json"), "bench": bench, "bench_cublaslt": library, "peers": peers}
to.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
print(f"written: {to}")
