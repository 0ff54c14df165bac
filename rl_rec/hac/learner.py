"""HAC's update as an RLlib Learner: one backward pass, one optimizer each for actor and critic."""

from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from torch import Tensor

from rl_rec.hac.losses import Predictions, Transitions, losses
from rl_rec.learner import OffPolicyLearner


class HACLearner(OffPolicyLearner):
    """The optimizers and losses of HAC; everything else is shared by the off-policy algorithms."""

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """Adam for encoder, hyper-actor and item encoder, and another for the critic."""
        module = self.module[module_id].unwrapped()
        run = self.config.train_settings()
        groups = {
            "actor": (module.networks.policy_parameters(), module.settings.actor_lr),
            "critic": (list(module.networks.critic.parameters()), module.settings.critic_lr),
        }
        for name, (parameters, lr) in groups.items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters, lr=lr, fused=True),
                params=parameters,
                lr_or_lr_schedule=[[0, lr], [run.steps, lr * run.lr_final]],
            )

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
