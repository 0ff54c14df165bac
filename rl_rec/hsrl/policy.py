"""HSRL in a rollout: the tree is searched for the best slate, or slates are drawn from it."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from typing_extensions import Self

from envs.errors import UserError
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.hsrl.config import HSRLSettings
from rl_rec.hsrl.likelihood import first_occurrence, token_log_probs
from rl_rec.hsrl.networks import HSRLNetworks, State, Tables
from rl_rec.hsrl.search import Excluded, Found, search
from rl_rec.policy import Decision
from rl_rec.saved_networks import load_networks
from rl_rec.sids.codebook import Codebook
from rl_rec.sids.trie import Trie
from rl_rec.slates import sample_without_replacement, top_k
from rl_rec.user_inputs import num_user_inputs, user_inputs


class HSRLPolicy:
    """Serves slates with one set of HSRL weights.

    With ``noise`` it explores: K draws without replacement (stochastic beam search), with their
    log-probabilities stored; without, it shows the best K of the items that beam search finds, by
    ``settings.rank``.
    """

    def __init__(
        self,
        networks: HSRLNetworks,
        profiles: Tensor,
        trie: Trie,
        slate_size: int,
        forbid_repeats: bool,
        settings: HSRLSettings,
        noise: torch.Generator | None = None,
    ) -> None:
        """Arguments: as ``rl_rec.hsrl.losses.predict``; ``noise`` is the generator of the exploration."""
        self.networks, self.profiles, self.trie = networks, profiles, trie
        self.slate_size, self.forbid_repeats, self.settings = slate_size, forbid_repeats, settings
        self.noise = noise
        self._tables: Tables | None = None
        self._live: Tensor | None = None

    def weights_changed(self) -> None:
        """Forget what was computed from older weights."""
        self._tables = None

    @torch.no_grad()
    def act(self, observation: Observation) -> Decision:
        """Slates (B, K); when exploring, ``log_prob`` (B, K, L + 1) of their tokens."""
        policy, trie = self.networks.policy, self.trie
        if observation.live is not None and observation.live is not self._live:
            self._live = observation.live
            trie.set_live(observation.live)
            self._tables = None
        if self._tables is None:
            self._tables = policy.tables(trie)
        user = user_inputs(self.profiles, observation.user, observation.signals)
        state = policy.state(self._tables, user, observation.history)
        if self.noise is not None and self.settings.sigma:
            noise = torch.randn(state.mu.shape, generator=self.noise, device=state.mu.device)
            state = state._replace(mu=state.mu + self.settings.sigma * noise)
        slate, log_prob = self._choose(state, observation)
        return Decision(slate, {} if log_prob is None else {"log_prob": log_prob})

    def _choose(self, state: State, observation: Observation) -> tuple[Tensor, Tensor | None]:
        policy, tables, trie, noise = self.networks.policy, self._tables, self.trie, self.noise
        assert tables is not None
        excluded = observation.history if self.forbid_repeats else None
        candidates = observation.candidates
        by_score = noise is None and self.settings.rank == "score"
        beside: list[Tensor] | None = None  # log-probabilities of candidates or else of excluded items
        if candidates is not None:
            followed = policy.follow(state, tables, trie, candidates)
            beside = followed.log_joint
            best = self._of_candidates(followed.score if by_score else beside[-1], observation)
            found = Found(candidates.gather(1, best), [joint.gather(1, best) for joint in beside])
        else:
            gone = None
            if excluded is not None:
                beside = policy.follow(state, tables, trie, excluded).log_joint
                gone = Excluded(excluded, beside[-1], trie)
            width = self.settings.beam_width if noise is None else self.slate_size
            found = search(policy, state, tables, trie, self.slate_size, width, gone, noise, by_score)
        if noise is None:
            return found.items, None
        if self.settings.exclusions == "off":
            excluded, beside = None, None if candidates is None else beside
        log_joint = found.log_joint
        if beside is not None:
            log_joint = [torch.cat(pair, dim=1) for pair in zip(log_joint, beside, strict=True)]
        log_prob, _valid = token_log_probs(
            log_joint,
            trie,
            found.items,
            excluded,
            candidates,
            earlier_slots=self.settings.exclusions == "slots",
        )
        return found.items, log_prob

    def _of_candidates(self, values: Tensor, observation: Observation) -> Tensor:
        """Which of C candidates (B, K): the best, or draws. Each is scored, no tree is walked."""
        candidates = observation.candidates
        assert candidates is not None
        closed = ~(self.trie.live[candidates] & first_occurrence(candidates))
        if self.forbid_repeats:
            closed |= (candidates[:, :, None] == observation.history[:, None, :]).any(dim=2)
        scores = values.masked_fill(closed, float("-inf"))
        if self.noise is None:
            return top_k(scores, self.slate_size)
        return sample_without_replacement(scores, self.slate_size, 1.0, self.noise)

    @classmethod
    def load(
        cls, weights: Mapping[str, ArrayLike], world: World, rules: WorldSettings, settings: HSRLSettings
    ) -> Self:
        """The greedy policy of a saved ``HSRLModule``, with the semantic IDs it was trained on.

        Items that the world has beyond those are encoded into the same codebook.

        Args:
            weights: arrays by name, as saved.
            world: where it is to serve, with the features it was trained on.
            rules: that world's rules.
            settings: the agent's.

        Raises:
            UserError: the weights do not fit the world's features, its history length or the settings.
        """
        arrays = {name: np.asarray(array) for name, array in weights.items()}
        prefix = "networks.policy.centres_"
        centres = [
            arrays[f"{prefix}{level}"] for level in range(sum(name.startswith(prefix) for name in arrays))
        ]
        try:
            codebook = Codebook(
                arrays["sid_mean"], arrays["sid_scale"], tuple(centres), int(arrays["sid_beam"])
            )
            tokens = arrays["sid_tokens"]
        except KeyError as error:
            raise UserError(f"the run's weights hold no {error.args[0]}: they are not those of hsrl") from None
        users, items = num_user_inputs(world, rules, settings.encoder), world.item_features.shape[1]
        networks = HSRLNetworks(
            users, items, rules.history_length, [torch.from_numpy(c) for c in centres], settings
        )
        networks = load_networks(networks, weights, world, rules)
        if len(tokens) > world.num_items + 1:
            raise UserError(f"the run knows {len(tokens) - 1} items, this simulator has only {world.num_items}")
        new = world.item_features[len(tokens) :].cpu().numpy()
        if len(new):
            tokens = np.concatenate([tokens, codebook.encode(new)])
        trie = Trie(tokens, codebook.sizes, world.item_features)
        forbid = rules.repeats == "forbid"
        return cls(networks, world.profiles, trie, world.slate_size, forbid, settings)
