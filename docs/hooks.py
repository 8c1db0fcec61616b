"""What mkdocs needs to be told: pages that read well on a Git host become pages that open from a disk, offline."""

import logging
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent

# A warning of mkdocs fails a strict build, and so does one of ours.
LOG = logging.getLogger("mkdocs.hooks.offline")

# What a browser fetches by itself when it opens a page.
_FETCHED = re.compile(r"<(?:script|img|link)\b[^>]*?\b(?:src|href)=[\"']?(https?://[^\s\"'>]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Take the figures along, which lie outside the pages' folder."""
    for path in sorted((ROOT / "figures").glob("*.png")):
        files.append(File.generated(config, f"figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Rewrite what a Git host shows otherwise: links out of the folder, and Markdown inside `<details>`."""
    markdown = markdown.replace("](../figures/", "](figures/").replace("](../tables/README.md", "](specs.md")
    return markdown.replace("<details><summary>", '<details markdown="1"><summary>')


def on_post_page(output: str, page: object, **_: object) -> str:
    """Warn of a page that fetches something from elsewhere when it is opened."""
    for address in _FETCHED.findall(output):
        LOG.warning("%s fetches %s: the site has to work offline", page, address)
    return output
