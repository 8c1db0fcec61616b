"""Real data -> damaged data: items lost, swapped, renamed or replaced, texts cut and bytes changed."""

import json
import math
import random
import re
from copy import deepcopy
from typing import Any

JUNK: list[object] = [
    *(None, True, False, -1, 0, 1, 3, 250, -5.0, 0.5, 1e308, 1e-320, 2**53, -(2**70), math.nan, math.inf),
    *("", "x", "1", "%", "\ud800", "\x1b[31m", "a" * 10_000, "../../etc", "2038-01-19T00:00:00+00:00"),
    *("a\0b", "Ｄ⚗\u202e", "a\nb", "²", "1e5", "\N{COMBINING ACUTE ACCENT}" * 50, "{x}", "[link](x)", "=1+1"),
    *([], {}, [[]], ["x"], [None], [0.1] * 40, {"x": {}}, {"top1": {}}, {"": None}, [[[[[[{}]]]]]]),
    *([-1], [0], [1e300], [True], {"value": "x"}, {"kind": "count"}, {"model": 1}, 10**9, "0" * 5000, 1e-300, 99.99),
]

# Values as TOML writes them, some of which it does not allow.
LITERALS = (
    *('""', '"x"', "0", "-1", "1", "1.5", "-0.0", "1e400", "nan", "-inf", "true", "1979-05-27", "07:32:00", "[]", "{}"),
    *("[[]]", '["a", 1]', "{ a = 1 }", "{ a = { b = [1] } }", '"96.9?"', '"1[x]"', '"81.8 ± 0.2"', '"± 1"', '"5%"'),
    *("9" * 400, "1." + "0" * 400, "0x1F", "1_000", '"\\u0000"', '"\\u001b[31m"', "'''a", '"a" "b"', "2**3", "="),
    *("1979-05-27T07:32:00Z", "[" * 100 + "]" * 100, '"a\\nb"', '"count"', '"throughput"', '"evaluate"', '"train"'),
    *('"top1"', '"params"', '"full"', '["top1"]', "224", "1e30", "10000000000000000000000", '"../x"', '"[]"', '"none"'),
    *('"/dev/zero"', '"' + "a" * 5000 + '"', "{ model = 1 }", '[{ row = "x" }]', "[{ }]", '"deit-b"', '"lowest"'),
)


def places(data: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 -- whatever JSON holds
    """Return every item of nested data, each as its table or list and its name or position."""
    items = []
    for key in list(data) if isinstance(data, dict) else range(len(data)):
        items.append((data, key))
        if isinstance(data[key], (dict, list)):
            items += places(data[key])
    return items


def damage(text: str, draw: random.Random) -> str:
    """Return JSON with one to three changes to what it holds; sometimes the text is changed as well."""
    data = json.loads(text)
    for _ in range(draw.randint(1, 3)):
        every = places(data)
        if not every:
            break
        table, key = draw.choice(every)
        other, there = draw.choice(every)
        change = draw.randrange(5)
        if change == 0:
            del table[key]
        elif change == 1:
            table[key], other[there] = deepcopy(other[there]), deepcopy(table[key])
        elif change == 2 and isinstance(table, dict):
            table[draw.choice(("extra", "", "top1", "batch", "\ud800"))] = table.pop(key)
        elif change == 3 and isinstance(table[key], (int, float)):
            table[key] *= draw.choice((-1, 10, 1e6, 0.5))
        else:
            table[key] = deepcopy(draw.choice(JUNK))
    damaged = json.dumps(data)
    return damage_text(damaged, draw) if draw.random() < 0.05 else damaged


def damage_text(text: str, draw: random.Random) -> str:
    """Return a text that was cut, or of which some characters are others."""
    if draw.random() < 0.5 or not text:
        return text[: draw.randrange(len(text) + 1)]
    at = draw.randrange(len(text))
    other = draw.choice(("", "\0", "\ufeff", "[" * 3000, "{", '"', "\r", "\x85", "𝟙", "9" * 5000))
    return text[:at] + other + text[at + 1 :]


def damage_toml(text: str, draw: random.Random) -> str:
    """Return TOML with one to four of its lines changed; rarely the text is changed as well."""
    lines = text.split("\n")
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(lines))
        change = draw.randrange(7)
        if change == 0:
            del lines[at]
            lines = lines or [""]
        elif change == 1:
            lines.insert(draw.randrange(len(lines)), lines[at])
        elif change == 2:
            other = draw.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
        elif change == 3:
            key, equals, _ = lines[at].partition("=")
            lines[at] = f"{key}{equals} {draw.choice(LITERALS)}"
        elif change == 4:  # a key or a name becomes another one of the file
            words = re.findall(r"[A-Za-z_0-9]+", text)
            lines[at] = _replaced(lines[at], r"[A-Za-z_0-9]+", draw.choice(words), draw)
        elif change == 5:  # a single value inside a line
            lines[at] = _replaced(lines[at], r'"[^"]*"|[0-9.]+|true|false', draw.choice(LITERALS), draw)
        else:
            key = draw.choice(("set", "train", "of", "derived", "text", "digits", "cell", "nearest", "cost", "note"))
            lines.insert(at, f"{key} = {draw.choice(LITERALS)}")
    damaged = "\n".join(lines)
    return damage_text(damaged, draw) if draw.random() < 0.03 else damaged


def _replaced(line: str, pattern: str, by: str, draw: random.Random) -> str:
    """Return a line in which one of the matches of a pattern is another text."""
    matches = list(re.finditer(pattern, line))
    if not matches:
        return line
    match = draw.choice(matches)
    return line[: match.start()] + by + line[match.end() :]
