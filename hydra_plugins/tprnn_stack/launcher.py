"""The stack launcher: all jobs of a sweep become runs of one call, which packs them into stacks.

Its settings and their defaults are conf/hydra/launcher/stack.yaml; they are checked before any point is composed.

Hydra's scan imports this module for every Hydra program of the environment, so only hydra is imported at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from tprnn.compose import Composer
    from tprnn.sweep.executors.jobs import JobSettings


class StackLauncher(Launcher):
    """Composes every job, then trains them all by one `run_all`, by the executor of its settings.

    Hydra's per-job callbacks (on_job_start, on_job_end) are not called, as jobs do not run one by one.
    """

    composer: Composer
    settings: JobSettings

    def __init__(self, **values: Any) -> None:
        """Hydra gives the settings here; `setup` reads them from the config instead, as plain containers."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Take the settings. Raises UserError for settings that cannot be."""
        from tprnn.compose import Composer, plain
        from tprnn.sweep.executors.jobs import read_settings

        self.settings = read_settings(plain(config.hydra.launcher))
        self.composer = Composer.of_sweep(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn for each job: its accuracy, or RunFailed; no value for what is only handed over.

        Raises UserError before anything is trained.
        """
        from tprnn.sweep.executors.connect import connect
        from tprnn.sweep.returned import job_value
        from tprnn.sweep.run import run_all

        setup_globals()
        specs = [self.composer.spec(overrides) for overrides in job_overrides]
        outcomes = run_all(specs, connect(self.settings, specs[0].execution)) if specs else []
        returns = []
        for overrides, outcome in zip(job_overrides, outcomes, strict=True):
            done = JobReturn(overrides=overrides, task_name="train")
            try:
                done.return_value = job_value(outcome)
                done.status = JobStatus.COMPLETED
            except Exception as error:
                done.return_value = error
                done.status = JobStatus.FAILED
            returns.append(done)
        return returns
