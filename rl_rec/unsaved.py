"""Training on when a checkpoint cannot be stored: storage that is away costs a checkpoint, not the run."""

import shutil
import tempfile
from typing import Any

from ray.train._internal.session import _TrainingResult

from rl_rec.metrics import UNSAVED


class GoesOnUnsaved:
    """Mixin of a Tune trainable whose storage may be away.

    Tune fails a trial whose checkpoint cannot be uploaded. Here the trial goes on, its earlier checkpoint stays
    the newest, and the next result says why. The last checkpoint of all is what the run was for: without it the
    trial fails. So it does on a local disk, which does not come back by waiting.
    """

    _storage: Any
    _unsaved: str | None = None

    @property
    def trained(self) -> bool:
        """Whether all user-steps are done."""
        raise NotImplementedError

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Save a checkpoint, or note why not.

        Raises:
            OSError: the last one cannot be stored, or the storage is a local disk.
        """
        if self._storage is None or not self._storage.custom_fs_provided:
            return super().save(checkpoint_dir)  # type: ignore[misc]
        draft = checkpoint_dir or tempfile.mkdtemp()  # Tune would leave its own behind where it fails
        try:
            return super().save(draft)  # type: ignore[misc]
        except OSError as error:
            if self.trained:
                raise
            self._unsaved = str(error)
            return _TrainingResult(checkpoint=None, metrics={})  # Tune then keeps what it has
        finally:
            if checkpoint_dir is None:
                shutil.rmtree(draft, ignore_errors=True)

    def note_unsaved(self, result: dict[str, Any]) -> None:
        """Add to ``result`` why the latest checkpoint is missing, once."""
        if self._unsaved is not None:
            result[UNSAVED], self._unsaved = self._unsaved, None
