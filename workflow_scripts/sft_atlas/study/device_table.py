"""The kinds of devices that plans and requests are computed for: ``config/devices.yaml``."""

from pathlib import Path

from pydantic import ValidationError

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import explain, strict_yaml
from sft_atlas.study.schema import Device, Devices


def device(path: Path, name: str, named_by: str) -> Device:
    """A kind of device by name; ConfigError where the table is wrong or lacks it (``named_by`` says which key asked for it)."""
    try:
        devices = Devices.model_validate(strict_yaml(path)).devices
    except ValidationError as error:
        raise ConfigError(str(path), explain(error, Devices)) from None
    if name not in devices:
        raise ConfigError(
            str(path), [f"{named_by} is {name!r}, which is not here (there are {', '.join(devices)}); add it or name one of them"]
        )
    return devices[name]
