"""action.yml and ci/gitlab.yml, played as their runners would: each step in a shell, against a stand-in of the API."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from harness.cli.main import cli
from tests.commands import clean_environment
from tests.forge import TOKEN, Forge, serving, variables
from tests.test_revisions import BACKEND, OFFLINE, PROJECT, git

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
GITLAB: dict[str, Any] = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text(encoding="utf-8"))

# The keys that GitHub's reference of metadata for actions has for a composite one.
KEYS = {"name", "author", "description", "inputs", "outputs", "runs", "branding"}
STEP_KEYS = {"run", "shell", "if", "name", "id", "env", "working-directory", "uses", "with", "continue-on-error"}
CONTEXTS = ("inputs", "steps", "runner", "github")

# Two models that need neither a package nor weights.
SPEC = """
[table]
title = "Tiny"
[source.paper]
kind = "paper"
cite = "the paper"
[column.params]
label = "#param."
job = "count"
metric = "params"
unit = "M"
tolerance = 0.1
[row.vit]
label = "ViT"
set = { model = "test_vit", res = 160 }
paper = { params = 0.4 }
"""


class Runner:
    """Plays the steps of an action; `outputs` has those of each step, `tokens` where one was printed."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.outputs: dict[str, dict[str, str]] = {}
        self.text = ""

    def run(self, **given: str) -> int:
        """Run all steps until one fails; return its exit code."""
        inputs = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()}
        self.values = {f"inputs.{name}": text for name, text in {**inputs, **given}.items()}
        self.values |= {
            "github.token": TOKEN,
            "github.action_path": str(ROOT),
            "runner.os": "Linux",
            "runner.arch": "X64",
        }
        self.values |= {name: self.filled(text) for name, text in self.values.items()}
        for step in ACTION["runs"]["steps"]:
            if "run" not in step or not self.holds(step.get("if", "")):
                continue
            if code := self.step(step):
                return code
        return 0

    def step(self, step: Mapping[str, Any]) -> int:
        """Run a step in bash, as the runner starts it."""
        output, script = self.folder / "output", self.folder / "step.sh"
        output.write_text("", encoding="utf-8")
        script.write_text(step["run"], encoding="utf-8")
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)],
            cwd=self.folder / "project",
            env={**self.environment, **{name: self.filled(text) for name, text in step.get("env", {}).items()}},
            capture_output=True,
            text=True,
            check=False,
        )
        self.text += ran.stdout + ran.stderr
        lines = [line.partition("=") for line in output.read_text(encoding="utf-8").splitlines()]
        self.outputs[step.get("id", "")] = {name: value for name, _, value in lines}
        return ran.returncode

    def filled(self, text: str) -> str:
        """Replace expressions by their values."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("steps."):
                _, step, _, output = name.split(".")
                return self.outputs.get(step, {}).get(output, "")
            return self.values[name]

        return re.sub(r"\$\{\{ ([\w.-]+) \}\}", value, text)

    def holds(self, condition: str) -> bool:
        """Evaluate a condition of comparisons that are joined by `&&`."""

        def compared(text: str) -> bool:
            name, operator, value = text.split(" ", 2)
            return (self.values[name] == value.strip("'")) is (operator == "==")

        return all(map(compared, condition.split(" && "))) if condition else True

    @property
    def results(self) -> dict[str, str]:
        """The outputs of the action."""
        return {name: self.filled(each["value"]) for name, each in ACTION["outputs"].items()}


@pytest.fixture
def forge() -> Iterator[Forge]:
    with serving(Forge(kind="github")) as forge:
        yield forge


@pytest.fixture
def runner(forge: Forge, tmp_path: Path) -> Runner:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.toml").write_text(SPEC, encoding="utf-8")
    given = {**variables(forge, tmp_path), "RUNNER_TEMP": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    return Runner(tmp_path, clean_environment(tmp_path, PYTHONPATH=str(ROOT), **given))


# What is written in them.


def test_the_action_has_the_keys_of_a_composite_action_and_no_other() -> None:
    assert ACTION.keys() <= KEYS
    assert ACTION["runs"].keys() == {"using", "steps"}
    assert ACTION["runs"]["using"] == "composite"
    assert all(each.keys() <= {"description", "required", "default"} for each in ACTION["inputs"].values())
    assert all(each.keys() == {"description", "value"} for each in ACTION["outputs"].values())
    for step in ACTION["runs"]["steps"]:
        assert step.keys() <= STEP_KEYS
        assert ("run" in step) != ("uses" in step)
        assert ("shell" in step) == ("run" in step)  # composite actions have no default
        assert all(isinstance(value, str) for value in step.get("env", {}).values())


def test_no_script_of_the_action_holds_what_a_pull_request_could_write() -> None:
    assert [step["name"] for step in ACTION["runs"]["steps"] if "${{" in step.get("run", "")] == []


def test_every_expression_of_the_action_names_something_that_there_is() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    steps = {step["id"] for step in ACTION["runs"]["steps"] if "id" in step}
    for name in re.findall(r"\$\{\{ ([\w.-]+) \}\}", text) + re.findall(r"(?:if: |&& )([\w.-]+)", text):
        context, key, *_ = name.split(".")
        assert context in CONTEXTS
        assert context != "inputs" or key in ACTION["inputs"], name
        assert context != "steps" or key in steps, name


@pytest.mark.parametrize("step", ACTION["runs"]["steps"], ids=lambda step: str(step["name"]))
def test_every_variable_that_a_script_needs_is_set(step: dict[str, Any]) -> None:
    ours = {"folder", "code", "line", "tables", "options", "measured", "commit"}
    runners = {"GITHUB_OUTPUT", "GITHUB_SHA", "RUNNER_TEMP"}
    used = set(re.findall(r"\$\{?#?(\w\w+)", step.get("run", "")))
    assert used <= ours | runners | step.get("env", {}).keys()
    assert subprocess.run(["bash", "-n"], input=step.get("run", ""), text=True, check=False).returncode == 0


# Check against a baseline.


def test_a_check_passes_then_fails_and_renews_its_comment(runner: Runner, forge: Forge, tmp_path: Path) -> None:
    check = {"mode": "check", "tables": "./mine.toml", "harness": "", "python": sys.executable}
    assert runner.run(**check, measure="\n--only count\n") == 0, runner.text
    results = runner.results
    assert (results["status"], results["headline"]) == ("passed", "passes: 1 held")
    report = Path(results["report"]).read_text(encoding="utf-8")
    assert report.startswith("### harness check passes: 1 held\n")
    assert report == (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert list(forge.comments) == [1]
    assert forge.comments[1].startswith(f"<!-- deit-harness: gate -->\n{report}\n")
    badge = json.loads(Path(results["badge"]).read_text(encoding="utf-8"))
    assert badge == {"schemaVersion": 1, "label": "harness check", "message": "passes: 1 held", "color": "brightgreen"}
    assert '<testsuites name="harness check" tests="1" failures="0"' in Path(results["junit"]).read_text(
        encoding="utf-8"
    )

    (tmp_path / "project" / "mine.toml").write_text(SPEC.replace("0.4 }", "0.9 }"), encoding="utf-8")
    assert runner.run(**check) == 1, runner.text
    assert (runner.results["status"], runner.results["headline"]) == ("failed", "fails: 1 deviates")
    assert list(forge.comments) == [1]
    assert "### harness check fails: 1 deviates" in forge.comments[1]
    assert "::error title=mine deviates::mine, #param. of ViT" in runner.text
    assert TOKEN not in runner.text


def test_nothing_to_compare_fails_unless_that_is_allowed(runner: Runner) -> None:
    check = {"mode": "check", "tables": "./mine.toml", "harness": "", "python": sys.executable, "comment": ""}
    assert runner.run(**check) == 4, runner.text
    assert runner.results["status"] == "undecided"
    assert runner.run(**check, **{"allow-undecided": "true"}) == 0


def test_a_fork_has_its_gate_without_a_comment(runner: Runner, forge: Forge) -> None:
    forge.failures = [("POST", 403)]
    check = {"mode": "check", "tables": "./mine.toml", "harness": "", "python": sys.executable, "comment": "fork"}
    assert runner.run(**check, **{"allow-undecided": "true"}) == 0, runner.text
    assert "HTTP 403 Forbidden; there is no comment; the job needs `permissions: pull-requests: write`" in runner.text


def test_options_are_split_as_a_shell_does_and_nothing_in_them_is_run(runner: Runner, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" >>"$RUNNER_TEMP/arguments"\n', encoding="utf-8")
    python.chmod(0o755)
    options = "--rows 'a b,$(touch x)' --columns \"*\""
    assert runner.run(mode="check", tables="table5 ./mine.toml", options=options, python=str(python)) == 0
    arguments = (tmp_path / "arguments").read_text(encoding="utf-8").splitlines()
    assert arguments[:5] == ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    assert arguments[5:15] == [
        *(str(ROOT), "-P", "-m", "harness", "check", "table5", "./mine.toml"),
        *("--rows", "a b,$(touch x)", "--columns"),
    ]
    assert arguments[15] == "*"


def test_another_mode_is_refused(runner: Runner) -> None:
    assert runner.run(tables="table5", mode="compare", harness="") == 2
    assert "mode is ab or check, not compare" in runner.text


# By turns with the base.


# 3 weights and a bias for each output.
MODEL = """
import torch
def tinynet(pretrained=False, num_classes=1000, **kwargs):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, {outputs}))
"""


def test_a_pull_request_is_compared_with_its_base_which_a_shallow_clone_lacks(
    runner: Runner, forge: Forge, tmp_path: Path
) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "project"
    (clone / "mine.toml").unlink()
    origin.mkdir()
    spec = SPEC.replace("test_vit", "tinynet")
    for name, text in {"backend.py": BACKEND, "pyproject.toml": PROJECT, "mine.toml": spec}.items():
        (origin / name).write_text(text, encoding="utf-8")
    git(origin, "init", "-q")
    for outputs in (250_000, 500_000):
        (origin / "tinynets.py").write_text(MODEL.format(outputs=outputs), encoding="utf-8")
        git(origin, "add", "-A")
        git(origin, "commit", "-qm", str(outputs))
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{origin}", "project")
    old, new = (git(origin, "rev-parse", name) for name in ("HEAD^", "HEAD"))
    runner.environment = {**runner.environment, "GITHUB_SHA": new}

    ab = {"tables": "./mine.toml", "harness": "", "python": sys.executable, "install": OFFLINE}
    assert runner.run(**ab, options="--only count --device cpu") == 1, runner.text
    assert runner.outputs["base"] == {"commit": old}
    assert runner.results["headline"] == "fails: 1 changed"
    assert f"\nHEAD ({new[:7]}) against {old[:7]}.\n" in forge.comments[1]
    assert "| ✗&nbsp;changed | mine, #param. of ViT | 1.000&nbsp;M | 2.000&nbsp;M | 1.00 M more |" in forge.comments[1]
    assert len(list((tmp_path / "cache" / "deit-harness" / "environments").glob("*/environment.json"))) == 2


# GitLab.


def test_the_jobs_of_gitlab_are_hidden_and_have_known_keys() -> None:
    keys = {"extends", "rules", "variables", "before_script", "script", "allow_failure", "artifacts", "cache"}
    assert {name: each.keys() - keys for name, each in GITLAB.items()} == {
        ".gate": set(), ".gate-ab": set(), ".gate-check": set()
    }  # fmt: skip


def on_gitlab(job: str, folder: Path, **given: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a job in a shell, with the variables that it and what it extends have."""
    base, own = GITLAB[".gate"], GITLAB[job]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), **base["variables"], **own["variables"], **given}
    return subprocess.run(
        ["sh", "-e", "-c", "\n".join([*base["before_script"], *own["script"]])],
        cwd=folder,
        env=clean_environment(folder, **environment),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_check_on_gitlab_comments_on_its_merge_request(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SPEC, encoding="utf-8")
    with serving(Forge(kind="gitlab")) as forge:
        own = {"GATE_TABLES": "./mine.toml", "GATE_HARNESS": "", **variables(forge, tmp_path)}
        ran = on_gitlab(".gate-check", tmp_path, **own)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.endswith("\npasses: 1 held\n")
    report = (tmp_path / "gate" / "report.md").read_text(encoding="utf-8")
    assert forge.comments[1].startswith(f"<!-- deit-harness: gate -->\n{report}\n")


def test_a_job_of_gitlab_fetches_the_base_and_gives_its_options_to_ab(tmp_path: Path) -> None:
    for name in ("git", "python"):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@" >>arguments\n', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "abc", "GATE_HARNESS": ""}
    ran = on_gitlab(".gate-ab", tmp_path, **own, GATE_OPTIONS="--rows * --budget 1min", GATE_COMMENT="on a GPU")
    assert ran.returncode == 0, ran.stderr
    git_line, harness_line = (tmp_path / "arguments").read_text(encoding="utf-8").split("python\n-P\n-m\nharness\n")
    assert git_line.splitlines() == ["git", "fetch", "--quiet", "--depth", "1", "origin", "abc"]
    assert harness_line.splitlines()[:10] == [
        *("ab", "table5", "--rows", "*", "--budget", "1min", "--rev", "abc", "--rev", "HEAD")
    ]
    assert harness_line.splitlines()[-2:] == ["--comment", "on a GPU"]
    parse("ab", harness_line.splitlines()[1:])


# The examples.


def parse(command: str, arguments: list[str]) -> None:
    known = cli.commands[command]
    with click.Context(known) as context:
        known.make_parser(context).parse_args(args=arguments)


def test_the_example_for_github_uses_the_action_with_inputs_and_options_that_there_are() -> None:
    workflow = yaml.safe_load((EXAMPLES / "github-actions.yml").read_text(encoding="utf-8"))
    assert workflow["permissions"]["pull-requests"] == "write"
    used = [
        step["with"]
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("deit-harness/")
    ]
    assert [each.get("mode", "ab") for each in used] == ["ab", "check", "check"]
    assert len({each["comment"] for each in used}) == 3
    for each in used:
        assert each.keys() <= ACTION["inputs"].keys()
        parse(each.get("mode", "ab"), shlex.split(f"{each['tables']} {each['options']}"))
        for line in each.get("measure", "").splitlines():
            parse("reproduce", shlex.split(f"{each['tables']} {line}"))


def test_the_example_for_gitlab_extends_the_jobs_with_variables_and_options_that_there_are() -> None:
    jobs = yaml.safe_load((EXAMPLES / "gitlab-ci.yml").read_text(encoding="utf-8"))
    used = [job for job in jobs.values() if isinstance(job, dict) and "extends" in job]
    assert [job["extends"] for job in used] == [".gate-ab", ".gate-check", ".gate-check"]
    assert len({job["variables"]["GATE_COMMENT"] for job in used}) == 3
    for job in used:
        defaults = {**GITLAB[".gate"]["variables"], **GITLAB[job["extends"]]["variables"]}
        assert job["variables"].keys() <= defaults.keys()
        variables = {**defaults, **job["variables"]}
        parse(job["extends"].removeprefix(".gate-"), f"{variables['GATE_TABLES']} {variables['GATE_OPTIONS']}".split())
        parse("reproduce", f"{variables['GATE_TABLES']} {variables.get('GATE_MEASURE', '')}".split())


@pytest.mark.parametrize("name", ["github-actions.yml", "gitlab-ci.yml"])
def test_the_commands_in_the_comments_of_the_examples_are_ours(name: str) -> None:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for line in re.findall(r"^#   harness (.*)", text, re.MULTILINE):
        command, *arguments = shlex.split(line)
        parse(command, arguments)
