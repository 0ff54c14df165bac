"""HAC's update as an RLlib Learner: one backward pass, one optimizer each for actor and critic."""

from typing import Any

from torch import Tensor

from rl_rec.hac.losses import Predictions, losses
from rl_rec.learner import OffPolicyLearner
from rl_rec.transitions import Transitions


class HACLearner(OffPolicyLearner):
    """The losses of HAC; everything else is shared by the off-policy algorithms."""

    def loss_terms(
        self, module_id: str, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Loss terms and watched values of one module."""
        module = self.module[module_id].unwrapped()
        predictions = Predictions(**outputs)
        watched: dict[str, Any] = {
            "q_mean": predictions.q.detach().mean(),
            "target_mean": predictions.target.mean(),
            "policy_q_mean": predictions.policy_q.detach().mean(),
            "hyper_action_norm": predictions.mu.detach().norm(dim=1).mean(),
        }
        return losses(predictions, Transitions(**batch), module.settings), watched
