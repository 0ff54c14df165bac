"""The Learner of every off-policy algorithm: update, targets, loss figures, NaN. Losses are the module's."""

import math
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from envs.memory import keep_freed_memory
from envs.randomness import restore, stream_seed
from rl_rec.rl_module import CRITIC, PREDICTIONS, RecommenderModule, placed
from rl_rec.transitions import Transitions


class NonFiniteLossError(RuntimeError):
    """A loss became NaN or infinite; training must not go on, and nothing is saved."""


class OffPolicyLearner(TorchLearner):
    """One backward pass over the sum of all terms, then every optimizer, then the targets.

    Differs from the papers' code, which runs the networks once per loss and steps between them: one pass costs
    a fraction, and all gradients use the weights from before the update.

    RLlib's default path builds a dictionary of gradients and checks each one, which costs as much as a small
    network's forward pass; here optimizers read ``.grad`` directly.
    """

    def build(self) -> None:
        """Build module, targets and the generator of the dropout masks."""
        keep_freed_memory()  # a process of its own where it is remote
        super().build()
        self._learners = self.config.num_learners
        self._tau = getattr(self.config.train_settings().agent, "tau", 0.0)
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._updates = 0  # lifetime
        self._scheduled = 0  # user-steps behind the learning rates
        self._seed = self.config.train_settings().seed
        seed = stream_seed(self._seed, self._learner_index or 0, 4)
        self._noise = torch.Generator(self.device).manual_seed(seed)
        for module_id in self.module.keys():  # noqa: SIM118 (not iterable itself)
            module = self._recommender(module_id)
            module.noise = self._noise
            self._period = module.policy_delay
            self._weights = list(module.networks.parameters())
            self._targets = list(module.targets.parameters()) if module.targets is not None else []
            self._critic = {
                optimizer for name, optimizer in self.get_optimizers_for_module(module_id) if name == CRITIC
            }

    def _make_module(self) -> MultiRLModule:
        placed(self._module_spec, self._device)
        return super()._make_module()

    def _make_modules_ddp_if_necessary(self) -> None:
        """Gradients are averaged below, in one message.

        DistributedDataParallel would send several, and needs a gradient for every parameter, which not every
        setting gives.
        """

    def _recommender(self, module_id: str) -> RecommenderModule:
        module = self.module[module_id].unwrapped()
        assert isinstance(module, RecommenderModule)
        return module

    def configure_optimizers_for_module(self, module_id: str, config: AlgorithmConfig | None = None) -> None:
        """One Adam for each of the module's groups of parameters."""
        run = self.config.train_settings()
        for name, (parameters, lr) in self._recommender(module_id).parameter_groups().items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters, lr=lr, fused=True),
                params=parameters,
                lr_or_lr_schedule=[[0, lr], [run.steps, lr * run.lr_final]],
            )

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        """Sum of the terms; figures are summed up on the device."""
        terms, watched = self._recommender(module_id).loss_terms(fwd_out[PREDICTIONS], Transitions(**batch))
        for name, value in {**{f"loss/{name}": term for name, term in terms.items()}, **watched}.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        return torch.stack(list(terms.values())).sum()

    def _uncompiled_update(self, batch: dict[str, Any], **_: Any) -> tuple[Any, Any, Any]:
        if self._learner_index:  # a checkpoint holds the first one's generator only
            self._noise.manual_seed(stream_seed(self._seed, self._learner_index, 4, self._updates))
        outputs = self.module.forward_train(batch)
        per_module = self.compute_losses(fwd_out=outputs, batch=batch)
        for optimizer in self._optimizer_parameters:
            optimizer.zero_grad(set_to_none=True)
        torch.stack(list(per_module.values())).sum().backward()
        if self._learners > 1:
            self._average_gradients()
        self._updates += 1
        with_policy = self._updates % self._period == 0
        for optimizer in self._optimizer_parameters:
            if with_policy or optimizer in self._critic:
                optimizer.step()
        if with_policy and self._targets:
            with torch.no_grad():
                torch._foreach_lerp_(self._targets, self._weights, self._tau)
        self._count += 1
        return outputs, per_module, {}

    def _average_gradients(self) -> None:
        """Every learner has an equal part of the batch: the mean of the gradients is the batch's.

        But for terms that are means over a part of the rows (cloning over clicks): there learners count alike.
        """
        gradients = [weights.grad for weights in self._weights if weights.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self._learners
        parts = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        """Let the learning rates fall."""
        super().after_gradient_based_update(timesteps=timesteps)
        self._scheduled = int(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))

    def drain_figures(self) -> dict[str, float]:
        """Mean losses and watched values since the last call.

        Raises:
            NonFiniteLossError: one of them, or a weight, is NaN or infinite.
        """
        if not self._count:
            return {}
        names = list(self._sums)
        means = (torch.stack([self._sums[name] for name in names]) / self._count).tolist()
        self._sums, self._count = {}, 0
        figures = dict(zip(names, means, strict=True))
        broken = [f"{name} ({value})" for name, value in figures.items() if not math.isfinite(value)]
        # A loss looks at the weights before its update: the last one may have broken them.
        finite = torch.stack([weights.isfinite().all() for weights in self._weights]).all()
        if not broken and not bool(finite):
            broken = ["the weights"]
        if broken:
            raise NonFiniteLossError(
                f"{', '.join(broken)} became NaN or infinite; lower the learning rates "
                "(agent.actor_lr, agent.critic_lr) in a new run: --resume keeps them"
            )
        return figures

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state, the dropout generator's, the number of updates and the schedule's place."""
        state = super().get_state(*args, **kwargs)
        state["noise"] = self._noise.get_state().numpy()
        state["updates"] = self._updates
        state["scheduled"] = self._scheduled
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over ``get_state``'s state."""
        super().set_state(state)
        if "noise" in state:
            self._updates = state.get("updates", 0)  # earlier releases saved none: they had no periods
            restore(self._noise, torch.as_tensor(state["noise"]))
        if "scheduled" in state:
            # The optimizers' state brings the saved rates along; what counts are those of the settings, which
            # population-based training changes between two checkpoints.
            self._scheduled = state["scheduled"]
            for optimizer, schedule in self._optimizer_lr_schedules.items():
                self._set_optimizer_lr(optimizer, lr=schedule.update(timestep=self._scheduled))
