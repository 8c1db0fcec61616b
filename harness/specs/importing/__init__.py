"""A table as people have it, in LaTeX, HTML, Markdown or CSV -> the text of a spec, and what was understood of it.

text -> `Grid` (latex, html, markdown, csv) -> `ImportedTable` (headings, values, models) -> TOML (toml)
"""
