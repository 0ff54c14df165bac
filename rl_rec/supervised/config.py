"""Settings of supervised learning."""

from rl_rec.scoring.config import ExplorationSettings, ScoringSettings


class SupervisedSettings(ScoringSettings):
    """Everything that defines a supervised agent and how it learns; what it scores is what it learns."""

    exploration: ExplorationSettings = ExplorationSettings(sigma=0.0)
    """Behaviour of the rollouts; unused where the logs are learned from."""
