"""Time, memory and error of semantic IDs for many items, beside faiss' residual quantizer."""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Group
from rich.table import Table

from envs.errors import UserError
from envs.progress import Progress
from envs.settings import Settings
from rl_rec.sids.codebook import SidSettings, fit_codebook

_COMPONENTS = 2000
_ROWS = 1 << 14
Decode = Callable[[slice], NDArray[np.float32]]
"""Gives some rows as their tokens stand for them."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class SidBenchSettings(Settings):
    """What is measured."""

    items: int = Field(1_000_000, ge=1)
    """Vectors."""
    dimensions: int = Field(64, ge=1)
    """Columns of the vectors."""
    threads: int = Field(1, ge=1)
    """Threads of the linear algebra, ours and faiss'."""
    seed: int = Field(0, ge=0)
    """Of the vectors."""
    beam: int = Field(5, ge=1, le=64)
    """Beam of our second variant; 5 is faiss' default."""
    sids: SidSettings = SidSettings(codebook_size=256)
    """Ours; levels and codebook_size hold for faiss too, whose codebooks are powers of two."""


def bench_sids(settings: SidBenchSettings, progress: Progress) -> dict[str, Any]:
    """Measure each variant in a process of its own: seconds to fit and encode all, peak memory, error.

    Raises:
        UserError: faiss is installed and the codebook's size is not a power of two.
    """
    has_faiss = find_spec("faiss") is not None
    size = settings.sids.codebook_size
    if has_faiss and size & (size - 1):
        raise UserError(
            f"codebook_size is {size}, and faiss needs a power of two: take {2 ** size.bit_length()}"
        )
    names = ["ours", f"ours_beam_{settings.beam}"]
    names += ["faiss_beam_1", "faiss_default"] if has_faiss else []
    variants = {}
    for done, name in enumerate(names):
        progress(done, len(names), name)
        variants[name] = _in_a_process(name, settings)
    progress(len(names), len(names))
    result: dict[str, Any] = {
        "benchmark": "sids",
        "items": settings.items,
        "dimensions": settings.dimensions,
        "levels": settings.sids.levels,
        "codebook_size": size,
        "threads": settings.threads,
        "data_mb": settings.items * settings.dimensions * 4 / 2**20,
        "variants": variants,
        "faiss": "measured" if has_faiss else "not installed: pip install -e '.[bench]' to compare",
    }
    if has_faiss:
        # Other processes take wall time, not CPU time; on several threads only the wall counts.
        unit = "cpu_s" if settings.threads == 1 else "wall_s"
        pairs = {"faiss_beam_1": "ours", "faiss_default": names[1]}
        result["compared_by"] = unit
        for theirs, own in pairs.items():
            result[f"{own}_to_{theirs}"] = {
                "time": variants[own][unit] / variants[theirs][unit],
                "error": variants[own]["error"] / variants[theirs]["error"],
                "peak_memory": variants[own]["peak_rss_mb"] / variants[theirs]["peak_rss_mb"],
            }
    return result


def sids_table(result: Mapping[str, Any]) -> Group:
    """What a person sees."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("wall s", "CPU s", "peak MB", "error", "of variance"):
        table.add_column(heading, justify="right")
    for name, figures in result["variants"].items():
        seconds = (f"{figures[key]:.1f}" for key in ("wall_s", "cpu_s"))
        rest = f"{figures['peak_rss_mb']:,.0f}", f"{figures['error']:.3f}", f"{figures['error_share']:.2%}"
        table.add_row(name.replace("_", " "), *seconds, *rest)
    what = (
        f"{result['items']:,} vectors of {result['dimensions']} ({result['data_mb']:,.0f} MB), "
        f"{result['levels']} x {result['codebook_size']} tokens, threads: {result['threads']}; "
        f"faiss: {result['faiss']}"
    )
    return Group(table, "", what)


def random_vectors(items: int, dimensions: int, seed: int) -> NDArray[np.float32]:
    """A mixture of normal clusters in correlated, standardised columns (N, F)."""
    rng = np.random.default_rng(seed)
    spectrum = 1.0 / np.sqrt(1.0 + np.arange(dimensions, dtype=np.float32))
    rotation = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0].astype(np.float32)
    clusters = rng.standard_normal((_COMPONENTS, dimensions), np.float32)
    vectors = np.empty((items, dimensions), np.float32)
    sums, squares = np.zeros(dimensions), np.zeros(dimensions)
    for start in range(0, items, _ROWS):
        rows = vectors[start : start + _ROWS]
        noise = rng.standard_normal(rows.shape, np.float32)
        rows[:] = ((clusters[rng.integers(_COMPONENTS, size=len(rows))] + noise) * spectrum) @ rotation
        sums += rows.sum(axis=0)
        squares += np.square(rows).sum(axis=0)
    mean = sums / items
    vectors -= mean.astype(np.float32)
    vectors /= np.sqrt(np.maximum(squares / items - mean**2, 1e-12)).astype(np.float32)
    return vectors


def _in_a_process(name: str, settings: SidBenchSettings) -> dict[str, float]:
    threads = dict.fromkeys(_THREADS, str(settings.threads))
    done = subprocess.run(
        [sys.executable, "-m", "rl_rec.bench.sids", name, settings.model_dump_json()],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RuntimeError(f"{name} failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(name: str, settings: SidBenchSettings) -> dict[str, float]:
    vectors = random_vectors(settings.items, settings.dimensions, settings.seed)
    run = _faiss if name.startswith("faiss") else _ours
    beam = None if name == "faiss_default" else 1 if name in ("ours", "faiss_beam_1") else settings.beam
    wall, cpu = time.perf_counter(), time.process_time()
    decode = run(vectors, settings, beam)
    wall_s, cpu_s, peak = time.perf_counter() - wall, time.process_time() - cpu, _peak_mb()
    error = variance = 0.0
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        error += float(np.square(vectors[rows] - decode(rows), dtype=np.float64).sum())
        variance += float(np.square(vectors[rows], dtype=np.float64).sum())
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "peak_rss_mb": peak,
        "error": error / len(vectors),
        "error_share": error / variance,
    }


def _ours(vectors: NDArray[np.float32], settings: SidBenchSettings, beam: int | None) -> Decode:
    chosen = settings.sids.model_copy(update={"beam": beam})
    codebook, tokens = fit_codebook(vectors, chosen, threads=settings.threads)  # its last pass encodes all
    return lambda rows: codebook.reconstruct(tokens[rows])


def _faiss(vectors: NDArray[np.float32], settings: SidBenchSettings, beam: int | None) -> Decode:
    import faiss

    faiss.omp_set_num_threads(settings.threads)
    bits = settings.sids.codebook_size.bit_length() - 1
    quantizer = faiss.ResidualQuantizer(settings.dimensions, settings.sids.levels, bits)
    if beam is not None:
        quantizer.max_beam_size = beam
    quantizer.train(vectors)
    codes = quantizer.compute_codes(vectors)
    return lambda rows: quantizer.decode(codes[rows])


def _peak_mb() -> float:
    try:  # what getrusage says includes the parent that this process was forked from
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    figures = _measure(sys.argv[1], SidBenchSettings.model_validate_json(sys.argv[2]))
    sys.stdout.write(json.dumps(figures) + "\n")
