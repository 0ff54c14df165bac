"""Names of everything a run reports, units in the name: one list for loggers, plots and tests.

RLlib puts the runners' figures under ``env_runners/``, the learner's under ``learners/default_policy/`` and the
evaluation's under ``evaluation/``.
"""

RETURN_MEAN = "episode_return_mean"
RETURN_STD = "episode_return_std"
DEPTH_MEAN = "episode_len_mean"
EPISODES = "num_episodes"
CLICK_RATE = "click_rate"
DISTINCT_ITEMS = "distinct_items"
OF_ROLLOUT = {
    "return_mean": RETURN_MEAN,
    "return_std": RETURN_STD,
    "depth_mean": DEPTH_MEAN,
    "click_rate": CLICK_RATE,
    "distinct_items": DISTINCT_ITEMS,
}
"""RLlib's names of what ``EpisodeStatistics`` counts."""

EVALUATION = "evaluation"

REPLAY_RATIO = "replay_ratio"
UPDATES_LIFETIME = "num_updates_lifetime"
USER_STEPS_PER_S = "user_steps_per_s"
ROLLOUT_S, REPLAY_S, UPDATE_S, SYNC_S = "time/rollout_s", "time/replay_s", "time/update_s", "time/sync_s"

UNSAVED = "checkpoint_unsaved"
"""In the result after a checkpoint that could not be stored: why."""
SAMPLE_LATENCY_S, SAMPLE_S = "time/sample_latency_s", "time/sample_s"
"""Of a remote runner's fragment, a mean: from the request to its arrival, and what of that the runner took."""
WEIGHTS_LATENCY_S = "time/weights_latency_s"
"""From sending weights to a remote runner having set them, a mean; it may be busy with fragments meanwhile."""
STALENESS_UPDATES = "staleness_updates"
"""Updates since those behind the weights that sampled, when a remote runner's fragment is taken; a mean."""
