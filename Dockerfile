# Images of the control plane and of the data plane: --target operator | router.
# The worker's is worker-image/Dockerfile.

FROM debian:bookworm-slim AS base
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.11 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*
ENV PATH=/opt/tidegate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    # kopf asks who runs it, and the user ID has no name in here.
    USER=tidegate \
    HOME=/tmp

FROM base AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3.11-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*
RUN python3.11 -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir build hatchling
WORKDIR /src
COPY pyproject.toml requirements.lock ./
# The dependencies of one program, from the lock file; only this layer is heavy, and code does not
# change it.
RUN printf '%s\n' \
    'import sys, tomllib' \
    'project = tomllib.load(open("pyproject.toml", "rb"))["project"]' \
    'print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")' \
    > /opt/build/requirements.py

FROM build AS wheel
COPY . .
RUN /opt/build/bin/python -m build --wheel --no-isolation --outdir /dist .

FROM build AS operator-build
RUN python3.11 -m venv --without-pip /opt/tidegate \
    && /opt/build/bin/python /opt/build/requirements.py operator > /tmp/requirements.txt \
    && /opt/build/bin/pip --python /opt/tidegate/bin/python install --no-cache-dir --no-compile -c requirements.lock -r /tmp/requirements.txt \
    && python -m compileall -q /opt/tidegate
COPY --from=wheel /dist /dist
RUN /opt/build/bin/pip --python /opt/tidegate/bin/python install --no-cache-dir --no-deps /dist/*.whl

FROM build AS router-build
RUN python3.11 -m venv --without-pip /opt/tidegate \
    && /opt/build/bin/python /opt/build/requirements.py router > /tmp/requirements.txt \
    && /opt/build/bin/pip --python /opt/tidegate/bin/python install --no-cache-dir --no-compile -c requirements.lock -r /tmp/requirements.txt \
    && python -m compileall -q /opt/tidegate
COPY --from=wheel /dist /dist
RUN /opt/build/bin/pip --python /opt/tidegate/bin/python install --no-cache-dir --no-deps /dist/*.whl

FROM base AS operator
COPY --from=operator-build /opt/tidegate /opt/tidegate
USER 65532:65532
WORKDIR /tmp
EXPOSE 9092
ENTRYPOINT ["python", "-m", "tidegate_operator"]

FROM base AS router
COPY --from=router-build /opt/tidegate /opt/tidegate
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000 8001 9090
ENTRYPOINT ["python", "-m", "tidegate_router"]
