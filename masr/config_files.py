"""Reads configs: ``extends:``, command-line overrides, and errors that name the file, the key and the way out."""

import difflib
import io
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml import YAMLError

from masr.config import EXPECTED, Config
from masr.config_effects import options_without_effect
from masr.files import write_whole
from masr.progress import printable

COMMAND_LINE = "command line"
LONGEST_FILE = 200_000
"""Bytes of a config file: ten times the largest that masr ships."""
LONGEST_SHOWN = 200
MOST_REFERENCES = 20
"""Places with ``${...}``: what refers to what refers to others doubles each time."""
MOST_VALUES = 20_000
"""In a config file, with what its aliases (``*x``) stand for written out."""
DEEPEST = 30
"""Levels of lists and options in one another, files that extend one another, and parts of a key."""


class ConfigError(ValueError):
    """What a user can put right in a config; the message says where and how."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a YAML file, its ``extends:`` chain and ``a.b=c`` overrides, last one wins."""
    path = Path(path)
    sources = [*read_chain(path), (COMMAND_LINE, _parse_overrides(overrides))]
    merged = merge(path, [tree for _, tree in sources])
    merged.setdefault("name", path.stem)
    try:
        config = Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(printable(_explain(detail, sources)) for detail in error.errors())) from None
    one_by_one = [(COMMAND_LINE, _parse_overrides([override])) for override in overrides]
    trees = [(name, OmegaConf.to_container(tree)) for name, tree in [*sources[:-1], *one_by_one]]
    if idle := options_without_effect(config, trees):
        raise ConfigError("\n".join(idle))
    return config


def save_config(config: Config, path: Path) -> None:
    """Writes the resolved config, every option included."""
    write_whole(path, config_yaml(config))


def config_yaml(config: Config) -> str:
    """The resolved config as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))


def merge(path: Path, trees: Sequence[Any]) -> dict[str, Any]:
    """One tree of several, the last one wins, with ``${...}`` filled in; ConfigError where that cannot be done."""
    try:
        tree = OmegaConf.merge(*trees)
        _check_references(OmegaConf.to_container(tree))
        merged = OmegaConf.to_container(tree, resolve=True)
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {_problem(error)}") from error
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def _check_references(tree: Any) -> None:
    """ValueError where ``${...}`` is in so many values that what they stand for could grow without end."""
    values, number = [tree], 0
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str):
            number += value.count("${")
    if number > MOST_REFERENCES:
        raise ValueError(f"${{...}} is used {number} times; at most {MOST_REFERENCES} are allowed")


def _problem(error: BaseException) -> str:
    """One line of an error of YAML or OmegaConf, which say on further lines where it is in their own terms."""
    if isinstance(error, RecursionError):
        return "values refer to each other"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        place = f"line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1}"
        return f"{place}: {' '.join(filter(None, (error.context, error.problem)))}"
    return " ".join(str(error).partition("\n")[0].split())


def read_chain(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, Any]]:
    """(file name, tree) pairs from the most basic file, by ``extends:``, to ``path`` itself."""
    _check_path(path)
    if not path.is_file():
        looked_in = "" if path.is_absolute() else f" in {path.parent.resolve()}"
        raise ConfigError(f"{path}: no such file{looked_in}{_nearest_file(path)}")
    if path.resolve() in seen:
        raise ConfigError(f"{path}: extends itself through {' -> '.join(p.name for p in seen)}")
    if len(seen) > DEEPEST:
        raise ConfigError(f"{path}: more than {DEEPEST} files extend one another")
    tree = _read_tree(path)
    try:
        base = tree.pop("extends", None)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: extends: {_problem(error)}") from error
    if base is not None and not (isinstance(base, str) and base.strip()):
        raise ConfigError(f"{path}: extends: expected the name of one file, found {_shown(base)}")
    chain = read_chain(path.parent / base, (*seen, path.resolve())) if base else []
    for _, parent in chain:
        parent.pop("name", None)  # an experiment is named after its own file
    return [*chain, (str(path), tree)]


def _check_path(path: Path) -> None:
    """ConfigError for a path that no file can have."""
    if not str(path).isprintable():
        raise ConfigError(f"{str(path)!r}: control characters are in no name of a config file")
    if len(path.name.encode(errors="replace")) > 255:
        raise ConfigError(f"{path.name[:40]}...: {len(path.name)} letters are too many for the name of a file")


def _read_tree(path: Path) -> DictConfig:
    """The options of one file as they are written there; ConfigError says what is wrong with it."""
    try:
        size = path.stat().st_size
        if size > LONGEST_FILE:
            raise ConfigError(f"{path}: {size} bytes are no config; at most {LONGEST_FILE} are read")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: it is not UTF-8 text: {error}") from error
    try:
        _check_size(text)
        tree = OmegaConf.load(io.StringIO(text))
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not valid YAML: {_problem(error)}") from error
    except OSError as error:  # OmegaConf's word for a number or a date
        raise ConfigError(f"{path}: expected `key: value` lines at the top level") from error
    except (ValueError, TypeError, RecursionError) as error:  # e.g. a number of 5000 digits
        raise ConfigError(f"{path}: not valid YAML: {_problem(error)}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level")
    return tree


def _check_size(text: str) -> None:
    """ValueError for YAML that is too large or too deep, before anything is made of it.

    An alias counts as all that it stands for: nine lines of nine aliases each are a billion values.
    """
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the values before it
    values = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"*{event.anchor} stands for nothing that is complete there")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, values))
            values += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: values - before} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        if values > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values, with those that aliases stand for")
        if len(open_nodes) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels of lists and options in one another")


def _nearest_file(path: Path) -> str:
    files = {file.name: file for file in sorted(path.parent.glob("*.yaml"))}
    close = difflib.get_close_matches(path.name, files, n=1, cutoff=0.6)
    return f"; did you mean {files[close[0]]}?" if close else f" (*.yaml there: {', '.join(files) or 'none'})"


def _parse_overrides(overrides: Sequence[str]) -> Any:
    tree = OmegaConf.create()
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key or override.startswith("-"):
            raise ConfigError(f"{COMMAND_LINE}: {_shown(override)} is not an override; write section.key=value")
        if key.count(".") + key.count("[") > DEEPEST:
            raise ConfigError(f"{COMMAND_LINE}: {_shown(key)}: no option lies that deep")
        try:
            OmegaConf.update(tree, key, _value_of(text))
        except (YAMLError, OmegaConfBaseException, ValueError, TypeError, KeyError, IndexError) as error:
            raise ConfigError(f"{COMMAND_LINE}: {_shown(override)}: {_problem(error)}") from error
    return tree


WHOLE = re.compile(
    r"[*&!@%`|>?,\]}#]|-(\s|$)|=$|<<$"  # what would be an alias, a tag, a block of text, a comment ...
    r"|.*(\s#|:\s|:$)"  # a comment, or an option of its own, further on
    r"|.*[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]",  # ends of lines
    re.DOTALL,
)
"""Text that YAML takes for something else, or does not take."""


def _value_of(text: str) -> Any:
    """What stands behind ``key=``: a list, a mapping or a quoted text as YAML has them, a number, true, false or null;
    all else is text, whole as it was written, e.g. a path with `` #`` in it."""
    if not text.lstrip().startswith(("[", "{", '"', "'")) and WHOLE.match(text):
        return text
    _check_size(f"value: {text}")
    return OmegaConf.to_container(OmegaConf.load(io.StringIO(f"value: {text}")))["value"]  # type: ignore[index, call-overload]


def _shown(value: Any) -> str:
    """A value as an error shows it."""
    try:
        text = repr(value)
    except ValueError:
        return "a number with more digits than Python writes"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}... ({len(text)} characters)"


def _explain(detail: ErrorDetails, sources: list[tuple[str, Any]]) -> str:
    location = [str(part) for part in detail["loc"]]
    if not location:  # options that do not go together
        return f"{sources[0][0]}: {detail['msg'].removeprefix('Value error, ')}"
    where = f"{_source_of(location, sources)}: {'.'.join(location)}"
    if detail["type"] != "extra_forbidden":
        return f"{where}: {_expected(location, detail)}, found {_shown(detail['input'])}"
    known = list(_section_at(location[:-1]).model_fields)
    close = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {'.'.join([*location[:-1], close[0]])}? " if close else ""
    return f"{where}: unknown key; {hint}Allowed here: {', '.join(known)}"


def _source_of(location: list[str], sources: list[tuple[str, Any]]) -> str:
    """The last source that sets the key, which is the one to mend."""
    for name, tree in reversed(sources):
        node = OmegaConf.to_container(tree)
        for part in location:
            if isinstance(node, dict) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit():
                return name
            else:
                break
        else:
            return name
    return sources[0][0]


def _section_at(location: list[str]) -> type[BaseModel]:
    section: type[BaseModel] = Config
    for part in location:
        if part not in section.model_fields:  # a place in a list, or a name in a mapping
            continue
        section = _model_in(section.model_fields[part].annotation) or section
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation like ``list[Level]`` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, typing.get_args(annotation))), None)


def _expected(location: list[str], detail: ErrorDetails) -> str:
    """What the key wants, with its allowed values where they are a short list."""
    if detail["type"] in ("model_type", "model_attributes_type"):
        return f"is a group of options: expected `key: value` lines under it, or {'.'.join(location)}.key=value"
    message = detail["msg"][0].lower() + detail["msg"][1:]
    if detail["type"] == "string_pattern_mismatch":
        message = EXPECTED.get(detail["ctx"]["pattern"], message)
    if detail["type"] in ("string_type", "literal_error") and isinstance(detail["input"], bool):
        message += "; YAML reads no, yes, on and off as true or false: put them into quotes"
    try:
        field = _section_at(location[:-1]).model_fields[location[-1]]
    except (KeyError, AssertionError):
        return message
    allowed = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    choices = f" (allowed: {', '.join(map(str, allowed))})" if allowed else ""
    default = "" if field.is_required() else f" (default: {field.default})"
    return message + (choices or default)
