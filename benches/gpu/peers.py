#!/usr/bin/env python3
"""What a user would run instead: PyTorch on the shapes of `onkos bench`, timed in the same run on the same card.

Prints one JSON document: the ceilings of the card (a copy, a bf16 product), one row for each way of doing each case, and
how far the results of onkos (written by the example 04_exchange) are from float64 arithmetic. Every way is first run
once and compared with float64; a way that runs out of memory or cannot be compiled is a row with the reason.
"""
import argparse
import json
import struct
import sys

import torch
import torch.nn.functional as F


def timed(work, device, samples):
    """Median seconds of one call, by events on a card and by the clock elsewhere."""
    import time

    for _ in range(3):
        work()
    seconds = []
    for _ in range(samples):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            work()
            end.record()
            end.synchronize()
            seconds.append(start.elapsed_time(end) / 1e3)
        else:
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def lengths(n, bags):
    """Bags of 1 : 2 : ... : B, the last takes what is left, as the cases of onkos."""
    unit = 2 * n // (bags * (bags + 1))
    each = [(b + 1) * unit for b in range(bags - 1)]
    return each + [n - sum(each)]


class Attention:
    """Gated attention pooling of a ragged batch."""

    def __init__(self, n, bags, l, d, dtype, device):
        self.each = lengths(n, bags)
        self.offsets = [0]
        for length in self.each:
            self.offsets.append(self.offsets[-1] + length)
        g = torch.Generator(device=device).manual_seed(0)
        draw = lambda *shape: torch.randn(*shape, generator=g, device=device)
        self.x = draw(n, l).to(dtype)
        self.v, self.u, self.w = ((draw(*s) / s[1] ** 0.5).to(dtype) for s in ((d, l), (d, l), (1, d)))
        self.segment = torch.repeat_interleave(torch.arange(bags, device=device), torch.tensor(self.each, device=device))
        for p in self.parameters():
            p.requires_grad_(True)

    def parameters(self):
        return [self.v, self.u, self.w]

    def loop(self):
        """One bag after the other: CLAM, MIL-Lab, TRIDENT."""
        out = []
        for a, b in zip(self.offsets, self.offsets[1:]):
            x = self.x[a:b]
            score = F.linear(torch.tanh(F.linear(x, self.v)) * torch.sigmoid(F.linear(x, self.u)), self.w)
            out.append(torch.softmax(score.T, 1) @ x)
        return torch.cat(out)

    def flat(self):
        """One product for all bags, a softmax by segments, a product a bag."""
        t, s = F.linear(self.x, torch.cat([self.v, self.u])).chunk(2, -1)
        score = F.linear(torch.tanh(t) * torch.sigmoid(s), self.w).squeeze(-1).float()
        bags = len(self.each)
        top = torch.full((bags,), -torch.inf, device=score.device).scatter_reduce(0, self.segment, score.detach(), "amax")
        e = torch.exp(score - top[self.segment])
        total = torch.zeros(bags, device=score.device).index_add(0, self.segment, e)
        a = (e / total[self.segment]).to(self.x.dtype)
        return torch.stack([a[i:j] @ self.x[i:j] for i, j in zip(self.offsets, self.offsets[1:])])

    def oracle(self):
        out = []
        with torch.no_grad():
            v, u, w = (p.double() for p in self.parameters())
            for a, b in zip(self.offsets, self.offsets[1:]):
                x = self.x[a:b].double()
                score = F.linear(torch.tanh(F.linear(x, v)) * torch.sigmoid(F.linear(x, u)), w)
                out.append(torch.softmax(score.T, 1) @ x)
        return torch.cat(out)


class Tokens:
    """Token masks and mixed statistics of two modalities, as their description says."""

    def __init__(self, n1, n2, d, device):
        g = torch.Generator(device=device).manual_seed(0)
        self.f, self.g = (torch.randn(n, d, generator=g, device=device) for n in (n1, n2))

    def mixed(self, x, y):
        mean = lambda t: (t.mean(1, keepdim=True), (t.var(1, keepdim=True) + 1e-6).sqrt())
        (mx, sx), (my, sy) = mean(x), mean(y)
        donor = torch.randperm(len(y), device=x.device)
        donor = donor[torch.arange(len(x), device=x.device) % len(y)]
        share = torch.distributions.Beta(0.1, 0.1).sample((len(x), 1)).to(x.device)
        return (x - mx) / sx * (share * sx + (1 - share) * sy[donor]) + share * mx + (1 - share) * my[donor]

    def eager(self):
        keep = [(torch.rand(len(t), 1, device=t.device) >= 0.5) for t in (self.f, self.g)]
        f, g = self.f * keep[0], self.g * keep[1]
        return self.mixed(f, g), self.mixed(g, f)


def efron(log_risk, order, first, last, rank, event):
    """Efron's partial likelihood per event in linear time: patients by falling time, ties from first to last."""
    x = log_risk[order]
    top = x.detach().max()
    e = torch.exp(x - top)
    risk = torch.cumsum(e, 0)[last]
    died = torch.cumsum(e * event, 0)
    tied = died[last] - died[first] + (e * event)[first]
    terms = event * (torch.log(risk - rank * tied) + top - x)
    return terms.sum() / event.sum()


def cox_case(n, device):
    g = torch.Generator().manual_seed(0)
    time = torch.randint(1, 3651, (n,), generator=g)
    event = (torch.rand(n, generator=g) < 0.3).float()
    order = torch.argsort(time * 2 - event.long(), descending=True, stable=True)
    t, e = time[order], event[order]
    _, group, count = torch.unique_consecutive(t, return_inverse=True, return_counts=True)
    end = torch.cumsum(count, 0)
    first, last = (end - count)[group], (end - 1)[group]
    before = torch.cumsum(e, 0) - e
    deaths = torch.zeros(len(count)).index_add(0, group, e)
    rank = (before - before[first]) / deaths[group].clamp(min=1)
    log_risk = torch.randn(n, generator=g).to(device).requires_grad_(True)
    arguments = [v.to(device) for v in (order, first, last, rank, e)]
    return lambda: torch.autograd.grad(efron(log_risk, *arguments), log_risk)


def read_safetensors(path, device):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    types = {"F32": torch.float32, "F64": torch.float64, "BF16": torch.bfloat16, "F16": torch.float16, "U32": torch.int32}
    out = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            flat = torch.frombuffer(bytearray(data[start:end]), dtype=types[entry["dtype"]])
            out[name] = flat.reshape(entry["shape"]).to(device)
    return out


def off(got, want):
    return ((got.double() - want).norm() / want.norm()).item()


def exchanged(path, device):
    """The distance of onkos's results from float64 arithmetic on its own inputs, relative in the 2-norm."""
    t = read_safetensors(path, device)
    found = {}
    for mode in ("f32", "bf16"):
        case = Attention.__new__(Attention)
        case.x = t[f"attention.{mode}.x"]
        case.offsets = t["attention.offsets"].tolist()
        case.v, case.u, case.w = (t[f"attention.{p}"] for p in "vuw")
        found[f"attention_mil pooled {mode}"] = off(t[f"attention.{mode}.pooled"].squeeze(1), case.oracle())
    arguments = [t[f"cox.{name}"] for name in ("log_risk", "time", "event")]
    loss, grad = cox_oracle(*(a.double() for a in arguments))
    found["cox loss"] = off(t["cox.loss"].reshape(1), loss.reshape(1))
    found["cox gradient"] = off(t["cox.gradient"], grad)
    return found


def cox_oracle(x, time, event):
    """Efron in float64, group after group."""
    x = x.detach().requires_grad_(True)
    order = torch.argsort(time, descending=True, stable=True)
    xs, ts, es = x[order], time[order], event[order]
    top = xs.detach().max()
    e = torch.exp(xs - top)
    risk = torch.cumsum(e, 0)
    _, count = torch.unique_consecutive(ts, return_counts=True)
    total, start = x.new_zeros(()), 0
    for length in count.tolist():
        here = slice(start, start + length)
        deaths = int(es[here].sum())
        if deaths:
            tied = (e[here] * es[here]).sum()
            share = torch.arange(deaths, device=x.device, dtype=x.dtype) / deaths
            total = total + (torch.log(risk[start + length - 1] - share * tied) + top).sum() - (xs[here] * es[here]).sum()
        start += length
    loss = total / es.sum()
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--device", default="cuda")
    arguments.add_argument("--small", action="store_true", help="a thousandth of the shapes, to try this script")
    arguments.add_argument("--exchange", help="what the example 04_exchange wrote")
    arguments.add_argument("--out", default="-")
    a = arguments.parse_args()
    device, scale = torch.device(a.device), 1000 if a.small else 1
    samples = 3 if a.small else 11
    torch.backends.cuda.matmul.allow_tf32 = False
    rows, report = [], {"torch": torch.__version__}

    def row(case, way, make, compare=None):
        entry = {"case": case, "way": way}
        try:
            work = make()
            if compare:
                entry["error"] = compare(work())
            entry["seconds"] = timed(work, device, samples)
        except (RuntimeError, torch.OutOfMemoryError, torch._dynamo.exc.TorchDynamoException) as why:
            entry["failed"] = str(why).split("\n")[0][:200]
        rows.append(entry)
        print(entry, file=sys.stderr, flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()

    copied = torch.empty((1 << 30) // 4 // scale, device=device).normal_()
    to = torch.empty_like(copied)
    report["copy_gb_per_s"] = 2 * copied.nbytes / timed(lambda: to.copy_(copied), device, samples) / 1e9
    side = 8192 if scale == 1 else 256
    p, q = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    report["bf16_product_gflop_per_s"] = 2 * side**3 / timed(lambda: p @ q, device, samples) / 1e9
    del copied, to, p, q

    shapes = [(1_000_000, 100, 1024, 256, torch.bfloat16, "BF16", "/bf16"), (1_000_000, 100, 1024, 256, torch.float32, "F32", ""),
              (1_000_000, 5, 1024, 256, torch.bfloat16, "BF16", "/bf16")]
    for n, bags, l, d, dtype, name, products in shapes:
        n //= scale
        case = Attention(n, bags if n > 5000 else 5, l, d, dtype, device)
        oracle = case.oracle()
        label = f"attention_mil/N {n} B {bags} L {l} D {d} K 1/{name}"
        compiled = torch.compile(case.flat)
        for way, work in (("loop over bags", case.loop), ("flat", case.flat), ("flat, compiled", compiled)):
            def forward(work=work):
                with torch.no_grad():
                    return work()

            def both(work=work):
                return torch.autograd.grad(work().float().sum(), case.parameters())

            row(f"{label}/forward{products}", way, lambda: forward, lambda out: off(out, oracle))
            row(f"{label}/forward_backward{products}", way, lambda: both)
        del case, oracle, compiled

    for n in (100_000, 1_000_000):
        tokens = Tokens(331, n // scale, 256, device)
        label = f"cade/N 331 + {n // scale} D 256 B 1 masked/F32/forward"
        for way, work in (("eager", tokens.eager), ("compiled", torch.compile(tokens.eager))):
            row(label, way, lambda work=work: work)
        del tokens
    for n in (1000, 10_000, 1_000_000):
        row(f"cox/n {n} efron/F32/forward_backward", "linear Efron, presorted", lambda n=n: cox_case(n, device))
    for dtype, name, products in ((torch.float32, "F32", ""), (torch.bfloat16, "F32", "/bf16")):
        n = 1_000_000 // scale
        x, w = (torch.randn(*s, device=device).to(dtype) for s in ((n, 1024), (512, 1024)))
        row(f"linear/N {n} I 1024 O 512 relu/{name}/forward{products}", "F.linear and relu", lambda: lambda: F.relu(F.linear(x, w)))

    report["rows"] = rows
    if a.exchange:
        report["onkos_from_float64"] = exchanged(a.exchange, device)
    text = json.dumps(report, indent=1)
    if a.out == "-":
        print(text)
    else:
        with open(a.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


main()
