"""The command line app: help, exit codes, imports, stdout and stderr."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from command import Run, process

import odesteer
from odesteer.cli.app import app
from odesteer.cli.errors import UsageError
from odesteer.cli.output.screen import Screen
from odesteer.errors import DataError

COMMANDS = (
    *("bench", "demo", "detect", "export", "fit", "generate", "import", "inspect", "methods"),
    *("pairs", "push", "sae", "serve", "transfer", "tune"),
)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from odesteer.cli import main; code = main(['fit', '--help']);"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'numpy', 'matplotlib'};"
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--layer" in done.stdout


def test_the_module_is_the_command(tmp_path: Path) -> None:
    with process("methods", "--json", folder=tmp_path) as started:
        out, err = started.communicate(timeout=120)
    assert (started.returncode, err) == (0, "")
    assert '"odesteer"' in out


def test_without_words_it_shows_its_help(run: Run) -> None:
    outcome = run()
    assert outcome.code == 0
    assert all(name in outcome.out for name in COMMANDS)
    assert run("--help").out == outcome.out


def test_version(run: Run) -> None:
    outcome = run("--version")
    assert (outcome.code, outcome.out) == (0, f"odesteer {odesteer.__version__}\n")


def test_all_commands_are_tested_here() -> None:
    assert set(typer.main.get_command(app).commands) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_the_options_for_machines(run: Run, name: str) -> None:
    outcome = run(name, "--help")
    assert outcome.code == 0
    assert "--json" in outcome.out
    assert "--debug" in outcome.out


def test_the_list_of_commands_says_what_each_does_without_cutting_it_off(run: Run) -> None:
    assert "..." not in run("--help").out.partition("Commands:")[2].replace("COMMAND [ARGS]...", "")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("fti",), "fti"),
        (("methods", "--jsn"), "--jsn"),
        (("fit", "--layer", "two"), "two"),
        (("fit", "--layer", "2", "-o", "s"), "--data"),
        (("inspect",), "FILE"),
        (("generate", "--position", "first", "Once"), "first"),
    ],
)
def test_malformed_words_are_usage_errors(run: Run, words: tuple[str, ...], named: str) -> None:
    outcome = run(*words)
    assert outcome.code == 2
    assert outcome.says(named)
    assert outcome.out == ""


def test_with_json_an_error_is_a_document_too(run: Run) -> None:
    for words in (("inspect", "nothing.safetensors"), ("inspect", "--layer", "1")):
        outcome = run(*words, "--json")
        error = outcome.document["error"]
        assert error["exit_code"] == outcome.code
        assert error["message"] in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (DataError("row 3 is bad; mend it."), 1, "row 3 is bad; mend it."),
        (UsageError("--x 3: no."), 2, "--x 3: no."),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied"),
        (ZeroDivisionError("division by zero"), 1, "--debug"),
    ],
)
def test_every_error_is_a_line_and_a_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for debug in (False, True):
        with pytest.raises(typer.Exit) as ended, Screen(debug=debug):
            raise error
        err = capsys.readouterr().err
        assert ended.value.exit_code == code
        assert said in err
        assert ("Traceback" in err) is debug


def test_debug_can_be_asked_for_in_the_environment(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODESTEER_DEBUG", "1")
    outcome = run("inspect", "nothing.safetensors")
    assert outcome.code == 1
    assert "Traceback" in outcome.err


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    with process("methods", folder=tmp_path) as started:
        assert started.stdout is not None
        started.stdout.close()
        assert started.stderr is not None
        assert started.stderr.read() == ""
        assert started.wait(timeout=120) == 1


def test_nothing_is_drawn_where_nobody_watches(run: Run, steerer: str, model: str) -> None:
    outcome = run("generate", model, "--steer", steerer, "Day 3:", "--json")
    assert "\x1b" not in outcome.out + outcome.err
    assert "\r" not in outcome.err
    assert "%" not in outcome.err


def test_a_terminal_without_unicode_gets_other_characters(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "odesteer", "methods"],
        capture_output=True,
        cwd=tmp_path,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_options_are_listed_in_panels(run: Run) -> None:
    text = run("fit", "--help").out
    headings = ["Arguments:", "Data:", "Steering:", "Model and machine:", "Ray:", "Options:"]
    places = [text.index(f"\n{heading}\n") for heading in headings]
    assert places == sorted(places)
    assert places[1] < text.index("--column") < places[2]
    assert text.index("--json") > places[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_with_many_options_has_panels(run: Run, name: str) -> None:
    general = run(name, "--help").out.partition("\nOptions:\n")[2]
    assert general.count("\n  -") <= 8
