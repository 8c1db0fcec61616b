"""A text -> the comment of a pull request on GitHub or of a merge request on GitLab: written once, then renewed.

A comment is known by a hidden first line with its name.  Nothing here fails a gate: what goes wrong is a sentence.
"""

import http.client
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from harness.errors import HarnessError, abridged

# How often a server is asked that fails, with a pause after each time: seconds, as many as for a deployment's hiccup.
PAUSES = (1.0, 4.0, 10.0)

TIMEOUT = 30.0

# Pages of a hundred comments; a pull request with more has other worries.
MOST_PAGES = 50

# What GitHub and GitLab take as one comment, in characters.
GITHUB_LONGEST, GITLAB_LONGEST = 65_536, 1_000_000

_NEXT = re.compile(r'<([^<>]*)>\s*;[^,]*\brel="?next"?')


class _Refused(Exception):  # noqa: N818 -- reads as what happened
    """The server does not do it, and would not the next time; the text says why."""


class _Unanswered(Exception):  # noqa: N818 -- reads as what happened
    """The server could not do it now; the text says why."""


def parse_name(text: str) -> str:
    """Return the name of a comment.  Raises `HarnessError` for what would end or break its hidden line."""
    if not re.fullmatch(r"[A-Za-z0-9_.]+([ -][A-Za-z0-9_.]+)*", text) or len(text) > 60:
        raise HarnessError(f"'{abridged(text)}' is not a name of letters, digits, '_', '.', and single '-' and blanks")
    return text


@dataclass(frozen=True, kw_only=True)
class _Discussion:
    """Where the comments of a pull request are listed and made, and where (and how) each is changed by its number."""

    comments: str
    comment: str
    change: str
    headers: Mapping[str, str]
    longest: int
    origin: str
    permission: str

    def find(self, marker: str) -> int | None:
        """Return the number of the first comment that begins with a line."""
        return next((int(each["id"]) for each in self._all() if str(each.get("body")).startswith(marker)), None)

    def write(self, marker: str, text: str) -> None:
        """Renew the comment that begins with a line, or make it."""
        number = self.find(marker)
        body = {"body": f"{marker}\n{text}"}
        if number is None:
            self._ask("POST", self.comments, body)
        else:
            self._ask(self.change, f"{self.comment}/{number}", body)

    def _all(self) -> Iterator[dict[str, Any]]:
        url = f"{self.comments}?per_page=100"
        for _ in range(MOST_PAGES):
            comments, following = self._ask("GET", url)
            yield from comments
            # Another host would get the token.
            if following is None or urlsplit(following)[:2] != urlsplit(self.comments)[:2]:
                return
            url = following

    def _ask(self, method: str, url: str, body: Mapping[str, str] | None = None) -> tuple[Any, str | None]:
        """Return the JSON of an answer and the address of the next page, if there is one."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(url, data=data, method=method, headers={"Content-Type": "application/json"})  # noqa: S310
        for name, value in self.headers.items():
            request.add_unredirected_header(name, value)
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310 -- the address is that of the CI
                following = _NEXT.search(answer.headers.get("Link") or "")
                return json.load(answer), following[1] if following else None
        except HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}".strip()
            raise (_Unanswered if error.code >= 500 or error.code == 429 else _Refused)(reason) from None
        except (URLError, OSError, http.client.HTTPException) as error:
            raise _Unanswered(str(getattr(error, "reason", error)) or type(error).__name__) from None
        except ValueError:
            raise _Refused("its answer is not JSON") from None


def comment(
    name: str,
    render: Callable[[int], str],
    *,
    environment: Mapping[str, str] = os.environ,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[str, ...]:
    """Write or renew the comment of a name; `render` makes its text, of at most so many characters.

    Returns a sentence where there is no comment, for a warning.
    """
    try:
        discussion = _discussion(environment)
    except HarnessError as error:
        return (f"--comment: {error}",)
    marker = f"<!-- deit-harness: {name} -->"
    text = f"{render(discussion.longest - 1000)}\n{discussion.origin}\n"
    reason = ""
    for pause in (*PAUSES, None):
        try:
            # Each time from the start: a comment may have been made though the answer was lost.
            discussion.write(marker, text)
        except _Unanswered as error:
            reason = f"{error}, {len(PAUSES) + 1} times"
            if pause is not None:
                sleep(pause)
        except _Refused as error:
            return (f"--comment: {urlsplit(discussion.comments).netloc}: {error}; {discussion.permission}",)
        else:
            return ()
    return (f"--comment: {urlsplit(discussion.comments).netloc}: {reason}; there is no comment",)


def _discussion(environment: Mapping[str, str]) -> _Discussion:
    """Return where to comment, by what the CI says.

    Raises `HarnessError` outside of a pull request, and without a token.
    """
    if environment.get("GITHUB_ACTIONS") == "true":
        return _on_github(environment)
    if environment.get("GITLAB_CI") == "true":
        return _on_gitlab(environment)
    raise HarnessError("this is no job of GitHub Actions or GitLab CI, so there is no comment")


def _on_github(environment: Mapping[str, str]) -> _Discussion:
    event = _event(Path(environment.get("GITHUB_EVENT_PATH", "")))
    request = event.get("pull_request") or {}
    if not isinstance(request.get("number"), int):
        raise HarnessError("what started this job is no pull request, so there is no comment")
    token = environment.get("GITHUB_TOKEN")
    if not token:
        raise HarnessError("GITHUB_TOKEN is not set, so there is no comment; set it to ${{ github.token }} in env")
    repository = environment.get("GITHUB_REPOSITORY", "")
    issues = f"{environment.get('GITHUB_API_URL', 'https://api.github.com')}/repos/{repository}/issues"
    server = f"{environment.get('GITHUB_SERVER_URL', 'https://github.com')}/{repository}"
    commit = str((request.get("head") or {}).get("sha") or environment.get("GITHUB_SHA", ""))
    return _Discussion(
        comments=f"{issues}/{request['number']}/comments",
        comment=f"{issues}/comments",
        change="PATCH",
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
        },
        longest=GITHUB_LONGEST,
        origin=f"Commit {commit[:7]}, [log]({server}/actions/runs/{environment.get('GITHUB_RUN_ID', '')})",
        permission=(
            "there is no comment; the job needs `permissions: pull-requests: write`, which those of forks never have"
        ),
    )


def _event(path: Path) -> dict[str, Any]:
    try:
        event = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"GITHUB_EVENT_PATH={path} cannot be read ({error}), so there is no comment") from None
    return event if isinstance(event, dict) else {}


def _on_gitlab(environment: Mapping[str, str]) -> _Discussion:
    number = environment.get("CI_MERGE_REQUEST_IID")
    if not number:
        raise HarnessError("this is no pipeline of a merge request, so there is no comment")
    token = environment.get("GITLAB_TOKEN")
    if not token:
        raise HarnessError(
            "GITLAB_TOKEN is not set, so there is no comment; set it to a project access token with the scope api, as "
            "that of a job may not comment"
        )
    project = quote(environment.get("CI_PROJECT_ID", ""), safe="")
    notes = f"{environment.get('CI_API_V4_URL', 'https://gitlab.com/api/v4')}/projects/{project}"
    notes += f"/merge_requests/{quote(number, safe='')}/notes"
    return _Discussion(
        comments=notes,
        comment=notes,
        change="PUT",
        headers={"PRIVATE-TOKEN": token},
        longest=GITLAB_LONGEST,
        origin=f"Commit {environment.get('CI_COMMIT_SHA', '')[:7]}, [log]({environment.get('CI_JOB_URL', '')})",
        permission="there is no comment; GITLAB_TOKEN needs the scope api and the role Reporter or above",
    )
