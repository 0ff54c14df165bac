"""A whole checkpoint verifies; a torn one names the file."""

import pytest

from envs.errors import UserError
from rl_rec.checkpoint import seal, verify


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "learner").mkdir()
    (tmp_path / "state.pkl").write_bytes(b"state")
    (tmp_path / "learner" / "weights.pkl").write_bytes(b"weights")
    seal(tmp_path)
    return tmp_path


def test_what_was_sealed_verifies(checkpoint):
    verify(checkpoint)


def test_hidden_files_of_others_do_not_matter(checkpoint):
    (checkpoint / ".metadata.pkl").write_bytes(b"Tune's")
    verify(checkpoint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"weight"),
        lambda file: file.write_bytes(b"wEights"),
        lambda file: file.unlink(),
        lambda file: file.with_name("weights.pkl2").write_bytes(b""),
    ],
    ids=["truncated", "changed", "missing", "extra"],
)
def test_damage_names_the_file(checkpoint, damage):
    damage(checkpoint / "learner" / "weights.pkl")
    with pytest.raises(UserError, match=r"learner/weights\.pkl") as problem:
        verify(checkpoint)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("manifest", [None, "", '{"state.pkl": ', "[]", "3", "null"])
def test_without_a_readable_manifest_it_is_not_whole(checkpoint, manifest):
    path = checkpoint / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    with pytest.raises(UserError):
        verify(checkpoint)
