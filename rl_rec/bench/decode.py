"""Time and memory of choosing slates from states: HSRL's tree beside HAC's scores, for catalogues of any size.

Semantic IDs, features, weights and states are random. Tables are made once, as when serving; the encoder is not
measured. Each catalogue has a process of its own, in which the smallest one takes turns with it: ratios do not
mix the noise of different minutes.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from rich.console import Group
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from envs.progress import Progress, silent
from envs.randomness import seeded_weights, stream_seed
from envs.settings import Settings
from rl_rec.bench.measure import Rounds, measure, median_ratio
from rl_rec.encoder_settings import EncoderSettings
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.networks import HSRLNetworks, Tables
from rl_rec.hsrl.search import search
from rl_rec.sids.trie import Trie

_BATCHES = 16
"""Batches of states that take turns: the same one again would find its part of the tree in the cache."""
PADDINGS: tuple[Literal["fixed", "fitted"], ...] = ("fixed", "fitted")


class DecodeSettings(Settings):
    """What is measured."""

    items: tuple[Annotated[int, Field(ge=2)], ...] = Field(
        (1_000, 10_000, 100_000, 1_000_000, 10_000_000), min_length=1
    )
    """Catalogue sizes N; the smallest is what the others are compared with."""
    paddings: tuple[Literal["fixed", "fitted"], ...] = Field(PADDINGS, min_length=1)
    """``fixed``: a node's children padded to V, so that the work does not depend on the catalogue; ``fitted``:
    to the most children of any node of the level."""
    users: int = Field(64, ge=1)
    """Slates B chosen at once."""
    slate: int = Field(9, ge=1)
    """Slate size K."""
    levels: int = Field(3, ge=1, le=16)
    """Levels L of the semantic IDs."""
    codebook_size: int = Field(256, ge=1)
    """Tokens V of each level."""
    features: int = Field(8, ge=1)
    """Item features F; they matter while tables are made, not while decoding."""
    dim: int = Field(32, ge=1)
    """Width D of states and embeddings."""
    beam_width: int = Field(HSRLSettings().beam_width, ge=1)
    """Prefixes kept per level by the wider beam search; the narrow one keeps K."""
    repeats: int = Field(7, ge=1)
    """Rounds; medians are reported."""
    threads: int = Field(1, ge=1)
    """Threads of torch."""
    seed: int = Field(0, ge=0)
    """Seed of everything."""


def bench_decode(settings: DecodeSettings, progress: Progress) -> dict[str, Any]:
    """For each padding and catalogue: ms per slate, peak bytes while decoding, bytes and seconds of tables."""
    sizes = sorted(set(settings.items))
    runs = [(padding, items) for padding in settings.paddings for items in sizes]
    figures: dict[str, dict[str, Any]] = {padding: {} for padding in settings.paddings}
    for done, (padding, items) in enumerate(runs):
        progress(done, len(runs), f"{items:,} items, {padding} padding")
        figures[padding][str(items)] = _in_a_process(padding, items, settings)
    progress(len(runs), len(runs))
    return {
        "benchmark": "decode",
        **settings.model_dump(mode="json", exclude={"items", "paddings", "seed"}),
        "items": sizes,
        "padding": figures,
        "cheaper_than_hac_from": {
            padding: {
                name: crossing(
                    {int(n): of[name]["ms_per_slate"] / of["hac"]["ms_per_slate"] for n, of in by.items()}
                )
                for name in VARIANTS
                if name != "hac"
            }
            for padding, by in figures.items()
        },
    }


def crossing(ratios: Mapping[int, float]) -> float | None:
    """Where a ratio by catalogue size falls to 1, interpolated in logarithms; ``None``: nowhere measured."""
    points = sorted(ratios.items())
    if points[0][1] <= 1:
        return float(points[0][0])
    for (below, high), (above, low) in pairwise(points):
        if low <= 1:
            share = math.log(high) / (math.log(high) - math.log(low))
            return below * (above / below) ** share
    return None


_PADDED = {
    "fixed": "fixed padding: a node's children padded to V, the same work for any catalogue",
    "fitted": "fitted padding: to the most children of any node",
}


def decode_table(result: Mapping[str, Any]) -> Group:
    """What a person sees."""
    parts: list[Any] = []
    for padding, by_size in result["padding"].items():
        table = Table(box=None, pad_edge=False, title=_PADDED[padding], title_justify="left")
        for heading in ("N", *VARIANTS.values(), "tables MiB", "built s"):
            table.add_column(heading, justify="right")
        for items, figures in by_size.items():
            cells = [
                f"{of['ms_per_slate']:.3g}\n{of['ratio_to_smallest']:.2f}x\n{of['peak_bytes'] / 2**20:,.1f} MiB"
                for of in (figures[name] for name in VARIANTS)
            ]
            table.add_row(
                f"{int(items):,}", *cells, f"{figures['table_bytes'] / 2**20:,.0f}", f"{figures['built_s']:.1f}"
            )
        crossings = ", ".join(
            f"{VARIANTS[name]} from {items:,.0f} items" if items else f"{VARIANTS[name]} at no size measured"
            for name, items in result["cheaper_than_hac_from"][padding].items()
        )
        parts += [table, f"cheaper than HAC: {crossings}", ""]
    what = (
        f"ms per slate (CPU time), how many times the smallest N's in the same rounds, peak memory added; "
        f"B {result['users']}, K {result['slate']}, {result['levels']} x {result['codebook_size']} tokens, "
        f"D {result['dim']}, wide beam {result['beam_width']}, threads: {result['threads']}"
    )
    return Group(*parts, what)


VARIANTS = {"beam_k": "beam K", "beam_wide": "wide beam", "sampled": "draws", "hac": "HAC"}
"""What is measured: beam search, a wider one, draws without replacement (their beam is K), and all scores."""


class Decoder:
    """A random catalogue, its tables, and each variant's work on a batch of states."""

    def __init__(self, items: int, padding: str, settings: DecodeSettings) -> None:
        began = time.perf_counter()
        self.settings = settings
        rng = np.random.default_rng([settings.seed, items])
        size = settings.codebook_size
        tokens = rng.integers(size, size=(items + 1, settings.levels), dtype=np.int32)
        features = torch.from_numpy(rng.standard_normal((items + 1, settings.features), np.float32))
        sizes = (size,) * settings.levels
        self.trie = Trie(tokens, sizes, features, fixed_width=padding == "fixed")
        del tokens
        agent = HSRLSettings(encoder=EncoderSettings(dim=settings.dim, heads=1))
        centres = [torch.from_numpy(rng.standard_normal((v, settings.features), np.float32)) for v in sizes]
        with seeded_weights(stream_seed(settings.seed, 3)):
            self.policy = HSRLNetworks(1, settings.features, 1, centres, agent).policy
        with torch.no_grad():
            self.tables: Tables = self.policy.tables(self.trie)
            states = [
                torch.from_numpy(rng.standard_normal((settings.users, settings.dim), np.float32))
                for _ in range(_BATCHES)
            ]
            self.states = [self.policy.heads_of(s, torch.zeros(len(s), 1)) for s in states]
        # HAC's table of the same width: a row per item, and padding.
        self.phi = F.pad(self.tables.rows[-1][:, : settings.dim], (0, 0, 1, 0))  # (N + 1, D)
        self.noise = torch.Generator().manual_seed(settings.seed)
        self.built_s = time.perf_counter() - began
        self._turn = 0

    def nbytes(self) -> dict[str, int]:
        """Bytes that each side keeps: the tree and its tables; one row per item."""
        tensors = [x for field in self.tables for x in (field if isinstance(field, list) else [field])]
        return {
            "table_bytes": self.trie.nbytes() + sum(t.nbytes for t in tensors),
            "hac_table_bytes": self.phi.nbytes,
        }

    def decode(self, variant: str) -> Tensor:
        """Slates (B, K) for the next batch of states."""
        state = self.states[self._turn % _BATCHES]
        self._turn += 1
        slate = self.settings.slate
        if variant == "hac":
            return (state.mu @ self.phi.T).topk(slate, dim=1).indices
        width = self.settings.beam_width if variant == "beam_wide" else slate
        noise = self.noise if variant == "sampled" else None
        return search(self.policy, state, self.tables, self.trie, slate, width, noise=noise).items

    def peak_bytes(self, variant: str) -> int:
        """The most that is allocated at once while decoding, beside what was there before."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            slate = self.decode(variant)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "trace.json"
            watched.export_chrome_trace(str(path))
            events = [e for e in json.loads(path.read_text())["traceEvents"] if e.get("name") == "[memory]"]
        del slate
        events.sort(key=lambda event: event["ts"])
        now = peak = 0
        for event in events:
            now += event["args"]["Bytes"]
            peak = max(peak, now)
        return peak


def measure_decode(padding: str, items: int, settings: DecodeSettings) -> dict[str, Any]:
    """Figures of one catalogue, with the smallest one in the same rounds."""
    torch.set_num_threads(settings.threads)
    decoder = Decoder(items, padding, settings)
    smallest = min(settings.items)
    reference = decoder if items == smallest else Decoder(smallest, padding, settings)
    result: dict[str, Any] = {
        **decoder.nbytes(),
        "built_s": decoder.built_s,
        "nodes": [decoder.trie.nodes(level) for level in range(settings.levels + 2)],
        "widths": decoder.trie.widths,
    }
    for name in VARIANTS:
        peak = decoder.peak_bytes(name)
        work: dict[str, Callable[[], int]] = {"own": _work(decoder, name)}
        if reference is not decoder:
            work["smallest"] = _work(reference, name)
        rounds = measure(work, settings.repeats, "cpu", silent)
        result[name] = {
            "ms_per_slate": _ms(rounds["own"], settings),
            "ratio_to_smallest": 1.0
            if reference is decoder
            else median_ratio(rounds["smallest"], rounds["own"], settings.threads == 1),
            "peak_bytes": peak,
        }
    return result


def _work(decoder: Decoder, variant: str) -> Callable[[], int]:
    def run() -> int:
        decoder.decode(variant)
        return decoder.settings.users

    return run


def _ms(rounds: Rounds, settings: DecodeSettings) -> float:
    summary = rounds.summary()
    key = "user_steps_per_cpu_s" if settings.threads == 1 else "user_steps_per_s"
    return 1e3 / summary[key]


def _in_a_process(padding: str, items: int, settings: DecodeSettings) -> dict[str, Any]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(settings.threads))
    done = subprocess.run(
        [sys.executable, "-m", "rl_rec.bench.decode", padding, str(items), settings.model_dump_json()],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"{items} items with {padding} padding failed: {reason}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    chosen = DecodeSettings.model_validate_json(sys.argv[3])
    sys.stdout.write(json.dumps(measure_decode(sys.argv[1], int(sys.argv[2]), chosen)) + "\n")
