"""The sweeps that come with the package: one for each question that the papers raise."""

from tuning.search import Range, Search
from tuning.sweep import Case, Sweep, all_algorithms

_PLANS = (
    "agent.residual=1",
    "agent.exploration.sigma=1",
    "agent.policy_temperature=0.15",
    "agent.gamma=0.95",
    "agent.critic_lr=5e-3",
    "agent.tau=0.03",
)
"""What makes HAC plan where planning pays; chosen on validation users."""
_HSRL_TWO_HEADS = (
    "agent.residual=1",
    "agent.sigma=0.1",
    "agent.temperature=0.1",
    "agent.ratio_max=2",
    "agent.credit_unit=slate",
    "agent.gamma=0.95",
    "agent.critic_lr=5e-3",
    "agent.tau=0.03",
)
"""What comes nearest to letting HSRL plan; likewise."""


def _but(*changes: str) -> Case:
    return Case(set=(*_PLANS, *changes))


_EVERY: tuple[Sweep | Search, ...] = (
    Sweep(
        name="baselines",
        question="Which agent earns the highest return on the same budget?",
        cases=all_algorithms(),
        set=("evaluation.every=10000",),
    ),
    Sweep(
        name="exploration-variance",
        question="Which exploration variance serves HAC best, and is drawing the slate better than its top K?",
        grid={
            "agent.exploration.sigma": (0.0, 0.03, 0.1, 0.3, 1.0, 3.0),
            "agent.exploration.effect": ("categorical", "topk"),
        },
        compare_to="sigma0.1-categorical",
        set=("evaluation.every=0",),
    ),
    Sweep(
        name="alignment",
        question="How strongly should HAC align hyper-actions with the slates they choose?",
        grid={"agent.alignment_weight": (0.0, 1e-3, 1e-2, 0.1, 1.0)},
        compare_to="alignment_weight0.01",
        set=("evaluation.every=0",),
    ),
    Sweep(
        name="ablation-hac",
        question="What does each part of HAC contribute?",
        cases={
            "hac": Case(),
            "no-alignment": Case(set=("agent.alignment_weight=0",)),
            "no-critic": Case(set=("agent.policy_weight=0",)),
            "no-supervision": Case(set=("agent.supervision_weight=0",)),
            "critic-alone": Case(set=("agent.supervision_weight=0", "agent.alignment_weight=0")),
            "hyper-critic": Case(set=("agent.critic_action=hyper", "agent.policy_action=hyper")),
            "topk": Case(set=("agent.exploration.effect=topk",)),
            "supervised": Case(algorithm="supervised"),
            "ddpg": Case(algorithm="ddpg"),
        },
        set=("evaluation.every=0",),
    ),
    Sweep(
        name="ablation-hsrl",
        question="What does each part of HSRL contribute?",
        algorithm="hsrl",
        cases={
            "hsrl": Case(),
            "no-entropy": Case(set=("agent.entropy_weight=0",)),
            "no-hpn": Case(set=("agent.context=state",)),
            "no-mlc": Case(set=("agent.multi_level_critic=false",)),
            "cloning": Case(set=("agent.cloning_weight=0.1",)),
            "expected": Case(set=("agent.context=expected",)),
            "aggregate": Case(set=("agent.credit=aggregate",)),
            "slate-credit": Case(set=("agent.credit_unit=slate",)),
            "no-gradient": Case(set=("agent.policy_weight=0",)),
            "no-supervision": Case(set=("agent.supervision_weight=0", "agent.rank=probability")),
            "paper-heads": Case(set=("agent.node_scores=false", "agent.rank=probability")),
            "paper-heads-no-hpn": Case(
                set=("agent.node_scores=false", "agent.rank=probability", "agent.context=state")
            ),
        },
        set=("evaluation.every=0",),
    ),
    Sweep(
        name="planning",
        question="Where showing something today changes tomorrow: which agents plan, and what lets them do it?",
        cases={
            "hac-plans": Case(set=_PLANS),
            "one-head": _but("agent.residual=0"),
            "no-signals": _but("agent.encoder.signals=false"),
            "little-noise": _but("agent.exploration.sigma=0.1"),
            "hyper-critic": _but("agent.critic_action=hyper", "agent.policy_action=hyper"),
            "short-sighted": _but("agent.gamma=0"),
            "slow-critic": _but("agent.critic_lr=1e-3", "agent.tau=0.01"),
            "half-the-updates": _but("replay.ratio=2"),
            "hac": Case(),
            "hsrl-two-heads": Case(algorithm="hsrl", set=_HSRL_TWO_HEADS),
            "hsrl-one-head": Case(algorithm="hsrl", set=(*_HSRL_TWO_HEADS, "agent.residual=0")),
            "hsrl": Case(algorithm="hsrl"),
            "supervised": Case(algorithm="supervised"),
        },
        set=(
            "world.dynamics.allure=0.5",
            "world.dynamics.trust=3",
            "world.signals=true",
            "replay.ratio=4",
            "evaluation.every=0",
        ),
    ),
    Sweep(
        name="codebook",
        question="How many levels and tokens should HSRL's semantic IDs have?",
        algorithm="hsrl",
        grid={"agent.sid_codebook": (8, 16, 32, 64), "agent.sid_levels": (2, 3, 4)},
        compare_to="sid_codebook32-sid_levels3",
        set=("evaluation.every=0",),
    ),
    Sweep(
        name="entropy",
        question="How much entropy should HSRL's policy be paid for?",
        algorithm="hsrl",
        grid={"agent.entropy_weight": (0.0, 1e-3, 1e-2, 0.1, 1.0)},
        compare_to="entropy_weight0.01",
        set=("evaluation.every=0",),
    ),
    Search(
        name="learning-rates",
        question="Do other step sizes serve HAC better than its own?",
        space={
            "agent.actor_lr": Range(low=3e-4, high=3e-2, log=True),
            "agent.critic_lr": Range(low=1e-4, high=1e-2, log=True),
        },
        set=("evaluation.every=0",),
    ),
)

SWEEPS = {sweep.name: sweep for sweep in _EVERY}
"""By name."""
