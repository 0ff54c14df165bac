"""What RLlib algorithms share whose agents score every item."""

from rl_rec.algorithm import OffPolicyAlgorithm
from rl_rec.scoring.config import ScoringSettings


class ScoringAlgorithm(OffPolicyAlgorithm):
    """Rollouts follow the schedule of the exploration's noise."""

    def exploration(self, user_steps: int) -> dict[str, float]:
        """σ of the hyper-action's noise."""
        agent = self._settings.agent
        assert isinstance(agent, ScoringSettings)
        return {"sigma": agent.exploration.sigma_at(user_steps)}
