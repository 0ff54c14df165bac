"""Commands that know from their parameters alone what cannot work."""

from collections.abc import Callable
from typing import Any

import click


class CheckedCommand(click.Command):
    """A command that refuses parameters which cannot work before it begins, and before it travels as a job.

    Args:
        check: gets the parameters by name and raises ``UserError``. It needs nothing else: where it is asked,
            neither the files nor the devices of the command's machine need be there.
    """

    def __init__(self, *arguments: Any, check: Callable[..., object], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.check = check

    def invoke(self, ctx: click.Context) -> Any:
        """Check, then run."""
        self.check(**ctx.params)
        return super().invoke(ctx)
