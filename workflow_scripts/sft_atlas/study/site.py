"""The site file: what is particular to a cluster (``slurm/site.yaml``)."""

from pathlib import Path

from pydantic import Field, ValidationError

from sft_atlas.core.errors import ConfigError
from sft_atlas.study.messages import explain, strict_yaml
from sft_atlas.study.schema import Part, Positive


class SitePart(Part):
    """A part of the site file; its keys are explained in the file itself."""


class Partitions(SitePart):
    """Partition by class of job; null: the default partition."""

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
    try:
        return Site.model_validate(strict_yaml(Path(path)))
    except ValidationError as error:
        raise ConfigError(str(path), explain(error, Site)) from None


def named(resources) -> Path | None:
    """The site file named by the default resources (Snakemake's `Resources`, or None) that a profile sets: ``site="..."``."""
    values = dict(entry.split("=", 1) for entry in resources.args) if resources else {}
    return Path(values["site"].strip("\"'")) if "site" in values else None
