"""The models that are to be there before the first request, loaded side by side; on a terminal one can watch."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from corral.server.model_manager import ModelManager
from corral.store.local_model import LocalModel
from corral.worker.client import OnProgress


async def load_first(
    manager: ModelManager, pinned: Sequence[LocalModel], preloaded: Sequence[LocalModel], say: Callable[[str], None]
) -> None:
    """Loads all of them; raises what refused one."""
    with _progress() as progress_of:
        await asyncio.gather(
            *(
                manager.load(local, pin=is_pinned, on_plan=say, on_progress=progress_of(local.name))
                for models, is_pinned in ((pinned, True), (preloaded, False))
                for local in models
            )
        )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], OnProgress | None]]:
    """Bars on a terminal, one a model; nothing where nobody watches."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    columns = (TextColumn("loading {task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def progress_of(name: str) -> OnProgress:
            task = progress.add_task(name, total=None)
            return lambda done, total: progress.update(task, completed=done, total=total)

        yield progress_of
