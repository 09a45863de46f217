# Build an image with only the daemon, on a base without a shell, from wheels with pinned hashes. See
# deploy/image/README.md.

# Use any two images with the same minor version of Python. For repeatable builds, give digests (NAME@sha256:...).
ARG BUILD_IMAGE=docker.io/library/python:3.13-slim-trixie
ARG RUNTIME_IMAGE=gcr.io/distroless/python3-debian13:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build
# requirements-kubernetes.txt also has the client of Kubernetes, for a leader election on a Lease.
ARG REQUIREMENTS=requirements.txt
COPY deploy/image/build-requirements.txt deploy/image/${REQUIREMENTS} ./
# To use a private package index, add `--secret id=pip,src=pip.conf`. Unlike an argument, a secret leaves no trace. The
# tools stay in this stage, so the shipped environment has no pip.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    python3 -m venv tools \
    && tools/bin/python3 -m pip install \
        --no-cache-dir --no-deps --only-binary=:all: --require-hashes --requirement build-requirements.txt \
    && python3 -m venv --without-pip /opt/poller \
    && tools/bin/python3 -m pip --python /opt/poller/bin/python3 install \
        --no-cache-dir --no-deps --only-binary=:all: --require-hashes --requirement "${REQUIREMENTS}"
COPY pyproject.toml README.md LICENSE ./
COPY .ci/metadata.py .ci/
COPY queries queries
COPY poller poller
# Path of the interpreter in the runtime image. The build points the environment to it.
ARG RUNTIME_PYTHON=/usr/bin/python3
RUN tools/bin/python3 -m pip wheel \
        --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir dist . \
    && tools/bin/python3 -m pip --python /opt/poller/bin/python3 install \
        --no-cache-dir --no-deps --no-index dist/*.whl \
    && find /opt/poller/bin -type f ! -name poller -delete \
    && rm -r /opt/poller/include \
    && ln -sfn "${RUNTIME_PYTHON}" /opt/poller/bin/python3 \
    && sed -i "s|^home = .*|home = ${RUNTIME_PYTHON%/*}|" /opt/poller/pyvenv.cfg \
    && mkdir state

FROM ${RUNTIME_IMAGE}
ARG RUNTIME_IMAGE
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="obscura-poller" \
    org.opencontainers.image.description="Pushes aggregates of a PostgreSQL read replica as OpenTelemetry gauges." \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
COPY --from=build /opt/poller /opt/poller
# The poller polls the queries in this folder. To replace them, mount a volume or a ConfigMap there.
COPY queries/*.yaml /etc/poller/queries/
# The poller writes only to this folder.
COPY --from=build --chown=65532:65532 /build/state /var/lib/poller
VOLUME ["/var/lib/poller"]
ENV PATH=/opt/poller/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    TYPER_USE_RICH=0 \
    POLLER_QUERIES=/etc/poller/queries \
    POLLER_STATE_DIR=/var/lib/poller
USER 65532:65532
# This step fails if the two images have different versions of Python, or if the runtime image lacks a library.
RUN ["python3", "-c", "import poller.cli.run, poller.otlp.grpc, poller.otlp.http"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["poller", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["poller"]
CMD ["run"]
