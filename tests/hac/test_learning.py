"""What HAC's critic learns by itself in a world whose answer is known."""

import pytest

from tests.agents.by_hand import RULES, make_module, reached, train

pytestmark = [pytest.mark.learning, pytest.mark.ray]

# Without supervision the actor must be slower than the critic: at equal step sizes it follows a critic that
# knows nothing yet into one slate for everybody, whose softmax is too sharp to leave it again.
CRITIC_ALONE = {
    "critic_hidden": (32,),
    "supervision_weight": 0.0,
    "alignment_weight": 0.0,
    "policy_weight": 1.0,
    "policy_action": "soft_effect",
    "policy_temperature": 0.5,
    "actor_lr": 5e-4,
    "critic_lr": 1e-2,
    "exploration": {"temperature": 1.0},
}


def test_the_critic_alone_tells_them_apart(two_kinds):
    module = make_module("hac", two_kinds, **CRITIC_ALONE)
    assert reached(two_kinds, train(module, two_kinds, RULES, 500)) > 0.8


def test_nothing_else_would_have(two_kinds):
    """Neither the world nor alignment gives the answer away."""
    module = make_module("hac", two_kinds, **{**CRITIC_ALONE, "policy_weight": 0.0, "alignment_weight": 0.1})
    assert reached(two_kinds, train(module, two_kinds, RULES, 200)) < 0.4
