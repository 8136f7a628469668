# The image of pgpool-entrypoint and pgpool-sidecar: `make image`, or `docker build .`, or `buildah build --format docker`.
# image/README.md says what is in it, how large it is and why, and how two builds differ.

# Some networks reach the package registries only by a configuration of their own: build-image --through-host mounts one
# below /media and names it in APT_CONFIG, PIP_CONFIG_FILE and CURL_HOME. Nothing of it stays.

# May be a digest: docker.io/library/debian@sha256:…
ARG BASE_IMAGE=docker.io/library/debian:trixie-slim

# --- pgpool from verified source --------------------------------------------------------------------------------------
FROM ${BASE_IMAGE} AS pgpool
ARG APT_CONFIG
ARG CURL_HOME
# The package lists stay: build-pgpool fetches from Debian, too.
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get -qq update \
    && apt-get -qq install --no-install-recommends --yes \
        ca-certificates curl gcc libc6-dev libpam0g-dev libpq-dev libssl-dev make patch
ARG PGPOOL_VERSION=4.6.8
# image/tarballs/pgpool-VERSION.tar.gz is taken, and verified, where the network cannot reach the release's origin.
COPY image/build-pgpool image/releases.tsv image/tarballs* /build/
COPY image/patches /build/patches
RUN /build/build-pgpool --version "${PGPOOL_VERSION}" --prefix /opt/pgpool --cache /build

# --- our two programs, in a virtual environment -----------------------------------------------------------------------
FROM ${BASE_IMAGE} AS python
ARG APT_CONFIG
ARG PIP_CONFIG_FILE
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get -qq update \
    && apt-get -qq install --no-install-recommends --yes python3-venv
WORKDIR /build
# pip stays here: it installs into the other environment from outside.
COPY image/requirements.txt image/build-requirements.txt ./
RUN python3 -m venv tools \
    && tools/bin/pip install --quiet --require-hashes --only-binary :all: --requirement build-requirements.txt \
    && /usr/bin/python3.13 -m venv --without-pip /opt/pgpool-entrypoint \
    && tools/bin/pip --python /opt/pgpool-entrypoint/bin/python install --quiet --no-compile \
        --require-hashes --only-binary :all: --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY entrypoint ./entrypoint
COPY sidecar ./sidecar
# Bytecode that is never compared with its source: its times are not the image's, and nobody could write it anew.
RUN tools/bin/python -m hatchling build --target wheel --directory dist \
    && tools/bin/pip --python /opt/pgpool-entrypoint/bin/python install --quiet --no-compile --no-deps --no-index dist/*.whl \
    && rm -f /opt/pgpool-entrypoint/bin/[Aa]ctivate* /opt/pgpool-entrypoint/.gitignore \
    && /opt/pgpool-entrypoint/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/pgpool-entrypoint/lib

# --- psql alone: its package would bring Perl along -------------------------------------------------------------------
FROM ${BASE_IMAGE} AS psql
ARG APT_CONFIG
WORKDIR /build
# /var/lib/dpkg/status.d is where scanners look for packages that dpkg itself did not install.
RUN apt-get -qq update \
    && apt-get -qq -o APT::Sandbox::User=root download postgresql-client-17 \
    && dpkg-deb --extract postgresql-client-17_*.deb unpacked \
    && install -D unpacked/usr/lib/postgresql/17/bin/psql root/usr/local/bin/psql \
    && install -D --mode 644 unpacked/usr/share/doc/postgresql-client-17/copyright \
        root/usr/share/doc/postgresql-client-17/copyright \
    && mkdir -p root/var/lib/dpkg/status.d \
    && dpkg-deb --field postgresql-client-17_*.deb >root/var/lib/dpkg/status.d/postgresql-client-17

# --- the image --------------------------------------------------------------------------------------------------------
FROM ${BASE_IMAGE}
ARG APT_CONFIG
# Debian's updates since the base image was made. Python without pip; what the programs are linked with; nothing that may
# become root; nothing that the next build, or another day, would make differently. A tmpfs mounted on the run directory
# takes over its mode (runc before 1.2).
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get -qq update \
    && apt-get -qq upgrade --yes \
    && apt-get -qq install --no-install-recommends --yes \
        libpam0g libpq5 libpython3.13-stdlib libreadline8t64 libssl3t64 python3.13-minimal tini \
    && find /usr/lib/python3.13 -name __pycache__ -prune -exec rm -r {} + \
    && python3.13 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.13 \
    && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
    && rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /var/lib/dpkg/*-old /etc/*- /tmp/* \
    && echo 'pgpool:x:10001:' >>/etc/group \
    && echo 'pgpool:x:10001:10001:pgpool:/run/pgpool:/usr/sbin/nologin' >>/etc/passwd \
    && install --directory --mode 1777 --owner 10001 --group 0 /run/pgpool \
    && ln -s /opt/pgpool-entrypoint/bin/pgpool-entrypoint /opt/pgpool-entrypoint/bin/pgpool-sidecar /usr/local/bin/
COPY --from=pgpool /opt/pgpool /opt/pgpool
COPY --from=psql /build/root /
COPY --from=python /opt/pgpool-entrypoint /opt/pgpool-entrypoint
ENV PATH=/opt/pgpool/bin:/usr/local/bin:/usr/bin:/bin
# The second line proves, as the user that will run it, that all of it works.
ARG SOURCE_DATE_EPOCH
# The checksum of both files: buildah's cache does not look into what is mounted.
ARG MOUNTED
RUN --mount=type=bind,source=image,target=/mnt \
    python3.13 /mnt/sbom.py --output /usr/share/sbom/pgpool-entrypoint.spdx.json \
    && setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --inh-caps=-all --bounding-set=-all /mnt/smoke-test

LABEL org.opencontainers.image.title="pgpool-entrypoint" \
    org.opencontainers.image.description="pgpool-II, configured from environment and Secrets, and its sidecar" \
    org.opencontainers.image.licenses="Apache-2.0"
# Any other user id works, too, if it may write to the volume of the run directory.
USER 10001:10001
EXPOSE 9999 9719
# At once and cleanly; SIGTERM would wait for clients that never leave.
STOPSIGNAL SIGINT
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["pgpool-entrypoint", "probe", "live"]
# As process 1, pgpool would stop when an adopted orphan ends with status 3.
ENTRYPOINT ["tini", "--", "pgpool-entrypoint"]
