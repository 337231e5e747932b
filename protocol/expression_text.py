"""Expressions as text: what is written becomes a tree, and a tree is written back.

Room: grammar, limits and printing of the language that validators and permission rules are written in, a subset
of CEL (SPEC, "Expressions"). What a tree means is `expression`'s, what may be said of a model `expression_check`'s.
`parse` raises `ExpressionFault` and nothing else, whatever the text; `parse(write(tree)) == tree`.
"""

import math
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protocol.errors import ExpressionFault
from protocol.schema_field import INTEGER_MAX, INTEGER_MIN

TEXT_SIZE_MAX = 2048  # code points
NODES_MAX = 200
DEPTH_MAX = 32
KEYWORDS = frozenset({"true", "false", "null", "in"})
QUANTIFIERS = frozenset({"all", "exists"})


def _at() -> Any:
    return field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Literal:
    """null, a boolean, an integer of 64 bits, a finite binary64 or a string."""

    value: Any
    at: int = _at()  # where it stands in the text, in code points

    def __eq__(self, other: object) -> bool:
        """As far as the language tells values apart: `1`, `1.0` and `true` are three literals."""
        return (
            isinstance(other, Literal)
            and type(self.value) is type(other.value)
            and repr(self.value) == repr(other.value)
        )

    def __hash__(self) -> int:
        return hash(repr(self.value))


@dataclass(frozen=True, slots=True)
class Name:
    name: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Member:
    of: "Node"
    name: str
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Index:
    of: "Node"
    key: "Node"
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Listed:
    items: tuple["Node", ...]
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Unary:
    op: str  # ! -
    of: "Node"
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: "Node"
    right: "Node"
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Choice:
    condition: "Node"
    then: "Node"
    otherwise: "Node"
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Call:
    """A function, or with `of` a method."""

    name: str
    of: "Node | None"
    arguments: tuple["Node", ...]
    at: int = _at()


@dataclass(frozen=True, slots=True)
class Quantified:
    """`of.all(name, body)` or `of.exists(name, body)`."""

    kind: str
    of: "Node"
    name: str
    body: "Node"
    at: int = _at()


Node = Literal | Name | Member | Index | Listed | Unary | Binary | Choice | Call | Quantified

_LEVELS: tuple[tuple[str, ...], ...] = (
    ("||",),
    ("&&",),
    ("==", "!=", "<", "<=", ">", ">=", "in"),
    ("+", "-"),
    ("*", "/", "%"),
)
_RELATIONS = 2  # the level whose operators stand once: a < b < c is no sentence
_WHOLE = -1  # where a choice may stand without parentheses
_UNARY = len(_LEVELS)
_POSTFIX = _UNARY + 1
_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<string>"(?:[^"\\\r\n]|\\.)*"|'(?:[^'\\\r\n]|\\.)*')
    |(?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:.,()\[\]])
    |(?P<end>\Z)
    )""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "'": "'", "\\": "\\"}
_WRITTEN = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\"}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def parse(text: str) -> Node:
    """The tree of an expression. Raises `ExpressionFault`, which says what is wrong and where."""
    if len(text) > TEXT_SIZE_MAX:
        raise ExpressionFault(f"must be at most {TEXT_SIZE_MAX} characters", 0)
    return _Parser(_tokens(text)).whole()


def write(node: Node) -> str:
    """The tree as text, in one form."""
    return _write(node, _WHOLE)


def names_of(node: Node) -> list[str]:
    """Names that are free in the tree, each once, in the order in which they are read."""
    found: dict[str, None] = {}

    def look(node: Node, bound: frozenset[str]) -> None:
        if isinstance(node, Name) and node.name not in bound:
            found[node.name] = None
        elif isinstance(node, Quantified):
            look(node.of, bound)
            look(node.body, bound | {node.name})
        else:
            for part in parts_of(node):
                look(part, bound)

    look(node, frozenset())
    return list(found)


def members_of(node: Node, name: str) -> list[str] | None:
    """The members that a tree reads of what `name` means, in order; None if it reads it in another way too."""
    found: dict[str, None] = {}

    def is_known(node: Node) -> bool:
        if isinstance(node, Member) and isinstance(node.of, Name) and node.of.name == name:
            found[node.name] = None
            return True
        return not (isinstance(node, Name) and node.name == name) and all(map(is_known, parts_of(node)))

    return list(found) if is_known(node) else None


def parts_of(node: Node) -> tuple[Node, ...]:
    """The nodes right under one, in the order in which they are written."""
    match node:
        case Member(of):
            return (of,)
        case Index(of, key):
            return of, key
        case Listed(items):
            return items
        case Unary(_, of):
            return (of,)
        case Binary(_, left, right):
            return left, right
        case Choice(condition, then, otherwise):
            return condition, then, otherwise
        case Call(_, of, arguments):
            return arguments if of is None else (of, *arguments)
        case Quantified(_, of, _, body):
            return of, body
    return ()


# -- reading --------------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while True:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip(" \t\r\n"))
            quoted = text[at] in "\"'"
            what = "a string has no end on its line" if quoted else f"there is no meaning for {text[at]!a}"
            raise ExpressionFault(what, at)
        kind = match.lastgroup or "end"
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        at = match.end()
        if kind == "end":
            return tokens


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._nodes = 0
        self._depth = 0

    def whole(self) -> Node:
        node = self._expression()
        if self._peek.kind != "end":
            raise self._unexpected("the end")
        return node

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += token.kind != "end"
        return token

    def _has(self, text: str) -> bool:
        """Whether this sign or keyword comes next; it is taken if so."""
        token = self._peek
        if token.text == text and token.kind in ("sign", "name"):
            self._take()
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._has(text):
            raise self._unexpected(text)

    def _unexpected(self, wanted: str) -> ExpressionFault:
        token = self._peek
        found = "the end" if token.kind == "end" else ascii(token.text)
        return ExpressionFault(f"{wanted} is expected, not {found}", token.at)

    def _made(self, node: Node) -> Node:
        self._nodes += 1
        if self._nodes > NODES_MAX:
            raise ExpressionFault(f"must have at most {NODES_MAX} parts", node.at)
        return node

    def _expression(self) -> Node:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpressionFault(f"must be nested at most {DEPTH_MAX} deep", self._peek.at)
        node = self._level(0)
        at = self._peek.at
        if self._has("?"):
            then = self._expression()
            self._expect(":")
            node = self._made(Choice(node, then, self._expression(), at))
        self._depth -= 1
        return node

    def _level(self, level: int) -> Node:
        if level == _UNARY:
            return self._unary()
        node = self._level(level + 1)
        while self._peek.text in _LEVELS[level] and self._peek.kind in ("sign", "name"):
            token = self._take()
            node = self._made(Binary(token.text, node, self._level(level + 1), token.at))
            if level == _RELATIONS:
                break
        return node

    def _unary(self) -> Node:
        token = self._peek
        if token.text not in ("!", "-") or token.kind != "sign":
            return self._postfix(self._primary())
        self._take()
        if token.text == "-" and self._peek.kind == "number":
            return self._postfix(self._number(self._take(), -1))
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise ExpressionFault(f"must be nested at most {DEPTH_MAX} deep", token.at)
        node = self._made(Unary(token.text, self._unary(), token.at))
        self._depth -= 1
        return node

    def _postfix(self, node: Node) -> Node:
        while True:
            at = self._peek.at
            if self._has("["):
                key = self._expression()
                self._expect("]")
                node = self._made(Index(node, key, at))
            elif self._has("."):
                name = self._name()
                if not self._has("("):
                    node = self._made(Member(node, name, at))
                elif name in QUANTIFIERS:
                    node = self._quantified(name, node, at)
                else:
                    node = self._made(Call(name, node, self._items(")"), at))
            else:
                return node

    def _quantified(self, kind: str, of: Node, at: int) -> Node:
        name = self._name()
        self._expect(",")
        body = self._expression()
        self._expect(")")
        return self._made(Quantified(kind, of, name, body, at))

    def _name(self) -> str:
        token = self._peek
        if token.kind != "name" or token.text in KEYWORDS:
            raise self._unexpected("a name")
        return self._take().text

    def _items(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        if self._has(end):
            return ()
        while True:
            items.append(self._expression())
            if self._has(end):
                return tuple(items)
            self._expect(",")

    def _primary(self) -> Node:
        token = self._peek
        if token.kind == "number":
            return self._number(self._take(), 1)
        if token.kind == "string":
            self._take()
            return self._made(Literal(_unquoted(token), token.at))
        if token.kind == "name" and token.text != "in":
            self._take()
            constants = {"true": True, "false": False, "null": None}
            if token.text in constants:
                return self._made(Literal(constants[token.text], token.at))
            if self._has("("):
                return self._made(Call(token.text, None, self._items(")"), token.at))
            return self._made(Name(token.text, token.at))
        if self._has("("):
            node = self._expression()
            self._expect(")")
            return node
        if self._has("["):
            return self._made(Listed(self._items("]"), token.at))
        raise self._unexpected("a value")

    def _number(self, token: _Token, sign: int) -> Node:
        if token.text.isdigit():
            value: int | float = sign * int(token.text) if len(token.text) <= 19 else INTEGER_MAX + 1
            if not INTEGER_MIN <= value <= INTEGER_MAX:
                raise ExpressionFault("an integer must fit in 64 bits", token.at)
        else:
            value = sign * float(token.text)
            if not math.isfinite(value):
                raise ExpressionFault("a number must be finite", token.at)
        return self._made(Literal(value, token.at))


def _unquoted(token: _Token) -> str:
    def unescaped(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        if match[2] not in _ESCAPES:
            raise ExpressionFault(f"there is no escape {match[0]!a} in strings", token.at)
        return _ESCAPES[match[2]]

    value = _ESCAPE.sub(unescaped, token.text[1:-1])
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ExpressionFault("a string must be valid Unicode", token.at)
    return value


# -- writing --------------------------------------------------------------------------------------------------


def _write(node: Node, level: int) -> str:
    """The node as text, in parentheses where one of `level` is expected and it binds less."""
    match node:
        case Literal(value):
            return _literal(value)
        case Name(name):
            return name
        case Member(of, name):
            return f"{_write(of, _POSTFIX)}.{name}"
        case Index(of, key):
            return f"{_write(of, _POSTFIX)}[{_write(key, _WHOLE)}]"
        case Listed(items):
            return f"[{', '.join(_write(item, _WHOLE) for item in items)}]"
        case Call(name, of, arguments):
            before = "" if of is None else f"{_write(of, _POSTFIX)}."
            return f"{before}{name}({', '.join(_write(argument, _WHOLE) for argument in arguments)})"
        case Quantified(kind, of, name, body):
            return f"{_write(of, _POSTFIX)}.{kind}({name}, {_write(body, _WHOLE)})"
        case Unary(op, of):
            written, own = _write(of, _UNARY), _UNARY
            # A minus before digits belongs to the number.
            written = f"-({written})" if op == "-" and written[:1].isdigit() else op + written
        case Binary(op, left, right):
            own = next(n for n, ops in enumerate(_LEVELS) if op in ops)
            low = own + 1 if own == _RELATIONS else own
            written = f"{_write(left, low)} {op} {_write(right, own + 1)}"
        case Choice(condition, then, otherwise):
            own = _WHOLE
            written = f"{_write(condition, 0)} ? {_write(then, _WHOLE)} : {_write(otherwise, _WHOLE)}"
    return f"({written})" if own < level else written


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is not str:
        return repr(value)
    escaped = (
        _WRITTEN.get(c, c) if c >= " " and c != "\x7f" else _WRITTEN.get(c, f"\\u{ord(c):04x}") for c in value
    )
    return f'"{"".join(escaped)}"'
