"""Reads configs: ``extends:``, command-line overrides, and errors that name the file, the key and the way out."""

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml import YAMLError

from masr.config import Config
from masr.files import write_whole

COMMAND_LINE = "command line"


class ConfigError(ValueError):
    """What a user can put right in a config; the message says where and how."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The resolved config of a YAML file, its ``extends:`` chain and ``a.b=c`` overrides, last one wins."""
    path = Path(path)
    sources = [*read_chain(path), (COMMAND_LINE, _parse_overrides(overrides))]
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(*(tree for _, tree in sources)), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {error}") from error
    assert isinstance(merged, dict)
    merged.setdefault("name", path.stem)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(detail, sources) for detail in error.errors())) from None


def save_config(config: Config, path: Path) -> None:
    """Writes the resolved config, every option included."""
    write_whole(path, config_yaml(config))


def config_yaml(config: Config) -> str:
    """The resolved config as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(config.model_dump()))


def read_chain(path: Path, seen: tuple[Path, ...] = ()) -> list[tuple[str, Any]]:
    """(file name, tree) pairs from the most basic file, by ``extends:``, to ``path`` itself."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: extends itself through {' -> '.join(p.name for p in seen)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file{_nearest_file(path)}")
    try:
        tree = OmegaConf.load(path)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, DictConfig):
        raise ConfigError(f"{path}: expected `key: value` lines at the top level")
    base = tree.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"{path}: extends: expected the name of one file, found {base}")
    chain = read_chain(path.parent / base, (*seen, path.resolve())) if base else []
    for _, parent in chain:
        parent.pop("name", None)  # an experiment is named after its own file
    return [*chain, (str(path), tree)]


def _nearest_file(path: Path) -> str:
    files = {file.name: file for file in sorted(path.parent.glob("*.yaml"))}
    close = difflib.get_close_matches(path.name, files, n=1, cutoff=0.6)
    return f"; did you mean {files[close[0]]}?" if close else f" (*.yaml there: {', '.join(files) or 'none'})"


def _parse_overrides(overrides: Sequence[str]) -> Any:
    for override in overrides:
        if "=" not in override or override.startswith(("-", "=")):
            raise ConfigError(f"{COMMAND_LINE}: {override!r} is not an override; write section.key=value")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{COMMAND_LINE}: {error}") from error


def _explain(detail: ErrorDetails, sources: list[tuple[str, Any]]) -> str:
    location = [str(part) for part in detail["loc"]]
    if not location:  # options that do not go together
        return f"{sources[0][0]}: {detail['msg'].removeprefix('Value error, ')}"
    where = f"{_source_of(location, sources)}: {'.'.join(location)}"
    if detail["type"] != "extra_forbidden":
        return f"{where}: {_expected(location, detail)}, found {detail['input']!r}"
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
        message = "should begin with a letter or digit"
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
