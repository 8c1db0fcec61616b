"""`Diff`s -> a static site that opens from the disk: the text of every file by its path.  The only home of jinja2."""

from harness.report.html.site import SiteContent, render_fragment, render_sides_site, render_site

__all__ = ["SiteContent", "render_fragment", "render_sides_site", "render_site"]
