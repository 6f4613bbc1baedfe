# sft-atlas in a container: docker build -t sft-atlas . ; docker run --gpus all -v "$PWD/results:/sft-atlas/results" sft-atlas snakemake ...
# For a machine without GPUs: docker build --build-arg TORCH=cpu -t sft-atlas .
# Never built where this was written (no registry of images can be reached from there); GitHub Actions builds it weekly.
FROM python:3.12-slim-bookworm

ARG TORCH=""
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /sft-atlas
COPY pyproject.toml Makefile ./
COPY envs envs
RUN UV_NO_CACHE=1 PIP_NO_CACHE_DIR=1 make env PYTHON=python3 TORCH="$TORCH" \
    && { .venv/bin/python -m compileall -q -j 0 .venv/lib > /dev/null || true; }
COPY . .

# Anybody may run it: docker run --user "$(id -u)". Results and Snakemake's records are written below this folder.
RUN mkdir -p results .snakemake && chmod 1777 . results .snakemake
ENV PATH="/sft-atlas/.venv/bin:$PATH" PYTHONUNBUFFERED=1
CMD ["snakemake", "--cores", "all"]
