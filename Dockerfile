# edadm on a machine with GPUs: `docker build -t edadm .`, see docs/environments.md. PyTorch brings CUDA's libraries, so the base is the
# smallest; Triton compiles with gcc and Python's headers.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

ENV DEBIAN_FRONTEND=noninteractive PYTHONUNBUFFERED=1 PATH=/opt/edadm/.venv/bin:$PATH
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/edadm
COPY requirements.lock .
RUN python3 -m venv .venv \
    && pip install --no-cache-dir uv==0.13.9 \
    && uv pip sync --no-cache --require-hashes --compile-bytecode requirements.lock
COPY pyproject.toml README.md LICENSE Snakefile config.yaml ./
COPY envs envs
COPY workflow workflow
COPY edadm edadm
RUN uv pip install --no-cache --no-deps --no-build-isolation .

WORKDIR /work
ENTRYPOINT ["edadm"]
CMD ["--help"]
