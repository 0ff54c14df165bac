"""HSRL's update as an RLlib Learner: one backward pass, one optimizer each for policy and critics."""

from typing import Any

from torch import Tensor

from rl_rec.hsrl.losses import Predictions, losses
from rl_rec.learner import OffPolicyLearner
from rl_rec.transitions import Transitions


class HSRLLearner(OffPolicyLearner):
    """The losses of HSRL; everything else is shared by the off-policy algorithms."""

    def loss_terms(
        self, module_id: str, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms and watched values of one module."""
        module = self.module[module_id].unwrapped()
        predictions, transitions = Predictions(**outputs), Transitions(**batch)
        watched: dict[str, Any] = {
            "value_mean": predictions.values.detach().mean(),
            "future_mean": predictions.future.mean(),
            "entropy": predictions.entropy.detach().mean(),
        }
        if transitions.log_prob is not None:
            joint = predictions.log_prob.detach().sum(dim=-1) - transitions.log_prob.sum(dim=-1)
            ratio = joint.clamp(max=3.0).exp() * predictions.valid
            watched["ratio_mean"] = ratio.sum() / predictions.valid.sum().clamp(min=1)
        for level, weight in enumerate(predictions.weights.detach()):
            watched[f"critic_weight_{level}"] = weight
        return losses(predictions, transitions, module.settings), watched
