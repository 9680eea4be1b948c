"""The command line: complete help, one line for what the user can mend, and an exit status."""

import pytest
from tiny import assert_one_line, bntt, bntt_here, write_experiment

from bntt import commands
from bntt.common import environment
from bntt.common.errors import UserError
from bntt.data import store

COMMANDS = (
    "train", "evaluate", "runs", "check", "compare", "explain", "archive", "restore", "plan", "data", "notebook",
    "preliminary", "keys", "test",
)  # fmt: skip


def help_of(*arguments: str, capsys) -> str:
    with pytest.raises(SystemExit) as raised:
        commands.main([*arguments, "--help"])
    assert raised.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_every_command_and_the_exit_status(capsys):
    text = help_of(capsys=capsys)
    for command in COMMANDS:
        assert f" {command} " in text
    assert "Exit status: 0 done; 1 `check` found" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_explains_every_option_with_its_default(command, capsys):
    text = help_of(command, capsys=capsys)
    parser = commands._parser([command])
    choices = next(action for action in parser._actions if action.choices and "train" in action.choices).choices
    for action in choices[command]._actions:
        assert action.help, f"{command} {action.dest}"
        if action.option_strings and action.default is not None and action.dest != "help":
            assert f"(default: {action.default})" in text
    assert "(default: None)" not in text, "a default of None is no help"
    assert choices[command].description.endswith(".")


def test_help_and_version_take_no_torch_and_no_experiment():
    ran = bntt("--help")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert bntt("--version").stdout.startswith("bntt 0.")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["runs", "--experiment", "demoo"], ["no experiment 'demoo'", "demo"]),
        (["train", "--row", "bnt", "--seed", "0"], ["unknown row 'bnt'", "did you mean 'bntt'?"]),
        (
            ["train", "--row", "bntt", "--seed", "0", "--dataset", "digit"],
            ["unknown dataset 'digit'", "did you mean 'digits'?"],
        ),
        (["train", "--row", "ann", "--seed", "9"], ["no seed 9", "its seeds are 0, 1, 2"]),
        (
            ["notebook", "analysis/none.py", "--notebook", "x.ipynb", "--page", "x.html"],
            ["analysis/none.py", "analysis/"],
        ),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, parts, capsys):
    assert commands.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("bntt: ")
    assert_one_line(UserError(captured.err.rstrip("\n")), *parts)


@pytest.mark.parametrize("arguments", [["train"], ["train", "--row", "bntt", "--seed", "one"], ["tarin"], []])
def test_a_misused_command_line_is_one_line_and_status_2_too(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        commands.main(arguments)
    assert raised.value.code == 2
    said = capsys.readouterr().err.rstrip("\n")
    assert said.startswith("bntt: ") and said.endswith("--help")
    assert_one_line(UserError(said))


def test_dataset_and_seed_are_asked_for_where_there_are_several(tmp_path, capsys):
    path = str(write_experiment(tmp_path, seeds=[4, 2]))
    assert commands.main(["train", "--experiment", path, "--row", "ann"]) == 2
    assert "give --seed, one of 4, 2" in capsys.readouterr().err


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "/some/where")

    monkeypatch.setattr("bntt.commands.runs.load", refuse)
    assert commands.main(["runs"]) == 2
    assert capsys.readouterr().err == "bntt: /some/where: Permission denied\n"


def test_an_interrupt_is_no_traceback(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bntt.commands.runs.load", interrupt)
    assert commands.main(["runs"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    """``python -m bntt keys | head -1``"""
    import subprocess
    import sys

    from tiny import PROJECT, environment

    pipeline = f"{sys.executable} -m bntt keys | head -1"
    ran = subprocess.run(
        ["bash", "-c", pipeline], cwd=PROJECT, env=environment(PYTHONUNBUFFERED="1"), capture_output=True, text=True
    )
    assert "Traceback" not in ran.stderr


def test_runs_lists_every_planned_run_and_what_is_there_of_it(tmp_path, capsys):
    path = write_experiment(tmp_path)
    assert commands.main(["runs", "--experiment", str(path), "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["missing", f"digits/{row}/seed-0"] for row in ("bntt", "plain", "ann", "rmp")
    ]


def test_a_run_goes_from_nothing_to_measured_by_two_commands(tmp_path):
    path = write_experiment(tmp_path / "my experiments")
    common = ("--experiment", path, "--row", "ann", "--results", tmp_path / "my results")
    trained = bntt_here("train", *common)
    assert trained.returncode == 0, trained.stderr
    assert "done, validation accuracy" in trained.stdout
    assert len(trained.stdout.splitlines()) == 1
    measured = bntt_here("evaluate", *common)
    assert measured.returncode == 0, measured.stderr
    assert "test accuracy" in measured.stdout
    assert "already trained" in bntt_here("train", *common).stdout


# -- the environment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["Plain", "PLAIN", " plain", "native", "0", "1", "true"])
def test_an_unknown_value_of_bntt_kernels_is_one_line(monkeypatch, capsys, value):
    monkeypatch.setenv("BNTT_KERNELS", value)
    assert commands.main(["keys"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert (
        said.err == f"bntt: BNTT_KERNELS is {value!r}: set it to 'plain' to turn the fused kernels off, or unset it\n"
    )
    with pytest.raises(UserError):
        environment.plain_kernels()  # also without the command line


@pytest.mark.parametrize(("name", "meant"), [("BNTT_KERNEL", "BNTT_KERNELS"), ("BNTT_DATA_DIR", "BNTT_DATA")])
def test_an_unknown_variable_is_one_line(monkeypatch, capsys, name, meant):
    monkeypatch.setenv(name, "plain")
    assert commands.main(["keys"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"bntt: unknown environment variable {name!r}; did you mean {meant!r}?\n"


@pytest.mark.parametrize(("value", "plain"), [("", False), ("plain", True), (None, False)])
def test_the_known_values_of_bntt_kernels(monkeypatch, value, plain):
    monkeypatch.delenv("BNTT_KERNELS", raising=False)
    if value is not None:
        monkeypatch.setenv("BNTT_KERNELS", value)
    assert environment.plain_kernels() is plain


@pytest.mark.parametrize(("value", "folder"), [("", "data"), (None, "data"), ("~/x", "{home}/x"), ("a b", "a b")])
def test_where_bntt_data_puts_prepared_data(monkeypatch, tmp_path, value, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BNTT_DATA", raising=False)
    if value is not None:
        monkeypatch.setenv("BNTT_DATA", value)
    assert str(store.folder("digits")) == f"{folder.format(home=tmp_path)}/digits"


def test_a_home_that_does_not_exist_is_one_line(monkeypatch, capsys):
    monkeypatch.setenv("BNTT_DATA", "~no-such-user/data")
    assert commands.main(["keys"]) == 2
    assert capsys.readouterr().err.startswith("bntt: BNTT_DATA is ~no-such-user/data: there is no such user")
