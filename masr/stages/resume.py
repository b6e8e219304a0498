"""What of a config may change before a run goes on: nothing that would make it two runs in one folder."""

from pathlib import Path
from typing import Any

from masr.config import Config
from masr.config_files import ConfigError, load_config
from masr.files import read_json
from masr.models.folder import WEIGHTS
from masr.stages.output import differences, plain

DECIDES_NOTHING: dict[str, Any] = {
    "name": True,
    "decode": True,
    "data_dir": True,
    "corpus": {"path", "test", "also"},
    "features": {"jobs"},
    "data": {"workers", "max_bad_fraction", "device_seconds"},
    "train": {"threads", "log_every", "keep_checkpoints", "max_bad_steps", "changed"},
}
"""Options that change neither the model nor the order of the data."""
ON_THE_WAY = ("updates", "patience", "validate_every", "learning_rate", "precision", "keep")
"""Options of ``train`` that may be others from an update on; the run says so."""
AFTER_THE_END = ("updates", "patience")
"""Those of them that make a finished run go on."""
DATA = "data.json"
"""The training and dev splits and the vocabulary that a run was begun with."""


def newest_update(folder: Path) -> int:
    """Update of the newest checkpoint; 0 when there is none."""
    names = [path.name for path in (folder / "checkpoints").glob("step-????????")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def decisive(config: Config) -> dict[str, Any]:
    """The options that belong to one run."""
    return config.model_dump(exclude=DECIDES_NOTHING)


def sealed_options(config: Config) -> dict[str, Any]:
    """`decisive` as a seal has it: without augmentation that is off, which runs of before there was any do not know."""
    options = decisive(config)
    if not config.data.augment.active:
        del options["data"]["augment"]
    return options


def changes_on_the_way(config: Config, data: dict[str, str], folder: Path, finished: bool) -> list[str]:
    """What is other than when the run in ``folder`` was begun or last went on, as ``train.updates (100 -> 200)``.

    ConfigError when that makes it another run. Before the first checkpoint there is nothing to go on from, and nothing
    is refused.
    """
    reached, has_result = newest_update(folder), finished or (folder / WEIGHTS).exists()
    if not (reached or has_result) or not (folder / "config.yaml").exists():
        return []
    before, now = load_config(folder / "config.yaml"), config
    changed = list(differences(plain(decisive(before)), plain(decisive(now))))
    goes_on = not finished or config.train.updates > reached
    allowed = tuple(f"train.{name} " for name in (ON_THE_WAY if goes_on else AFTER_THE_END))
    refused = [change for change in changed if not change.startswith(allowed)]
    refused += _other_data(data, folder)
    if refused:
        raise ConfigError(
            f"{folder} was trained with another config or data; changed: {', '.join(sorted(refused))}. "
            "Choose another name=..., or --force to throw the old run away."
        )
    if not reached:
        raise ConfigError(
            f"{folder} holds a model and no checkpoint from which it could be trained on or mended: choose another "
            "name=..., or --force to throw the model away"
        )
    if config.train.updates < reached:
        raise ConfigError(
            f"{folder} has made {reached} updates already, more than train.updates={config.train.updates}: ask for "
            "more, choose another name=..., or --force to throw the old run away"
        )
    return changed


def _other_data(data: dict[str, str], folder: Path) -> list[str]:
    """Which inputs are not those that a run was begun with."""
    if not (folder / DATA).exists():
        return []
    before = read_json(folder / DATA, "remove it if you know that the data is the same")
    if "features" in before:
        return ["the data, as masr 0.1 began this run, whose text normalisation was another"]
    return [name for name in data if data[name] != before.get(name)]
