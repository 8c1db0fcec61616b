"""`Diagnosis` -> text: terminal, Markdown, JSON.

Pure, and without the libraries that `harness.report` imports: the command answers at once.
"""

from textwrap import wrap

from harness.cleaning import json_text, markdown, visible
from harness.judge.training.why import Cause, Diagnosis

SCHEMA = 1

# Lines are not longer than this: it is prose.
LONGEST = 110

BOLD, PLAIN = "\x1b[1m", "\x1b[0m"


def render_terminal(diagnosis: Diagnosis, *, width: int, color: bool) -> str:
    """Render the conclusion, then each cause with its effect and what to try, within `width` columns."""
    width = min(width, LONGEST)
    lines = _bold(wrap(visible(headline(diagnosis)), width), color=color)
    lines += wrap(visible(f"Compared with the recipe {diagnosis.recipe.name} ({diagnosis.recipe.cite})."), width)
    for number, cause in enumerate(diagnosis.causes, 1):
        indent = " " * (len(str(number)) + 2)
        lines += ["", *_bold(wrap(visible(f"{number}. {title(cause)}"), width, subsequent_indent=indent), color=color)]
        for label, text in (("effect", cause.effect), ("source", cause.source), ("try", cause.advice)):
            body = f"{label}:".ljust(8) + visible(text)
            lines += wrap(body, width, initial_indent=indent, subsequent_indent=f"{indent}{' ' * 8}") if text else []
    for sentence in _remarks(diagnosis):
        lines += ["", *wrap(visible(sentence), width, subsequent_indent="  ")]
    return "\n".join(lines) + "\n"


def _bold(lines: list[str], *, color: bool) -> list[str]:
    return [f"{BOLD}{line}{PLAIN}" if color else line for line in lines]


def headline(diagnosis: Diagnosis) -> str:
    """Return how far the training is below the published accuracy, and how many differences there are."""
    title, count = diagnosis.recipe.title, len(diagnosis.causes)
    verdict = (
        ("no difference found", "one possible cause")[count]
        if count < 2
        else f"{count} possible causes, likeliest first"
    )
    if diagnosis.top1 is None:
        return f"{title}: {verdict}"
    reached = f"{title}: {diagnosis.top1:.2f} % top-1"
    if diagnosis.gap is None:
        return f"{reached}, and none is published for it; {verdict}"
    side = "below" if diagnosis.gap > 0 else "above"
    published = f"the published {diagnosis.published:g} ({diagnosis.published_source})"
    return f"{reached}, {abs(diagnosis.gap):.2f} points {side} {published}; {verdict}"


def title(cause: Cause) -> str:
    """Return the cause with their value and the recipe's."""
    name = cause.key.replace("_", " ")
    if cause.theirs and cause.recipe:
        return f"{name}: {cause.theirs}; the recipe: {cause.recipe}"
    return name


def _remarks(diagnosis: Diagnosis) -> list[str]:
    unknown = [f"not known here: {', '.join(diagnosis.unknown)}"] if diagnosis.unknown else []
    return [*(f"note: {note}" for note in diagnosis.notes), *unknown, f"read: {'; '.join(diagnosis.read)}"]


def render_markdown(diagnosis: Diagnosis) -> str:
    """Render the causes as a table."""
    heading = ("", "cause", "theirs", "the recipe's", "expected effect", "source", "what to try")
    lines = [f"### {markdown(headline(diagnosis))}", "", f"Recipe: {markdown(diagnosis.recipe.name)}", ""]
    if diagnosis.causes:
        lines += [_row(heading), f"|{'---|' * len(heading)}"]
    for number, cause in enumerate(diagnosis.causes, 1):
        name = cause.key.replace("_", " ")
        texts = (name, cause.theirs, cause.recipe, cause.effect, cause.source, cause.advice)
        lines.append(_row((str(number), *map(markdown, texts))))
    lines += ["", *(f"- {markdown(sentence)}" for sentence in _remarks(diagnosis))]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def render_json(diagnosis: Diagnosis) -> str:
    """Render everything as an object; accuracies in percent, `points` and `gap` in points, null where not known."""
    causes = [{name: value for name, value in vars(cause).items() if name != "likely"} for cause in diagnosis.causes]
    data = {**vars(diagnosis), "recipe": diagnosis.recipe.name, "gap": diagnosis.gap, "causes": causes}
    return json_text({"schema": SCHEMA, **data})
