"""The stack launcher: all jobs of a sweep become runs of one call, which packs them into stacks.

Hydra's scan imports this module for every Hydra program of the environment, so only hydra is imported at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher

if TYPE_CHECKING:
    from tprnn.compose import Composer


class StackLauncher(Launcher):
    """Composes every job, then trains them all by one `run_all`. Writes nothing itself.

    Hydra's per-job callbacks (on_job_start, on_job_end) are not called, as jobs do not run one by one.
    """

    composer: Composer

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        from tprnn.compose import Composer

        self.composer = Composer.of_sweep(hydra_context.config_loader, config)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """One JobReturn for each job: its accuracy, or RunFailed. Raises UserError before anything is trained."""
        from tprnn.protocols.many import run_all
        from tprnn.train import job_value

        setup_globals()
        outcomes = run_all([self.composer.spec(overrides) for overrides in job_overrides])
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


# A plain mapping: Hydra's scan executes modules before it names them in sys.modules, which dataclasses do not bear.
# Stack size, workers and device are keys of the run's own config.
ConfigStore.instance().store(
    group="hydra/launcher", name="stack", node={"_target_": f"{__name__}.StackLauncher"}, provider="tprnn"
)
