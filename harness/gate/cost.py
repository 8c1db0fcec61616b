"""Two costs of a forward pass -> whether it does more than before, and what became of it, cause first.

Nothing here is measured, so there is no noise and nothing is allowed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import gcd

from harness.gate.decision import Decision, Outcome
from harness.store.cost import TOTALS, Cost

# Operators by the first word of their keys.
_Calls = Mapping[str, int]

_COPIES = ("clone", "copy_", "_to_copy", "contiguous")
_WAITS = ("_local_scalar_dense", "item", "equal", "is_nonzero")
_RESIZES = ("upsample_", "_upsample_", "grid_sampler")
_PRODUCTS = ("bmm", "baddbmm", "matmul")
_SOFTMAX = ("_softmax", "softmax", "_safe_softmax")

# Operators that a sentence names.
_MOST_NAMED = 4


def decide_cost(before: Cost | None, now: Cost | None) -> Decision | None:
    """Decide about a pass that was counted before and now; None where it never was.

    A difference in the numbers of two versions of torch is shown and not judged: it may be torch that names or splits
    an operator in another way.
    """
    if before is None and now is None:
        return None
    if before is None or now is None:
        side = "the baseline has" if before is None else "now there is"
        return Decision(outcome=Outcome.NOT_JUDGED, reason=f"{side} no count of its operators; measure that again")
    if before == now or (before.torch != now.torch and _without_torch(before) == _without_torch(now)):
        return Decision(outcome=Outcome.HELD, reason=f"{now.calls} operators and {_flops(now)}, as before")
    reason = explain(before, now)
    if before.torch != now.torch:
        versions = f"torch {before.torch} and {now.torch} may name operators in different ways"
        return Decision(outcome=Outcome.NOT_JUDGED, reason=f"{reason}; {versions}")
    if _does_more(before, now):
        return Decision(outcome=Outcome.REGRESSED, reason=reason)
    less = any(getattr(now, name) < getattr(before, name) for name in TOTALS)
    alike = _kinds_of_work(before) == _kinds_of_work(now)
    return Decision(outcome=Outcome.IMPROVED if less and alike else Outcome.CHANGED, reason=reason)


def _does_more(before: Cost, now: Cost) -> bool:
    """Whether any number of a pass is larger, it computes in a wider type, or is compiled no more."""
    names = (*TOTALS, "hooks", "training", "gradients")
    if any(getattr(now, name) > getattr(before, name) for name in names):
        return True
    lost = before.kernels is not None and now.kernels is None
    wider = any(_bits(new) > _bits(old) for old, new in _moved(before, now))
    return lost or wider or (now.graph_breaks or 0) > (before.graph_breaks or 0)


def _without_torch(cost: Cost) -> dict[str, object]:
    return {name: value for name, value in cost.to_data().items() if name != "torch"}


def explain(before: Cost, now: Cost) -> str:
    """Return in a sentence by how much a pass differs, and which causes show in it."""
    causes = [cause for rule in _RULES for cause in rule(before, now)] or [_differences(before, now)]
    if now.parameters != before.parameters:
        causes.append(f"the model has {now.parameters:,} parameters, had {before.parameters:,}")
    return ": ".join(filter(None, (_amounts(before, now), "; ".join(causes))))


def _amounts(before: Cost, now: Cost) -> str:
    """Return which totals are more or less, operators by their number and the others by their ratio."""
    calls, parts = now.calls - before.calls, []
    if calls:
        parts.append(
            f"{abs(calls)} {'operator' if abs(calls) == 1 else 'operators'} {'more' if calls > 0 else 'fewer'}"
        )
    for name, words in TOTALS.items():
        old, new = getattr(before, name), getattr(now, name)
        if name != "calls" and old != new:
            parts.append(_ratio(new / old, words) if old else f"{new} {words}, was none")
    return ", ".join(parts)


def _ratio(ratio: float, words: str) -> str:
    percent = 100 * (ratio - 1)
    if abs(percent) < 0.05:
        return f"hardly {'more' if percent > 0 else 'fewer'} {words}"
    return f"{ratio:.3g} times the {words}" if ratio >= 2 else f"{percent:+.1f} % {words}"


def _flops(cost: Cost) -> str:
    return f"{cost.flops / cost.shape[0] / 1e9:.3g} GFLOP an image"


# Causes, each from what it leaves behind.


def _input(before: Cost, now: Cost) -> Iterator[str]:
    if before.shape != now.shape:
        old, new = ("×".join(map(str, cost.shape[1:])) for cost in (before, now))
        yield f"the images are {new}, were {old}"


def _repeated(before: Cost, now: Cost) -> Iterator[str]:
    """Every operator is called the same number of times as often."""
    ratios = {now.operators.get(key, 0) / count for key, count in before.operators.items()}
    if before.operators.keys() == now.operators.keys() and len(ratios) == 1 and max(ratios) > 1:
        yield f"every operator is called {max(ratios):g} times as often: the forward pass runs more than once"


def _attention(before: Cost, now: Cost) -> Iterator[str]:
    """One operator of attention becomes two products and a softmax, or the other way round."""
    difference = _by_name(before, now)
    fused = sum(count for name, count in difference.items() if name.startswith("_scaled_dot_product"))
    products, softmax = (sum(difference[name] for name in names) for names in (_PRODUCTS, _SOFTMAX))
    if fused < 0 < products and softmax > 0:
        yield f"a softmax and {products / softmax:g} matmuls in each of {softmax} layers: attention is no longer fused"
    elif products < 0 < fused:
        yield f"attention is fused in {fused} layers, which was a softmax and {-products / fused:g} matmuls in each"


def _types(before: Cost, now: Cost) -> Iterator[str]:
    for (old_type, new_type), count in _moved(before, now).items():
        yield f"{_number(count, 'operator')} in {new_type}, {'was' if count == 1 else 'were'} in {old_type}"


def _moved(before: Cost, now: Cost) -> Counter[tuple[str, str]]:
    """Count the operators that compute in another type than before, by both types."""
    moved: Counter[tuple[str, str]] = Counter()
    for name in {_name(key) for key in (*before.operators, *now.operators)}:
        old, new = (_by_type(cost.operators, name) for cost in (before, now))
        lost, gained = +Counter({t: old[t] - new[t] for t in old}), +Counter({t: new[t] - old[t] for t in new})
        if lost and gained:
            types = max(lost, key=lost.__getitem__), max(gained, key=gained.__getitem__)
            moved[types] += min(lost.total(), gained.total())
    return moved


def _layout(before: Cost, now: Cost) -> Iterator[str]:
    old, new = (sum(n for key, n in cost.operators.items() if key.endswith("channels_last")) for cost in (before, now))
    if new < old:
        yield f"{_number(old - new, 'operator')} no longer channels_last"
    elif new > old:
        yield f"{_number(new - old, 'operator')} more in channels_last"


def _modes(before: Cost, now: Cost) -> Iterator[str]:
    """What is switched on and should not be, or the other way round."""
    if now.hooks != before.hooks:
        left = "a hook is left on" if now.hooks > before.hooks else "a hook is gone"
        yield f"{_number(now.hooks, 'forward hook')}, {_were(before.hooks)}: {left}"
    if now.training != before.training:
        yield f"{_number(now.training, 'module')} in training mode, {_were(before.training)}"
    if now.gradients != before.gradients:
        yield "gradients are recorded, though nothing needs them" if now.gradients else "gradients are off now"


def _compiler(before: Cost, now: Cost) -> Iterator[str]:
    if before.kernels is not None and now.kernels is None:
        yield "nothing is compiled any more"
    elif before.kernels is None and now.kernels is not None:
        yield f"it is compiled now, into {_number(now.kernels, 'kernel')}"
    elif before.kernels != now.kernels:
        yield f"the compiler makes {_number(now.kernels or 0, 'kernel')}, made {before.kernels}"
    if None not in (before.graph_breaks, now.graph_breaks) and before.graph_breaks != now.graph_breaks:
        yield f"{_number(now.graph_breaks or 0, 'graph break')}, {_were(before.graph_breaks or 0)}"


def _extra(before: Cost, now: Cost) -> Iterator[str]:
    """Operators that a model seldom needs, by what they are for."""
    difference = _by_name(before, now)
    attention = sum(difference[name] for name in _SOFTMAX)  # unfused attention copies its inputs
    for names, what in (
        (_COPIES, "copied"),
        (_WAITS, "read by Python, which waits for the device"),
        (_RESIZES, "resized"),
    ):
        more = {name: count for name, count in difference.items() if count > 0 and name.startswith(names)}
        if more and not (what == "copied" and attention):
            times = sum(more.values())
            yield f"a tensor is {what}{f' {times} times more' if times > 1 else ''} ({', '.join(sorted(more))})"
    dropout = sum(difference[name] for name in ("native_dropout", "bernoulli_", "dropout"))
    if dropout > 0:
        yield f"dropout is on in {_number(dropout, 'place')}"


def _out_of_place(before: Cost, now: Cost) -> Iterator[str]:
    difference = _by_name(before, now)
    for name, count in difference.items():
        if count > 0 and difference.get(f"{name}_", 0) < 0:
            yield f"{count} {name} no longer in place"


def _replaced(before: Cost, now: Cost) -> Iterator[str]:
    """One operator in the places of another."""
    difference = [(count, name) for name, count in _by_name(before, now, whole=True).items() if count]
    if len(difference) == 2 and sum(count for count, _ in difference) == 0:
        (_, old), (count, new) = sorted(difference)
        if _type(old) == _type(new) and _name(old) != f"{_name(new)}_":
            yield f"{count} {new.partition(' ')[0]}, {'was' if count == 1 else 'were'} {old.partition(' ')[0]}"


_RULES: tuple[Callable[[Cost, Cost], Iterator[str]], ...] = (
    *(_input, _repeated, _attention, _types, _layout, _modes, _compiler, _extra, _out_of_place, _replaced),
)


def _differences(before: Cost, now: Cost) -> str:
    """Return which operators are more and which fewer, where no cause shows."""
    difference = {name: count for name, count in _by_name(before, now, whole=True).items() if count}
    if not difference:
        larger = now.flops != before.flops or now.written != before.written
        return (
            f"the same operators, {'on tensors of other sizes' if larger else 'with other arguments or in other order'}"
        )
    each = gcd(*difference.values())
    named = sorted(difference.items(), key=lambda item: (-abs(item[1]), item[0]))[:_MOST_NAMED]
    left = f" and {len(difference) - _MOST_NAMED} others" if len(difference) > _MOST_NAMED else ""
    times = f"{each} times " if each > 1 else ""
    return times + ", ".join(f"{count // each:+d} {name}" for name, count in named) + left


def _name(key: str) -> str:
    return key.partition(" ")[0].partition("(")[0]


def _by_name(before: Cost, now: Cost, *, whole: bool = False) -> Counter[str]:
    """Count how many more calls each operator has; a `whole` name tells its text arguments, type and layout."""
    difference: Counter[str] = Counter()
    for sign, cost in ((1, now), (-1, before)):
        for key, count in cost.operators.items():
            difference[key if whole else _name(key)] += sign * count
    return difference


def _by_type(operators: _Calls, name: str) -> Counter[str]:
    types: Counter[str] = Counter()
    for key, count in operators.items():
        if _name(key) == name:
            types[_type(key)] += count
    return types


def _type(key: str) -> str:
    """Return the type that an operator computes in, which its key names after its arguments."""
    return key.removesuffix(" channels_last").rpartition(" ")[2]


def _bits(dtype: str) -> int:
    """Return the bits of a type by its name, as `bfloat16`; 0 of one without a number."""
    return int("".join(filter(str.isdigit, dtype)) or 0)


def _kinds_of_work(cost: Cost) -> set[tuple[str, bool]]:
    """Return the types and layouts that a pass has, of a model of so many parameters."""
    kinds = {(_type(key), key.endswith("channels_last")) for key in cost.operators}
    return {*kinds, (f"{cost.parameters} parameters", False)}


def _number(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


def _were(count: int) -> str:
    return f"was {count}" if count == 1 else f"were {count}" if count else "was none"
