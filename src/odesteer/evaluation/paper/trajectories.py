"""Figure 2: the barrier along the trajectories of undesirable activations."""

import statistics

from odesteer.artifact import Steerer
from odesteer.evaluation.paper.experiments import Row
from odesteer.evaluation.paper.results import Line
from odesteer.evaluation.runner.plan import CompletionSpec, FoldItem
from odesteer.evaluation.runner.steerer_cache import SteererCache
from odesteer.evaluation.task import Fold, Task
from odesteer.methods import ODESteer
from odesteer.models import SteeredModel

N_TRAJECTORIES = 100


def barrier_along(
    lm: SteeredModel, task: Task, row: Row, fold: Fold, unseen: Fold, seed: int
) -> list[Line]:
    """h in nats after each step of the solver, from negatives of ``unseen``, which are not fitted.

    One line for each step: the mean over at most 100 trajectories and its standard deviation over
    them; ``n`` is the number of trajectories along which h rose in every step up to there.
    """
    setting = row.settings[0]
    item = FoldItem(fold, seed, fold.test[0])
    spec = CompletionSpec(task, row.contender, "test", setting, item, 0)
    steerer = SteererCache(lm, 16).steerer(spec)
    assert isinstance(steerer, Steerer)
    assert isinstance(steerer.method, ODESteer)
    negatives = unseen.fit.negative[:N_TRAJECTORIES]
    captured = lm.capture(negatives, setting.layer, task.capture_position)  # type: ignore[call-overload]
    path = steerer.method.trajectory(captured.states[setting.layer], T=setting.value)
    assert path.values is not None
    values = path.values.double()
    rises = (values.diff(dim=0) > 0).cumprod(dim=0).sum(dim=1).tolist()
    found = []
    for step, each in enumerate(values.tolist()):
        found.append(
            Line(
                row.name,
                str(setting),
                step / (len(values) - 1),
                "h",
                statistics.fmean(each),
                statistics.stdev(each) if len(each) > 1 else None,
                None,
                None,
                len(each) if step == 0 else int(rises[step - 1]),
                0,
            )
        )
    return found
