"""The policy against plain loops over prefixes, its two ways to the same numbers, and the critic."""

import copy

import pytest
import torch

from rl_rec.hsrl.networks import HierarchicalPolicy, MultiLevelCritic

CONTEXTS = ["sampled", "expected", "state"]
RETIRED = torch.tensor([4, 7, 8, 11])
"""Some of a bucket, and for other seeds all of one."""


def retire(agent, items=RETIRED) -> list[int]:
    """Make some items of 12 unreachable; the others."""
    live = torch.ones(len(agent.features), dtype=torch.bool)
    live[items] = False
    agent.trie.set_live(live)
    return [item for item in range(1, len(live)) if live[item]]


def users(agent):
    """Two users: one without a history."""
    return agent.encode(torch.tensor([1, 4]), torch.tensor([[0, 0, 2, 5, 2], [0, 0, 0, 0, 0]]))


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("node_scores", [True, False])
@pytest.mark.parametrize("retired", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_paths_are_those_of_the_plain_policy(make_agent, plain_policy, context, node_scores, retired, seed):
    agent = make_agent(context=context, node_scores=node_scores, seed=seed, temperature=0.7)
    live = retire(agent) if retired else list(range(1, 13))
    state, tables = users(agent)
    items = torch.tensor([live, live])
    paths = agent.networks.policy.follow(state, tables, agent.trie, items, detailed=len(live))
    for row in range(2):
        leaves = plain_policy(agent, state.s[row], live)
        assert sorted(leaves) == live
        for place, item in enumerate(live):
            leaf = leaves[item]
            for level in range(4):
                expected = leaf.log_joint[level].item()
                assert paths.log_joint[level][row, place].item() == pytest.approx(expected, abs=1e-4)
            assert paths.score[row, place].item() == pytest.approx(leaf.score.item(), abs=1e-4)
            for level in range(3):
                torch.testing.assert_close(
                    paths.context[level][row, place], leaf.contexts[level].float(), atol=1e-4, rtol=1e-4
                )
            for level in range(2):
                entropy = leaf.entropy[level].item()
                assert paths.entropy[level][row, place].item() == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("node_scores", [True, False])
@pytest.mark.parametrize("sizes", [(1,), (4,), (2, 3, 2)])
def test_probabilities_of_the_live_items_sum_to_one(make_agent, context, node_scores, sizes):
    agent = make_agent(items=20, sizes=sizes, context=context, node_scores=node_scores)
    for gone in ([], [1, 2, 3, 9, 20], [9]):
        live = retire(agent, torch.tensor(gone, dtype=torch.int64))
        state, tables = users(agent)
        items = torch.tensor([live, live])
        p = agent.networks.policy.follow(state, tables, agent.trie, items).log_joint[-1].exp()
        torch.testing.assert_close(p.sum(dim=1).float(), torch.ones(2), atol=1e-5, rtol=0)
        assert (p > 0).all()


@pytest.mark.parametrize("context", CONTEXTS)
def test_gradients_are_those_of_the_plain_policy(make_agent, plain_policy, context):
    agent = make_agent(context=context)
    live = retire(agent)
    state, tables = users(agent)
    policy, weight = agent.networks.policy, torch.linspace(-1, 2, len(live))
    plain = copy.deepcopy(policy).double()
    agent.networks.zero_grad()
    paths = policy.follow(state, tables, agent.trie, torch.tensor([live, live]))
    (paths.log_joint[-1][0] * weight).sum().backward()
    leaves = plain_policy(agent, state.s[0].detach(), live, plain)
    sum(leaves[item].log_joint[-1] * w for item, w in zip(live, weight, strict=True)).backward()
    compared = 0
    for (name, parameter), other in zip(policy.named_parameters(), plain.parameters(), strict=True):
        if other.grad is not None and not name.startswith("encoder."):
            torch.testing.assert_close(parameter.grad, other.grad.float(), atol=1e-4, rtol=1e-3, msg=name)
            compared += bool(other.grad.any())
    assert compared >= 15


def test_a_fixed_width_changes_no_number(make_agent):
    agent = make_agent(sizes=(5, 4))
    padded = type(agent.trie)(agent.tokens, (5, 4), agent.features, fixed_width=True)
    assert padded.widths[:2] == [5, 4] > agent.trie.widths[:2]
    items = torch.arange(1, 13).expand(2, -1)
    state, tables = users(agent)
    a, b = (agent.networks.policy.follow(state, tables, trie, items, 12) for trie in (agent.trie, padded))
    for one, other in zip([*a.log_joint, *a.context, *a.entropy], [*b.log_joint, *b.context, *b.entropy]):  # noqa: B905
        torch.testing.assert_close(one, other)


def test_a_node_of_a_single_item_is_scored_as_that_item(make_agent):
    tokens = [[0, 0], [1, 0], [1, 1], [1, 1]]
    agent = make_agent(items=4, sizes=(2, 2), tokens=tokens)
    state, tables = agent.encode(torch.tensor([1, 4]), torch.tensor([[0, 0, 2, 3, 2], [0, 0, 0, 0, 0]]))
    root = agent.networks.policy.expand(
        state, tables, agent.trie, 0, torch.zeros(2, 1, dtype=torch.int64), state.s[:, None]
    )
    score = agent.networks.policy.follow(state, tables, agent.trie, torch.ones(2, 1, dtype=torch.int64)).score
    torch.testing.assert_close(root.logit[:, 0, :1], score)


def test_without_node_scores_only_tokens_count(make_agent):
    agent = make_agent(node_scores=False, context="state")
    policy = agent.networks.policy
    with torch.no_grad():
        for parameter in (*policy.heads.parameters(), *policy.free, *policy.centre_maps.parameters()):
            parameter.zero_()
    state, tables = users(agent)
    paths = policy.follow(state, tables, agent.trie, torch.arange(1, 13).expand(2, -1))
    first, second = agent.tokens[1:, 0], agent.tokens[1:, 1]
    siblings = [len(set(second[first == token])) for token in first]  # however many items are below each
    share = 1 / torch.tensor(siblings) / len(set(first))
    torch.testing.assert_close(paths.log_joint[2].exp().float(), share.expand(2, -1))


def test_one_item_nodes_learn_from_tokens_without_node_scores(make_agent):
    agent = make_agent(node_scores=False)
    state, tables = users(agent)
    paths = agent.networks.policy.follow(state, tables, agent.trie, torch.arange(1, 13).expand(2, -1))
    for head in agent.networks.policy.heads:
        (gradient,) = torch.autograd.grad(paths.log_joint[2][:, 0].sum(), head.weight, retain_graph=True)
        assert gradient.any()


def test_heads_begin_near_uniform_over_what_is_below(make_agent):
    agent = make_agent(spread=0.0, item_hidden=0)
    policy = agent.networks.policy
    with torch.no_grad():  # what items are scored with begins anywhere: apart from it
        for module in (policy.mu, policy.nu, policy.item_score):
            for parameter in module.parameters():
                parameter.zero_()
    state, tables = users(agent)
    p = policy.follow(state, tables, agent.trie, torch.arange(1, 13).expand(2, -1)).log_joint[-1].exp()
    torch.testing.assert_close(p, torch.full_like(p, 1 / 12), atol=0.02, rtol=0)


# --- two ways to the same numbers ---------------------------------------------------------------------


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("learning", [True, False])
def test_children_are_scored_the_same_by_one_matmul_and_by_gathering(make_agent, level, learning):
    """Sixteen parents at once need more scores than there are nodes below; one parent needs fewer."""
    agent = make_agent(items=30, sizes=(3, 3))
    generator = torch.Generator().manual_seed(0)
    node = torch.randint(agent.trie.nodes(level), (2, 16), generator=generator)
    context, up = torch.randn(2, 16, 4, generator=generator), None
    results = []
    for paths in (16, 1):
        agent.networks.zero_grad()
        with torch.set_grad_enabled(learning):
            state, tables = users(agent)
            parts = [
                agent.networks.policy.expand(state, tables, agent.trie, level, n, c)
                for n, c in zip(node.split(paths, dim=1), context.split(paths, dim=1), strict=True)
            ]
            log_prob = torch.cat([part.log_prob for part in parts], dim=1)
            log_prob = log_prob.masked_fill(~torch.cat([part.valid for part in parts], dim=1), 0.0)
        up = torch.randn(log_prob.shape, generator=generator) if up is None else up
        if learning:
            (log_prob * up).sum().backward()
        gradients = [p.grad for p in agent.networks.policy.parameters() if p.grad is not None]
        results.append([log_prob, *gradients])
    assert len(results[0]) == len(results[1]) and (len(results[0]) > 5) == learning
    for dense, gathered in zip(*results, strict=True):
        torch.testing.assert_close(dense, gathered, atol=1e-4, rtol=1e-4)


def test_nothing_is_of_size_users_by_items_where_few_are_asked_for(make_agent, largest_tensor):
    tokens = [[item // 4] for item in range(1000)]
    agent, rows = make_agent(items=1000, sizes=(250,), tokens=tokens), 200
    history, node = torch.zeros(rows, 5, dtype=torch.int64), torch.zeros(rows, 3, dtype=torch.int64)
    with torch.no_grad():
        state, tables = agent.encode(torch.zeros(rows, dtype=torch.int64), history)
        given = (state, tables, agent.trie, 1, node, state.s[:, None])
        assert largest_tensor(lambda: agent.networks.policy.expand(*given)) < rows * 1000 / 10


@pytest.mark.parametrize("retired", [False, True])
def test_buckets_are_the_same_all_at_once_and_one_by_one(make_agent, monkeypatch, retired):
    agent = make_agent(items=30)
    live = torch.ones(31, dtype=torch.bool)
    live[1:12] = not retired
    agent.trie.set_live(live)
    items = live[1:].nonzero().T.expand(2, -1) + 1
    one_by_one = []
    expand = HierarchicalPolicy.expand
    monkeypatch.setattr(
        HierarchicalPolicy,
        "expand",
        lambda self, *a: (one_by_one.append(a[3] == self.levels), expand(self, *a))[1],
    )
    up = torch.randn(2, items.shape[1], generator=torch.Generator().manual_seed(0))
    results = []
    for paths in (items.shape[1], 1):
        agent.networks.zero_grad()
        state, tables = users(agent)
        one_by_one.clear()
        monkeypatch.setattr("rl_rec.hsrl.networks._DENSE", 16 if paths > 1 else 0)
        parts = [
            agent.networks.policy.follow(state, tables, agent.trie, part) for part in items.split(paths, dim=1)
        ]
        assert any(one_by_one) == (paths == 1)
        joint = torch.cat([part.log_joint[-1] for part in parts], dim=1)
        score = torch.cat([part.score for part in parts], dim=1)
        ((joint + 0.5 * score) * up).sum().backward()
        gradients = [p.grad for p in agent.networks.policy.parameters() if p.grad is not None]
        results.append([joint, score, *gradients])
    assert len(results[0]) == len(results[1]) > 15
    for dense, gathered in zip(*results, strict=True):
        torch.testing.assert_close(dense, gathered, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("paths", [1, 8])
def test_a_bucket_far_below_the_best_one_keeps_its_own_distribution(make_agent, paths):
    """Shares of a bucket are its own affair, however improbable its items are beside another's."""
    tokens = [[0], [0], [1], [1], [1], [1], [1], [1]]
    agent = make_agent(items=8, sizes=(2,), tokens=tokens, item_hidden=0, temperature=1.0)
    policy = agent.networks.policy
    with torch.no_grad():
        for parameter in (policy.mu.weight, policy.mu.bias, policy.item_encoder.linear.bias):
            parameter.zero_()
        policy.mu.bias[0] = 1.0
        policy.item_encoder.linear.weight.zero_()
        policy.item_encoder.linear.weight[0, 0] = 1.0
        policy.item_score.weight.zero_()
        agent.features.zero_()
        agent.features[1:3, 0] = -60.0
    tables = policy.tables(agent.trie)
    state = policy.state(tables, agent.profiles[:1], torch.zeros(1, 5, dtype=torch.int64))
    items = torch.arange(1, 9)[None]
    parts = [policy.follow(state, tables, agent.trie, part) for part in items.split(paths, dim=1)]
    inside = torch.cat([part.log_joint[-1] - part.log_joint[-2] for part in parts], dim=1).exp()
    torch.testing.assert_close(inside.float(), torch.tensor([[1 / 2] * 2 + [1 / 6] * 6]))


# --- the critic ---------------------------------------------------------------------------------------


def test_each_level_has_a_value_of_its_own_context():
    critic, generator = MultiLevelCritic(4, (5, 3), 2), torch.Generator().manual_seed(0)
    contexts = [torch.randn(2, 6, 4, generator=generator) for _ in range(3)]
    values = critic(contexts)
    assert values.shape == (2, 6, 3)
    assert [len([m for m in value if isinstance(m, torch.nn.Linear)]) for value in critic.values] == [3] * 3
    for level in range(3):
        changed = list(contexts)
        changed[level] = contexts[level] + 1
        assert (critic(changed) != values).flatten(0, 1).any(dim=0).tolist() == [k == level for k in range(3)]


def test_weights_are_the_softmax_of_omega_equal_at_first():
    critic = MultiLevelCritic(4, (5,), 3)
    torch.testing.assert_close(critic.weights, torch.full((4,), 0.25))
    with torch.no_grad():
        critic.omega.copy_(torch.tensor([0.0, 1.0, 2.0, 3.0]).log1p())
    torch.testing.assert_close(critic.weights, torch.tensor([0.1, 0.2, 0.3, 0.4]))


def test_one_critic_reads_the_state_alone():
    critic = MultiLevelCritic(4, (5,), 0)
    contexts = [torch.randn(2, 3, 4) for _ in range(3)]
    assert critic(contexts).shape == (2, 3, 1) and critic.weights.tolist() == [1.0]
    torch.testing.assert_close(critic(contexts), critic(contexts[:1]))


def test_every_parameter_is_in_exactly_one_group(make_agent):
    networks = make_agent().networks
    grouped = [*networks.policy_parameters(), *networks.critic.parameters()]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in networks.parameters()}


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_every_weight_has_exactly_one_optimizer(make_agent, residual):
    networks = make_agent(residual=residual).networks
    groups = [networks.policy_parameters(), networks.residual_parameters(), list(networks.critic.parameters())]
    assert bool(groups[1]) == bool(residual)
    ids = [id(parameter) for group in groups for parameter in group]
    assert sorted(ids) == sorted(id(parameter) for parameter in networks.parameters())
