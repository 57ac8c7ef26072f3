"""The grid sweeper: the cross product of the axes given on the command line and of the group `grid`.

Its settings and their defaults are conf/hydra/sweeper/grid.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus

from hydra_plugins.tprnn_stack.launcher import StackLauncher


class GridSweeper(BasicSweeper):
    """As the basic sweeper, but: checks all points before the first starts, writes no file, and one failed job
    never hides the others."""

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Launch every point. Raises UserError for a bad point, RunFailed at the end if any run failed."""
        from tprnn.compose import Composer

        assert self.config is not None
        assert self.hydra_context is not None
        assert self.launcher is not None
        self._check()
        if isinstance(self.launcher, StackLauncher):  # composes all points before it trains the first
            points = self.launcher.composer.expand([*self._parse_config(), *arguments])
        else:
            composer = Composer.of_sweep(self.hydra_context.config_loader, self.config)
            points = composer.expand([*self._parse_config(), *arguments])
            for point in points:
                composer.spec(point)
        size = self.max_batch_size or len(points)
        returns: list[Sequence[JobReturn]] = []
        for start in range(0, len(points), size):
            returns.append(self.launcher.launch(points[start : start + size], initial_job_idx=start))
        raise_failures([job for batch in returns for job in batch])
        return returns

    def _check(self) -> None:
        """Raise UserError for settings that cannot be."""
        from tprnn.errors import UserError

        size: Any = self.max_batch_size
        if size is not None and (type(size) is not int or size < 1):
            raise UserError(
                f"hydra.sweeper.max_batch_size: expected a whole number of at least 1 or null, got {size!r}"
            )
        if not isinstance(self.params, Mapping):
            raise UserError(f"hydra.sweeper.params: expected a mapping such as {{seed: '0,1'}}, got {self.params!r}")


def raise_failures(jobs: Sequence[Any]) -> None:
    """Raise what went wrong: an error that is no failed run first, then RunFailed, RunLeft if no run has failed."""
    from tprnn.sweep.returned import RunFailed, RunLeft

    # the property `return_value` would write a line for each job, where its run has said already what failed
    errors = [job._return_value for job in jobs if job.status != JobStatus.COMPLETED]
    for error in errors:
        if not isinstance(error, RunFailed):
            raise error
    if errors:
        only_left = all(isinstance(error, RunLeft) for error in errors)
        raise (RunLeft if only_left else RunFailed)(f"{len(errors)} of {len(jobs)} runs")
