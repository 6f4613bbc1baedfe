"""What a study runs on: the cluster (``slurm/site.yaml``) and the kinds of devices (``config/devices.yaml``)."""

from pathlib import Path

from pydantic import Field

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import strict_yaml, validated
from sft_atlas.study.places import ConfigSources
from sft_atlas.study.schema import Device, Devices, Part, Positive


class SitePart(Part):
    """A part of the site file; the file itself explains its keys."""


class Partitions(SitePart):
    """Partition for each class of jobs; null: the default partition."""

    cpu: str | None = None
    gpu: str | None = None
    multi_gpu: str | None = None


class Site(SitePart):
    """Facts about a cluster."""

    account: str | None = None
    partitions: Partitions = Partitions()
    device: str = "h100"
    gpu_flavour: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]+$")
    cpus_per_gpu: Positive = 8
    max_minutes: Positive = 1440
    max_memory_gb: Positive | None = None
    scratch: str | None = None
    qos: str | None = None
    constraint: str | None = None


def load(path: Path) -> Site:
    """Read and check a site file; raises ConfigError with every problem found."""
    return validated(Site, strict_yaml(Path(path)), ConfigSources([path]))


def site_file(resources) -> Path | None:
    """The site file that a profile names among its default resources (Snakemake's `Resources`, or None): ``site="..."``."""
    values = dict(entry.split("=", 1) for entry in resources.args) if resources else {}
    return Path(values["site"].strip("\"'")) if "site" in values else None


def rate_sources(path: Path) -> dict[str, str]:
    """Where the generation rates of each engine in the table in ``path`` are from."""
    return dict(_table(path).engines)


def _table(path: Path) -> Devices:
    return validated(Devices, strict_yaml(path), ConfigSources([path]))


def device(path: Path, name: str, key: str, source: str | ConfigSources = "study") -> Device:
    """A kind of device from the table in ``path``; ConfigError where it is not there. ``key`` of ``source`` is the setting that names it."""
    devices = _table(path).devices
    if name not in devices:
        raise ConfigError(source, [f"{key}: {name!r} is not in {path} (there are {', '.join(devices)}); add it or name one of them"])
    return devices[name]
