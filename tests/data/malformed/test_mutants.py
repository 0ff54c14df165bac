"""Whatever random damage does to good files: a valid dataset, or one line that refuses it.

``RL_REC_MUTANTS=5000`` tries so many of every loader, seeded by ``RL_REC_MUTANTS_SEED``; a few by default.
"""

import json
import os
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from envs.data.layout import check_layout
from tests.data.malformed.good import LOADERS, good_files, lay_out, run
from tests.data.malformed.mutants import mutants

EXAMPLES = int(os.environ.get("RL_REC_MUTANTS", "6"))
SEED = int(os.environ.get("RL_REC_MUTANTS_SEED", "0"))
LONGEST_S = 30.0


@pytest.mark.parametrize("name", LOADERS)
def test_damaged_files_make_a_valid_dataset_or_one_line(name: str, tmp_path: Path) -> None:
    files, outcomes = good_files(name, tmp_path / "good"), Counter[str]()
    good = run(name, lay_out(files, tmp_path / "raw"), tmp_path / "out").dataset
    assert good is not None

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @given(mutants(name, files), st.sampled_from([0, 3]))
    def check(mutant: dict[str, bytes], skip: int) -> None:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        raw = lay_out(mutant, folder / "raw")
        started_s = time.process_time()  # a busy machine proves nothing
        outcome = run(name, raw, folder / "out", *(("--skip-bad-rows", str(skip)) if skip else ()))
        assert time.process_time() - started_s < LONGEST_S
        if outcome.dataset is None:
            outcomes["refused"] += 1
        else:
            check_layout(outcome.dataset)
            skipped = sum(file["skipped"] for file in outcome.dataset.source["bad_rows"].values())
            assert skipped <= skip
            same = "unchanged" if outcome.dataset.fingerprint == good.fingerprint else "with other values"
            outcomes["accepted with rows skipped" if skipped else f"accepted {same}"] += 1
        shutil.rmtree(folder)

    check()
    print(json.dumps({"loader": name, "mutants": sum(outcomes.values()), **outcomes}))
