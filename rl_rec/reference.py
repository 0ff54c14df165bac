"""The reference policies that stand in every table: random, popular, best constant ranking, myopic oracle."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.data.behaviours import positive
from envs.data.dataset import Dataset, Split
from envs.ensemble import uncertainty_cost
from envs.errors import UserError
from envs.progress import Progress, silent
from envs.randomness import stream_seed
from envs.reward import UNIT, best_clicks, slate_reward
from envs.simulator import Simulator
from envs.slot_weights import miss_value, slot_weights
from envs.transition import Observation
from envs.world import World
from envs.world_settings import WorldSettings
from rl_rec.evaluation import evaluate
from rl_rec.policy import Decision
from rl_rec.slates import mask_scores, top_k


class RandomPolicy:
    """Uniform over the items that may be shown."""

    def __init__(self, simulator: Simulator, generator: torch.Generator) -> None:
        self._shape = (simulator.num_users, simulator.world.num_items + 1)
        self._slate_size = simulator.world.slate_size
        self._forbid = simulator.settings.repeats == "forbid"
        self._generator = generator

    def act(self, observation: Observation) -> Decision:
        """K items drawn without replacement."""
        scores = torch.rand(self._shape, generator=self._generator, device=observation.user.device)
        return Decision(top_k(mask_scores(scores, observation, self._forbid), self._slate_size), {})


class RankingPolicy:
    """One fixed ranking of the catalogue for everybody: the best K that may still be shown."""

    def __init__(self, simulator: Simulator, scores: Tensor) -> None:
        """``scores``: (N + 1,) float, higher is better."""
        self._scores = scores
        self._slate_size = simulator.world.slate_size
        self._forbid = simulator.settings.repeats == "forbid"

    def act(self, observation: Observation) -> Decision:
        """The head of the ranking, without what may not be shown."""
        scores = self._scores.expand(observation.user.shape[0], -1).clone()
        return Decision(top_k(mask_scores(scores, observation, self._forbid), self._slate_size), {})


class OraclePolicy:
    """Knows the true response probabilities and looks one step ahead.

    The items with the highest expected value; for ``sweet_point``, where K clicks of 9 or 10 are one too many,
    the lowest one as a deliberate miss, where that earns more in expectation: where clicks are sure. (Always
    leaving a miss loses to a plain ranker where they are not.)
    """

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._forbid = simulator.settings.repeats == "forbid"
        slate_size = simulator.world.slate_size
        settings = simulator.settings
        miss = miss_value(settings)
        self._misses = slate_size - best_clicks(settings.reward, slate_size, miss)
        clicks = torch.arange(slate_size + 1, device=simulator.world.device)
        totals = UNIT * clicks + miss * (slate_size - clicks)
        self._reward = slate_reward(settings.reward, totals, slate_size)  # (K + 1,) by clicks

    def act(self, observation: Observation) -> Decision:
        """The best slate by what it is worth in expectation."""
        values = mask_scores(self._values(), observation, self._forbid)
        best = top_k(values, self._simulator.world.slate_size)
        if not self._misses:
            return Decision(best, {})
        p = self._chances()
        earned = expected_reward(p.gather(1, best), self._reward)
        lowest = top_k(-values.masked_fill(values.isinf(), float("inf")), self._misses)
        top = best
        for misses in range(1, self._misses + 1):
            slate = torch.cat([top[:, :-misses], lowest[:, :misses]], dim=1)
            reward = expected_reward(p.gather(1, slate), self._reward)
            best = torch.where((reward > earned)[:, None], slate, best)
            earned = torch.maximum(reward, earned)
        return Decision(best, {})

    def _chances(self) -> Tensor:
        """How likely the positive response to each item is: (B, N + 1)."""
        return self._simulator.probabilities()

    def _values(self) -> Tensor:
        """What each item's slot is worth in expectation: (B, N + 1)."""
        return self._simulator.expected_values()


def expected_reward(p: Tensor, reward: Tensor) -> Tensor:
    """Expected reward of slates whose slots are clicked independently.

    Args:
        p: (B, K) probabilities.
        reward: (K + 1,) by number of clicks.

    Returns:
        (B,).
    """
    chance = F.one_hot(torch.zeros(len(p), dtype=torch.int64, device=p.device), p.shape[1] + 1).to(p.dtype)
    for slot in p.split(1, dim=1):  # the chances of 0 … K clicks, slot by slot
        chance = chance * (1 - slot) + F.pad(chance[:, :-1], (1, 0)) * slot
    return chance @ reward


class PenalisedOracle(OraclePolicy):
    """The myopic oracle, were every positive response's logit lower by κ·c_i (``envs.dynamics``).

    Where clicks are all that counts, it shows the top K by logit_i − κ·c_i. With the right κ it comes near to
    the best policy where trust matters (``rl_rec.planning`` says how near).
    """

    def __init__(self, simulator: Simulator, penalty: float) -> None:
        """``penalty``: κ. The world must have dynamics.

        Raises:
            UserError: the rules are those of ``unplannable``.
        """
        super().__init__(simulator)
        world, settings = simulator.world, simulator.settings
        if why := unplannable(settings):
            raise UserError(f"the planner cannot rank here: {why}")
        self._penalty = penalty * simulator.trait
        self._miss = miss_value(settings) / UNIT
        self._weights = (slot_weights(world, settings) / UNIT).to(world.device)  # (N + 1, A)
        self._cost = uncertainty_cost(world.ensemble, settings.uncertainty_penalty)
        apart = [a for a in range(1, len(world.behaviours)) if not _needs_the_first(world, a)]
        self._apart = apart if self._weights[:, apart].any() else []

    def _chances(self) -> Tensor:
        return self._penalised(super()._chances())

    def _values(self) -> Tensor:
        p, rest = super()._chances(), self._without_response()
        return rest + (super()._values() - rest) * self._penalised(p) / p.clamp(min=1e-7)

    def _penalised(self, p: Tensor) -> Tensor:
        return (p.clamp(1e-7, 1 - 1e-7).logit() - self._penalty).sigmoid()

    def _without_response(self) -> Tensor:
        """What each slot is worth without the positive response and what needs it: (B, N + 1), or ()."""
        rest: Tensor = self._weights.new_tensor(self._miss)
        if self._cost is not None:
            rest = rest - self._cost.of_all(self._simulator.user, self._simulator.history)
        if self._apart:
            world = self._simulator.world
            vectors = world.response.user_vectors(self._simulator.user, self._simulator.history)
            p = world.response.all_logits(vectors).sigmoid_()  # (A, B, N + 1)
            for behaviour, parent in enumerate(world.parents):
                if parent is not None:
                    p[behaviour] *= p[parent]
            rest = rest + torch.einsum("abn,na->bn", p[self._apart], self._weights[:, self._apart])
        return rest


def unplannable(settings: WorldSettings) -> str | None:
    """Why ``PenalisedOracle`` cannot rank under these rules, if so."""
    if not settings.dynamics.trust:
        return "it needs a world with trust, e.g. --set world.dynamics.trust=3"
    if settings.dynamics.drift and settings.weights:
        return "world.weights and world.dynamics.drift together hide what responses are worth: drop one"
    return None


def _needs_the_first(world: World, behaviour: int) -> bool:
    parent = world.parents[behaviour]
    return parent is not None and (parent == 0 or _needs_the_first(world, parent))


def search_penalty(
    world: World, settings: WorldSettings, seed: int, *, users: int = 512, progress: Progress = silent
) -> float:
    """The κ of ``PenalisedOracle`` that earns most with the users of ``world`` (give validation users).

    Args:
        world: where each is tried.
        settings: its rules, with dynamics.
        seed: of users and responses.
        users: users who try each.
        progress: called after each.
    """
    tried = [step / 4 for step in range(17)]  # 0 … 4: at 0 it is the myopic oracle
    reached = []
    for kappa in tried:
        policy = partial(PenalisedOracle, penalty=kappa)
        reached.append(evaluate(world, settings, policy, users, seed, returns_only=True).return_mean)
        progress(len(reached), len(tried), f"penalty {kappa:g}: return {reached[-1]:.2f}")
    return tried[max(range(len(tried)), key=reached.__getitem__)]


def popularity(dataset: Dataset, device: torch.device | str = "cpu") -> Tensor:
    """How often training users liked each item: (N + 1,) float."""
    sessions = dataset.sessions_in(Split.TRAIN)
    liked = torch.from_numpy(
        dataset.session_items[sessions][positive(dataset.session_feedback[sessions])]
    ).long()
    return torch.bincount(liked, minlength=dataset.items + 1).float().to(device)


def search_ranking(
    world: World,
    settings: WorldSettings,
    start: Tensor,
    seed: int,
    *,
    users: int = 512,
    rounds: int = 8,
    population: int = 12,
    progress: Progress = silent,
) -> Tensor:
    """The best constant ranking, by search on return over the world's users (give a world of training users).

    Begins with ``start`` and with rankings by mean response probability in the states that the best ranking so
    far leads to; then a cross-entropy search perturbs the best one. All rankings of a round meet the same users
    and random numbers.

    Args:
        world: where the rankings are tried.
        settings: its rules.
        start: (N + 1,) scores of a ranking to begin with.
        seed: of users, responses and perturbations.
        users: users who try each ranking.
        rounds: rounds of the cross-entropy search.
        population: rankings tried per round.
        progress: called after every round.

    Returns:
        (N + 1,) float scores.
    """
    generator = torch.Generator(world.device).manual_seed(stream_seed(seed, 2))

    def reached(scores: Tensor) -> float:
        def rank(simulator: Simulator) -> RankingPolicy:
            return RankingPolicy(simulator, scores)

        return evaluate(world, settings, rank, users, seed, returns_only=True).return_mean

    best, value = start, reached(start)
    for _ in range(4):
        logits = _mean_probability_logits(world, settings, best, users, seed)
        if (again := reached(logits)) <= value:
            break
        best, value = logits, again
    # On the scale of logits, whatever `best` is: its order with sorted logits.
    centre = torch.empty_like(logits)
    centre[best.argsort(descending=True)] = logits.sort(descending=True).values

    width, elite = 0.5, max(population // 4, 1)
    for step in range(rounds):
        noise = torch.randn(population, len(centre), generator=generator, device=world.device)
        noise[0] = 0.0
        tried = centre + width * noise
        values = torch.tensor([reached(scores) for scores in tried])
        if float(values.max()) > value:
            best, value = tried[int(values.argmax())], float(values.max())
        centre = tried[values.topk(elite).indices.to(tried.device)].mean(dim=0)
        width *= 0.8
        progress(step + 1, rounds, f"best constant ranking so far: return {value:.2f}")
    # A mean of good rankings beats its lucky members on other users, so it is compared on equal terms.
    return centre if reached(centre) >= value else best


def _mean_probability_logits(
    world: World, settings: WorldSettings, ranking: Tensor, users: int, seed: int
) -> Tensor:
    """Logit of the mean response probability of each item, over the states that ``ranking`` leads to."""
    simulator = Simulator(world, settings, users, stream_seed(seed, 3))
    policy = RankingPolicy(simulator, ranking)
    total = torch.zeros_like(ranking)
    for _ in range(settings.max_steps):
        total += simulator.probabilities().mean(dim=0)
        simulator.step(policy.act(simulator.observation).slate)
    return (total / settings.max_steps).clamp(1e-6, 1 - 1e-6).logit()
