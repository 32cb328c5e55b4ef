"""Invalid and unusual JSON, made from valid examples: values, structure and text are changed."""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeAlias

Place: TypeAlias = tuple[Any, Any]
"""A dict or list, and a key or an index in it."""

_HUGE = "\x01huge\x01"  # stands for a number that json.dumps cannot write
_NESTED = "\x01nested:{}\x01"  # stands for so many levels of lists
_DEPTHS = (50, 99, 101, 150, 5_000, 50_000)
_SIZES = (1, 64, 65, 512, 513, 2_000, 70_000, 600_000)
_REPEATS = (2, 17, 129, 300, 11_000)
_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**64), 10**400),
    *(0.0, -0.0, 0.5, 1e308, float("nan"), float("inf"), -float("inf"), _HUGE),
    *("", " ", "a", "\0", "\ud83d", "\ude00\ud83d", "😀", "\u202e", "'; --", "inf", "null", "-1"),
    *("AAA", "====", "data:image/png;base64,AAAA", "http://127.0.0.1:1/x", "../../etc/passwd"),
    *([], {}, [None], [[]], {"": None}, {"type": "object"}, ["\ud83d"], {"\udc00": "\udc00"}),
)
_TOKENS = (b"NaN", b"-Infinity", b"1e999", b"-", b"01", b"+1", b"tru", b"'a'", b"/**/1", b'"\\x"')
_BYTES = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\0", b"\xef\xbb\xbf", b"\\ud83d", b"\\u12", b'"')


def mutated(sample: Any, strings: list[str], rng: Random) -> bytes:
    """A text made from the sample by one to three changes.

    strings: names and values of all samples, which are put where they do not belong.
    """
    tree = json.loads(json.dumps({"": sample}))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        rng.choice(_TREE_CHANGES)(tree, rng.choice(list(_places(tree))), strings, rng)
    text = json.dumps(tree[""]).encode()
    text = text.replace(json.dumps(_HUGE).encode(), b"1e999")
    for depth in _DEPTHS:
        text = text.replace(json.dumps(_NESTED.format(depth)).encode(), b"[" * depth + b"]" * depth)
    if rng.random() < 0.3:
        text = rng.choice(_TEXT_CHANGES)(text, rng)
    return text


def strings_of(samples: list[Any]) -> list[str]:
    """Every key and every string of the samples, each once."""
    found: dict[str, None] = {}
    for container, key in (place for sample in samples for place in _places({"": sample})):
        for value in (key, container[key]):
            if isinstance(value, str):
                found[value] = None
    return list(found)


def _places(tree: Any) -> Iterator[Place]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


# --- changes of the tree: (tree, place, strings, rng)


def _replace(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    place[0][place[1]] = json.loads(json.dumps(rng.choice(_SCALARS)))


def _wrong_enum(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    place[0][place[1]] = rng.choice(strings)


def _delete(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    if place[0] is not tree:
        del place[0][place[1]]


def _add_key(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    value = place[0][place[1]]
    target = value if isinstance(value, dict) else place[0]
    if isinstance(target, dict):
        target[rng.choice((*strings, "", "\ud83d", "x" * 600))] = rng.choice(_SCALARS[:30])


def _rename(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    container, key = place
    if isinstance(container, dict) and container is not tree:
        value = container.pop(key)
        container[rng.choice((key.upper(), key + "s", key[:-1], rng.choice(strings)))] = value


def _nest(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    place[0][place[1]] = _NESTED.format(rng.choice(_DEPTHS))


def _wrap(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    value = place[0][place[1]]
    place[0][place[1]] = rng.choice(([value], {"value": value}, [value, value], str(value)))


def _enlarge(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    place[0][place[1]] = rng.choice(("a", "é", "\ud83d", "A\n", '"')) * rng.choice(_SIZES)


def _repeat(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    """Repeat the members of a list, or give an object many keys."""
    value, count = place[0][place[1]], rng.choice(_REPEATS)
    if isinstance(value, list) and len(value) < 100:
        place[0][place[1]] = value * count
    elif isinstance(value, dict):
        value.update((f"key{number}", "x") for number in range(count))


def _exchange(tree: Any, place: Place, strings: list[str], rng: Random) -> None:
    """Put a copy of another part of the tree here."""
    container, key = rng.choice(list(_places(tree)))
    if len(text := json.dumps(container[key])) < 5_000:
        place[0][place[1]] = json.loads(text)


_TREE_CHANGES: tuple[Callable[[Any, Place, list[str], Random], None], ...] = (
    *(_replace, _replace, _replace, _wrong_enum, _wrong_enum, _delete, _delete),
    *(_add_key, _rename, _nest, _wrap, _enlarge, _repeat, _exchange),
)

# --- changes of the text


def _truncate(text: bytes, rng: Random) -> bytes:
    return text[: rng.randrange(len(text))]


def _duplicate_key(text: bytes, rng: Random) -> bytes:
    first = text.find(b"{")
    if first < 0 or b":" not in text:
        return text
    member = rng.choice((b'"type": null', b'"type": "x"', b'"event_id": 1', b'"model": "a"'))
    return text[: first + 1] + member + b", " + member + b", " + text[first + 1 :]


def _token(text: bytes, rng: Random) -> bytes:
    """Put what is no JSON in place of a value."""
    at = text.find(b": ", rng.randrange(len(text)))
    end = min((n for n in (text.find(b",", at), text.find(b"}", at)) if n > 0), default=-1)
    return text if at < 0 or end < 0 else text[: at + 2] + rng.choice(_TOKENS) + text[end:]


def _insert(text: bytes, rng: Random) -> bytes:
    at = rng.randrange(len(text) + 1)
    return text[:at] + rng.choice(_BYTES) + text[at:]


def _flip(text: bytes, rng: Random) -> bytes:
    changed = bytearray(text)
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _surround(text: bytes, rng: Random) -> bytes:
    before, after = rng.choice(((b"", b"{}"), (b"[", b"]"), (b"\xef\xbb\xbf", b""), (b"", b"\0")))
    return before + text + after


def _nothing(text: bytes, rng: Random) -> bytes:
    return rng.choice((b"", b" ", b"null", b"0", b'""', b"[]", b"{}", b"[" * 100_000))


_TEXT_CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(_truncate, _truncate, _duplicate_key, _token, _insert, _insert, _flip, _surround, _nothing),
)
