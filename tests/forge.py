"""A local stand-in for the API of GitHub and of GitLab, as far as comments go, and for GitHub's runner."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "s3cret-t0ken"

# The path that lists and makes comments, that of one of them, how it is changed, and the header with the token.
KINDS = {
    "github": (
        "/repos/o/r/issues/7/comments",
        "/repos/o/r/issues/comments",
        "PATCH",
        ("Authorization", f"Bearer {TOKEN}"),
    ),
    "gitlab": (
        "/projects/o%2Fr/merge_requests/7/notes",
        "/projects/o%2Fr/merge_requests/7/notes",
        "PUT",
        ("PRIVATE-TOKEN", TOKEN),
    ),
}


@dataclass(kw_only=True)
class Forge:
    """Comments by their number, what was asked, and how the next answers fail."""

    kind: str
    page: int = 100
    comments: dict[int, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    failures: list[tuple[str, int]] = field(default_factory=list)
    next_host: str = ""
    url: str = ""

    def answer(self, method: str, path: str, headers: Message, body: Any) -> tuple[int, Any, str]:  # noqa: ANN401
        """Return status, JSON and the Link header."""
        comments, one, change, (name, value) = KINDS[self.kind]
        address = urlsplit(path)
        self.log.append(method)
        if headers.get(name) != value:
            return 401, {"message": "Bad credentials"}, ""
        if self.failures and self.failures[0][0] in (method, "any"):
            return self.failures.pop(0)[1], {"message": "as told"}, ""
        if (method, address.path) == ("GET", comments):
            number = int(parse_qs(address.query).get("page", ["1"])[0])
            listed = sorted(self.comments.items())[(number - 1) * self.page : number * self.page]
            more = len(self.comments) > number * self.page
            following = f"{self.next_host or self.url}{comments}?per_page=100&page={number + 1}"
            link = f'<{self.url}{comments}?page=1>; rel="first", <{following}>; rel="next"' if more else ""
            return 200, [{"id": each, "body": text} for each, text in listed], link
        if (method, address.path) == ("POST", comments):
            self.comments[max(self.comments, default=0) + 1] = body["body"]
            return 201, {}, ""
        match = re.fullmatch(rf"{re.escape(one)}/(\d+)", address.path)
        if method == change and match and int(match[1]) in self.comments:
            self.comments[int(match[1])] = body["body"]
            return 200, {}, ""
        return 404, {"message": "Not Found"}, ""


@contextmanager
def serving(forge: Forge) -> Iterator[Forge]:
    """Serve it on this machine until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer, link = forge.answer(self.command, self.path, self.headers, json.loads(data or b"null"))
            self.send_response(status)
            if link:
                self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = do_PUT = _serve  # noqa: N815 -- the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        forge.url = f"http://127.0.0.1:{server.server_port}"
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield forge
        server.shutdown()


def variables(forge: Forge, folder: Path) -> dict[str, str]:
    """Return what the job of a pull request has in its environment, with the files behind it."""
    if forge.kind == "gitlab":
        return {
            "GITLAB_CI": "true",
            "CI_API_V4_URL": forge.url,
            "CI_PROJECT_ID": "o/r",
            "CI_MERGE_REQUEST_IID": "7",
            "CI_COMMIT_SHA": "abcdef0123456789",
            "CI_JOB_URL": "https://gitlab.example.org/o/r/-/jobs/1",
            "GITLAB_TOKEN": TOKEN,
        }
    event = {"pull_request": {"number": 7, "head": {"sha": "abcdef0123456789"}}}
    (folder / "event.json").write_text(json.dumps(event), encoding="utf-8")
    return {
        "GITHUB_ACTIONS": "true",
        "GITHUB_API_URL": forge.url,
        "GITHUB_SERVER_URL": "https://github.example.org",
        "GITHUB_REPOSITORY": "o/r",
        "GITHUB_RUN_ID": "42",
        "GITHUB_SHA": "0000000",
        "GITHUB_EVENT_PATH": str(folder / "event.json"),
        "GITHUB_STEP_SUMMARY": str(folder / "summary.md"),
        "GITHUB_OUTPUT": str(folder / "output"),
        "GITHUB_TOKEN": TOKEN,
    }
