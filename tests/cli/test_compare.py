"""`rl-rec compare` on a small world: what it prints and refuses."""

import json

from rl_rec.cli.main import main


def test_two_runs_are_compared(make_run, capsys):
    a, b = make_run(seed=1), make_run(seed=2)
    capsys.readouterr()
    command = ["compare", str(a), str(b), "--days", "2", "--visits", "60", "--share", "0.3"]
    assert main([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["visits"] == 120 and set(result["metrics"]) == {"return", "click_rate", "depth"}
    assert len(result["segments"]) == 6 and len(result["by_day"]) == 2
    assert main(command) == 0
    said = capsys.readouterr().out
    assert (
        "120 visits, test users" in said
        and "A live test of these visits" in said
        and "likes: like much" in said
        and said.splitlines()[-1].startswith("This compares two runs, not two methods")
    )


def test_a_run_against_itself_lifts_nothing(make_run, capsys):
    a = str(make_run())
    assert main(["compare", a, a, "--days", "1", "--visits", "40", "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert all(row["difference"] == 0 and row["anytime_p"] == 1 for row in metrics.values())


def test_bad_input_is_one_line(make_run, tmp_path, capsys):
    a = str(make_run())
    for arguments, problem in (
        ([str(tmp_path), a], "a run"),
        ([a, str(make_run(history=4))], "different world.history_length: [4, 6]"),
        ([a, a, "--share", "1"], "--share"),
        ([a, a, "--set", "repeat=allow"], "did you mean 'repeats'"),
    ):
        capsys.readouterr()
        assert main(["compare", *arguments]) == 2
        err = capsys.readouterr().err
        assert problem in err and "Traceback" not in err
