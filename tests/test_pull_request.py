"""The comment of a pull request: written once, then renewed, and never a reason to fail."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.cli.gates.pull_request import comment, parse_name
from harness.errors import HarnessError
from tests.forge import TOKEN, Forge, serving, variables

MARKER = "<!-- deit-harness: gate -->"

ORIGINS = {
    "github": "Commit abcdef0, [log](https://github.example.org/o/r/actions/runs/42)",
    "gitlab": "Commit abcdef0, [log](https://gitlab.example.org/o/r/-/jobs/1)",
}


@pytest.fixture(params=["github", "gitlab"])
def forge(request: pytest.FixtureRequest) -> Iterator[Forge]:
    with serving(Forge(kind=request.param)) as forge:
        yield forge


@pytest.fixture
def environment(forge: Forge, tmp_path: Path) -> dict[str, str]:
    return variables(forge, tmp_path)


def write(environment: Mapping[str, str], text: str = "new", name: str = "gate") -> tuple[tuple[str, ...], list[float]]:
    pauses: list[float] = []
    return comment(name, lambda _: text, environment=environment, sleep=pauses.append), pauses


def test_the_first_run_writes_a_comment_and_the_second_renews_it(forge: Forge, environment: dict[str, str]) -> None:
    assert write(environment, "first") == ((), [])
    assert forge.comments == {1: f"{MARKER}\nfirst\n{ORIGINS[forge.kind]}\n"}
    assert write(environment, "second") == ((), [])
    assert forge.comments == {1: f"{MARKER}\nsecond\n{ORIGINS[forge.kind]}\n"}


def test_a_comment_of_another_name_and_one_that_quotes_ours_stay(forge: Forge, environment: dict[str, str]) -> None:
    forge.comments = {1: "> " + MARKER, 2: "<!-- deit-harness: gate 2 -->\nx"}
    write(environment)
    assert {number: text[:28] for number, text in forge.comments.items()} == {
        1: "> " + MARKER[:26],
        2: "<!-- deit-harness: gate 2 --"[:28],
        3: f"{MARKER}\n",
    }


def test_it_is_found_on_a_later_page(forge: Forge, environment: dict[str, str]) -> None:
    forge.page = 2
    forge.comments = {1: "a", 2: "b", 3: "c", 4: "d", 5: f"{MARKER}\nold"}
    write(environment)
    assert forge.comments[5].startswith(f"{MARKER}\nnew")
    assert len(forge.comments) == 5
    assert forge.log[:3] == ["GET"] * 3


def test_a_next_page_on_another_host_is_not_asked_for(forge: Forge, environment: dict[str, str]) -> None:
    with serving(Forge(kind=forge.kind)) as other:
        forge.page, forge.next_host, forge.comments = 1, other.url, {1: "a", 2: f"{MARKER}\nold"}
        write(environment)
        assert other.log == []


@pytest.mark.parametrize(("method", "status", "reason"), [("POST", 403, "Forbidden"), ("GET", 404, "Not Found")])
def test_a_token_that_may_not_comment_is_a_warning_and_not_tried_again(
    forge: Forge, environment: dict[str, str], method: str, status: int, reason: str
) -> None:
    forge.failures = [(method, status)]
    (warning,), pauses = write(environment)
    permission = {
        "github": "the job needs `permissions: pull-requests: write`, which those of forks never have",
        "gitlab": "GITLAB_TOKEN needs the scope api and the role Reporter or above",
    }[forge.kind]
    host = forge.url.removeprefix("http://")
    assert warning == f"--comment: {host}: HTTP {status} {reason}; there is no comment; {permission}"
    assert (pauses, forge.comments) == ([], {})


def test_a_server_that_fails_for_a_while_is_asked_again_from_the_start(
    forge: Forge, environment: dict[str, str]
) -> None:
    forge.failures = [("GET", 502), ("POST", 503)]
    assert write(environment) == ((), [1.0, 4.0])
    assert forge.log == ["GET", "GET", "POST", "GET", "POST"]
    assert len(forge.comments) == 1


def test_a_server_that_goes_on_failing_is_given_up(forge: Forge, environment: dict[str, str]) -> None:
    forge.failures = [("any", 500)] * 9
    host = forge.url.removeprefix("http://")
    warning = f"--comment: {host}: HTTP 500 Internal Server Error, 4 times; there is no comment"
    assert write(environment) == ((warning,), [1.0, 4.0, 10.0])


def test_a_server_that_is_not_there_is_a_warning(environment: dict[str, str]) -> None:
    for name in ("GITHUB_API_URL", "CI_API_V4_URL"):
        environment[name] = "http://127.0.0.1:1"
    (warning,), pauses = write(environment)
    assert warning == "--comment: 127.0.0.1:1: [Errno 111] Connection refused, 4 times; there is no comment"
    assert len(pauses) == 3


def test_no_warning_has_the_token(forge: Forge, environment: dict[str, str]) -> None:
    for failure in (401, 403, 404, 500):
        forge.failures = [("any", failure)] * 4
        assert TOKEN not in str(write(environment))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"GITHUB_TOKEN": "", "GITLAB_TOKEN": ""}, "TOKEN is not set, so there is no comment; set it to"),
        ({"GITHUB_EVENT_PATH": "/", "CI_MERGE_REQUEST_IID": ""}, "so there is no comment"),
        (
            {"GITHUB_ACTIONS": "", "GITLAB_CI": ""},
            "this is no job of GitHub Actions or GitLab CI, so there is no comment",
        ),
    ],
)
def test_where_there_is_nothing_to_comment_on_a_sentence_says_so(
    forge: Forge, environment: dict[str, str], changed: dict[str, str], reason: str
) -> None:
    (warning,), _ = write({**environment, **changed})
    assert warning.startswith("--comment: ")
    assert reason in warning
    assert forge.log == []


def test_a_push_is_no_pull_request(tmp_path: Path) -> None:
    environment = variables(Forge(kind="github"), tmp_path)
    (tmp_path / "event.json").write_text('{"ref": "refs/heads/main"}', encoding="utf-8")
    (warning,), _ = write(environment)
    assert warning == "--comment: what started this job is no pull request, so there is no comment"


@pytest.mark.parametrize("name", ["", "a --> b", "a--b", "-a", "é", "a\nb", "x" * 61])
def test_a_name_that_would_break_the_hidden_line_is_refused(name: str) -> None:
    with pytest.raises(HarnessError, match="is not a name of letters, digits"):
        parse_name(name)
    assert parse_name("table5 on-gpu.2") == "table5 on-gpu.2"
