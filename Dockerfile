# The image of the service. Two build arguments:
#   BASE         an image with Python 3.11 or newer as `python`
#   TORCH_INDEX  the package index for torch, to select another build (for example CPU only)
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG TORCH_INDEX=""
WORKDIR /src
RUN python -m venv /opt/descent
COPY constraints.txt ./
# Only torch itself comes from TORCH_INDEX; the next step installs its dependencies.
RUN /opt/descent/bin/pip install --no-cache-dir -c constraints.txt \
    ${TORCH_INDEX:+--no-deps --index-url "$TORCH_INDEX"} torch
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY descent descent
COPY migrations migrations
COPY models models
COPY service service
COPY web web
RUN /opt/descent/bin/pip install --no-cache-dir -c constraints.txt '.[server]'

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin descent \
    && mkdir /data /blobs \
    && chown descent /data /blobs
COPY --from=build /opt/descent /opt/descent
USER descent
WORKDIR /data
# The service listens on a public address, so it does not start without DESCENT_API_KEY.
ENV PATH=/opt/descent/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    DESCENT_HOST=0.0.0.0 \
    DESCENT_PORT=8000 \
    DESCENT_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD python -c "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"DESCENT_PORT\"]}/readyz', timeout=2)"
CMD ["descent", "serve"]
