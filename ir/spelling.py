"""How types, numbers, constants, names and locations are spelt in IR text."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from tracegrad.ir.const import Const
from tracegrad.ir.loc import UNKNOWN, Loc
from tracegrad.ir.types import DType, TensorType, TupleType

INLINE_LIMIT = 16  # constants of more elements are printed as a digest, unless they are splats

# A word that needs no quotes in a comment: no space, no quote, nothing that separates parts.
_PLAIN_WORD = re.compile(r"[^\s\"#,;@]+")
_RESERVED_WORDS = frozenset({"in", "at", "<-", "@", ""})


def word(text: str) -> str:
    """A name or path as one word of a comment: bare where that reads back, else a JSON string."""
    if text not in _RESERVED_WORDS and _PLAIN_WORD.fullmatch(text) and text.isprintable():
        return text
    return quoted(text)


def quoted(text: str) -> str:
    """A JSON string."""
    import json

    return json.dumps(text)


def is_plain_name(text: str) -> bool:
    """Whether a graph's name needs no quotes in its header."""
    return text.isascii() and text.isidentifier()


def spell_type(type_: Any) -> str:
    return str(type_)


def spell_float(value: float) -> str:
    """A Python float that reads back bit for bit; nan, inf and -0.0 by name."""
    return repr(float(value))


def _real_element(element: Any, dtype: DType) -> str:
    """The shortest decimal that rounds to this element in its own dtype."""
    value = float(element)
    if math.isnan(value):
        canonical = np.array(math.nan, dtype.np).tobytes()
        bits = np.asarray(element, dtype.np).tobytes()
        return "nan" if bits == canonical else f"bits(0x{bits[::-1].hex()})"
    if dtype.np == np.float64 or math.isinf(value) or value == 0:
        return repr(value)
    for digits in range(1, 10):  # 9 digits tell every float32 from its neighbours
        text = repr(float(f"{value:.{digits}g}"))
        if dtype.np.type(float(text)) == element:
            return text
    return repr(value)


def spell_element(element: Any, dtype: DType) -> str:
    """One element of a constant: `True`, `3`, `0.1`, `nan`, `bits(0x7fc1)`, `complex(1.0, 2.0)`."""
    if dtype.is_bool:
        return str(bool(element))
    if dtype.is_int:
        return str(int(element))
    if dtype.is_complex:
        part = np.zeros((), dtype.np).real.dtype
        real = DType("", part, "float")
        return f"complex({_real_element(element.real, real)}, {_real_element(element.imag, real)})"
    return _real_element(element, dtype)


def is_inline(const: Const) -> bool:
    """Whether the text carries the values, and not only their digest."""
    return const.is_splat or const.array.size <= INLINE_LIMIT


def spell_const(const: Const) -> str:
    if const.is_splat:
        element = const.array.flat[0] if const.array.size else np.zeros((), const.dtype.np)[()]
        return f"const<{const.type} {spell_element(element, const.dtype)}>"
    if is_inline(const):
        values = ", ".join(spell_element(element, const.dtype) for element in const.array.flat)
        return f"const<{const.type} [{values}]>"
    return f"const<{const.type} blake2b:{const.digest}>"


def spell_value(value: Any) -> str:
    """An attribute value. Graphs are written by the caller, as a block; here they are `...`."""
    if isinstance(value, tuple):
        inner = ", ".join(spell_value(part) for part in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float):
        return spell_float(value)
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool | int):
        return repr(value)
    if isinstance(value, DType):
        return value.name
    if isinstance(value, TensorType | TupleType):
        return spell_type(value)
    if isinstance(value, Const):
        return spell_const(value)
    return f"<{value!r}>"  # not an IR value: readable here, refused by the parser and the verifier


def spell_loc(loc: Loc) -> str:
    """`net.py:41 in forward @ block1.attn <- vjp(tanh)`, then `; other.py:7` for merged origins."""
    if loc is UNKNOWN:
        return ""
    parts = [_origin(loc), *(_origin(other) for other in loc.also)]
    return "; ".join(parts)


def _origin(loc: Loc) -> str:
    text = f"{word(loc.file)}:{loc.line}"
    if loc.function:
        text += f" in {word(loc.function)}"
    if loc.scope:
        text += f" @ {word(loc.scope)}"
    for step in loc.via:
        text += f" <- {word(step)}"
    return text


_ORIGIN_PART = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^\s",;]+)')


def split_words(text: str) -> list[str]:
    """The words of a comment; a quoted one keeps its quotes, `,` and `;` are words of their own."""
    words: list[str] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
        elif text[position] in ",;":
            words.append(text[position])
            position += 1
        else:
            match = _ORIGIN_PART.match(text, position)
            if match is None:
                raise ValueError(f"cannot read {text[position:]!r}")
            end = match.end()
            if match[1].startswith('"') and text[end : end + 1] == ":":  # "a b.py":41
                tail = re.compile(r":-?\d+").match(text, end)
                if tail is not None:
                    end = tail.end()
            words.append(text[match.start(1) : end])
            position = end
    return words


def unword(text: str) -> str:
    """The name behind one word of a comment."""
    if text.startswith('"'):
        import json

        value = json.loads(text)
        if isinstance(value, str):
            return value
    return text


def read_loc(words: list[str]) -> Loc:
    """The location that `spell_loc` wrote. Raises ValueError for anything else."""
    if not words:
        return UNKNOWN
    origins: list[list[str]] = [[]]
    for each in words:
        if each == ";":
            origins.append([])
        else:
            origins[-1].append(each)
    first, *others = (_read_origin(each) for each in origins)
    if not others:
        return first
    return Loc(first.file, first.line, first.function, first.scope, first.via, tuple(others))


def _read_origin(words: list[str]) -> Loc:
    if not words:
        raise ValueError("a location is missing before or after ';'")
    file, colon, line = words[0].rpartition(":")
    if not colon:
        raise ValueError(f"{words[0]!r} is not file:line")
    function = scope = ""
    via: list[str] = []
    for mark, name in zip(words[1::2], words[2::2]):
        if mark == "in":
            function = unword(name)
        elif mark == "@":
            scope = unword(name)
        elif mark == "<-":
            via.append(unword(name))
        else:
            raise ValueError(f"{mark!r} where 'in', '@' or '<-' is expected")
    if len(words) % 2 == 0:
        raise ValueError(f"nothing follows {words[-1]!r}")
    return Loc(unword(file), int(line), function, scope, tuple(via))
